"""A run's folder belongs to one run at a time; and processes whose launcher is gone end."""

import ctypes
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lavender.runtime import distributed
from lavender.runtime.errors import TrainingError
from lavender.runtime.quoting import one_line

LOCK = "run.lock"
INTERVAL = 10.0  # seconds between two signs of life, the lock file's modification time
SILENCE = 60.0  # seconds without one after which an owner on another host counts as dead
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "CROSS_RANK")  # torchrun, mpirun, deepspeed
_PR_SET_PDEATHSIG = 1


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """While it lasts, no other run works in the folder; every process must enter it.

    Which of two starts goes on is decided under `flock`, which the folder's file system must have (NFS has it on
    Linux). A lock whose process was killed is taken over.

    Raises:
        TrainingError: a run that is alive owns the folder; the message names its host and process.
    """
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
    fault = _take(folder / LOCK, own) if distributed.is_main() else ""
    if fault := distributed.broadcast_object(fault):
        raise TrainingError(fault)
    if not distributed.is_main():
        yield
        return
    leaving = threading.Event()
    threading.Thread(target=_beat, args=(folder / LOCK, leaving), daemon=True).start()
    try:
        yield
    finally:
        leaving.set()
        with suppress(OSError):
            (folder / LOCK).unlink()


def _take(path: Path, own: dict[str, Any]) -> str:
    """Writes the lock; returns why not, where a live run owns it."""
    try:
        while True:
            with open(path, "a+", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    continue  # its owner has just removed it
                file.seek(0)
                if fault := _owner(file.read(), path, own["host"]):
                    return fault
                file.truncate(0)
                file.write(json.dumps(own))
                return ""
    except OSError as error:
        return f"{path}: the lock of the run cannot be written ({error.strerror})"


def _owner(content: str, path: Path, host: str) -> str:
    """Who owns the folder, in words; "" where nobody does that is alive."""
    try:
        other = json.loads(content)
        where, pid, started = other["host"], int(other["pid"]), other["started"]
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return ""  # its writer was killed on the way
    silent = time.time() - path.stat().st_mtime
    alive = _started(pid) == started if where == host else silent <= SILENCE
    if not alive:
        return ""
    where = one_line(str(where))
    return (
        f"{path.parent}: process {pid} on {where} is running in this folder; wait for its end, or stop it first "
        f"(after a crash of {where}: start again in {SILENCE:.0f} s)"
    )


def _started(pid: int) -> str:
    """When a process of this host started, in the kernel's ticks; "" where it has ended."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else others[18]


def _beat(path: Path, leaving: threading.Event) -> None:
    while not leaving.wait(INTERVAL):
        with suppress(OSError):
            os.utime(path)


def end_with_launcher() -> None:
    """Has the kernel send SIGTERM to this process when its launcher dies, which may be killed without a word.

    Only where a launcher is known to be the parent: a shell may leave its processes running.
    """
    if any(name in os.environ for name in _LAUNCHERS):
        with suppress(OSError, AttributeError):  # not Linux
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
