"""Processes that a test starts: launchers, and an end for whatever hangs, however slow the machine is."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LIMIT = 180.0  # seconds; in them
WORK = 5.0  # CPU seconds: a hanging run of two processes takes 1, by its launcher and threads; a slow one 15 or more


class Stall:
    """Whether processes hang: none came or went, and together they took no more than `WORK`, in `limit` seconds.

    A busy machine makes a run slow, but not idle: a limit on its time would depend on what else runs.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], limit: float = LIMIT):
        self.pids, self.limit = pids, limit
        self.mark, self.since = cpu_seconds(pids()), time.monotonic()

    def is_over(self) -> bool:
        now = cpu_seconds(self.pids())
        if now.keys() != self.mark.keys() or sum(now.values()) - sum(self.mark.values()) > WORK:
            self.mark, self.since = now, time.monotonic()
        return time.monotonic() - self.since > self.limit


def cpu_seconds(pids: Iterable[int]) -> dict[int, float]:
    """What each process that is there has taken, from /proc."""
    spent, tick = {}, os.sysconf("SC_CLK_TCK")
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent[pid] = (int(fields[11]) + int(fields[12])) / tick
    return spent


def launch_command(launcher: str | None, processes: int) -> list[str]:
    """What starts a script: python alone, or one of the launchers on a port of this machine."""
    port = free_port()
    python = [sys.executable]
    return {
        None: python,
        "launch": [
            *python,
            *("-m", "torch.distributed.launch"),
            *(f"--nproc_per_node={processes}", "--master_addr=127.0.0.1", f"--master_port={port}"),
        ],
        "torchrun": [
            *python,
            *("-m", "torch.distributed.run"),
            *(f"--nproc_per_node={processes}", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"),
        ],
        "deepspeed": [
            *python,
            *("-m", "deepspeed.launcher.runner"),
            *(f"--num_gpus={processes}", "--master_addr=127.0.0.1", f"--master_port={port}"),
        ],
    }[launcher]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run_bounded(
    command: list[str],
    environment: dict[str, str],
    watch: Callable[[subprocess.Popen], None] | None = None,
    limit: float = LIMIT,
    **popen: Any,
) -> tuple[int, str, str]:
    """Exit code, stdout, stderr. A command that hangs (see `Stall`) fails the test, and nothing of it stays behind.

    `watch(process)` runs beside it, and has to end with it.
    """
    with (
        tempfile.TemporaryFile("w+") as stdout,  # pipes would be waited for
        tempfile.TemporaryFile("w+") as stderr,
        tempfile.NamedTemporaryFile("r") as started,  # warm starts, which are not its descendants
    ):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment, "WARM_STARTED": started.name},
            start_new_session=True,
            **{"cwd": ROOT, **popen},
        )
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch or bool, process)
            try:
                code = wait(process, limit, Path(started.name))
            finally:
                stop_all(process)
        watching.result()
        stdout.seek(0)
        stderr.seek(0)
        said = stdout.read(), stderr.read()
    if code is None:
        pytest.fail(f"idle for {limit} s: {' '.join(command)}\n{said[0][-3000:]}\n{said[1][-5000:]}")
    return code, *said


def wait(process: subprocess.Popen, limit: float, started: Path) -> int | None:
    """Exit code; None where it hangs. `started` has the numbers of processes that work for it."""

    def family() -> list[int]:
        eldest = [process.pid, *map(int, started.read_text().split())]
        return [pid for one in eldest for pid in (one, *descendants(one))]

    stall = Stall(family, limit)
    while not stall.is_over():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1)
    return None


def stop_all(process: subprocess.Popen) -> None:
    """Ends a process and all that it started; a launcher puts its workers into sessions of their own."""
    family = [] if process.poll() is not None else descendants(process.pid)
    for signal_number, grace in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is None:
            process.send_signal(signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """Children, grandchildren, … of a process, from /proc."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [young for child in children for young in descendants(child)]
