"""Exclusive ownership of a run's folder, and the end of processes whose launcher has died."""

import errno
import fcntl
import json
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lavender.runtime.errors import TrainingError
from lavender.runtime.files import unwritable_advice
from lavender.runtime.logging import LOGGER
from lavender.runtime.signals import on_death_of_parent

LOCK = "run.lock"
INTERVAL = 10.0  # seconds between heartbeats, i.e. updates of the lock file's modification time
SILENCE = 60.0  # timeout in seconds, after which an owner on another host counts as dead
POLL = 1.0  # seconds between checks for a heartbeat
GRACE = 30.0  # seconds for ranks to end after their launcher's death, as with torchrun
_NO_FLOCK = (
    errno.ENOSYS,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
)  # file systems mounted without locks, e.g. Lustre
_BOOT = "/proc/sys/kernel/random/boot_id"
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "CROSS_RANK")  # torchrun, MPI, deepspeed
_LAUNCHER_WORDS = (b"torch", b"python", b"mpi", b"prte", b"orted", b"hydra", b"slurm")
_INITS = ("systemd", "init", "tini", "dumb-init", "docker-init")


def take(folder: Path, options: dict[str, Any]) -> str:
    """Makes this process the owner of a run's folder; returns "" or, if a live run owns it, a message.

    `flock` decides between simultaneous starts. The lock of a killed process is taken over; a process on another host
    counts as dead after `SILENCE` seconds without a heartbeat.

    Args:
        options: the run's options, by which others can find a run that has saved nothing yet.
    """
    path, own = folder / LOCK, _own()
    try:
        while True:
            with exclusive(path) as file:
                other = _read(file.read())
                if other and _is_alive(path, other):
                    return (
                        f"{folder}: process {other['pid']} on {other['host']} is running in this folder; "
                        "wait for its end, or stop it first"
                    )
                if not _is_at(path, file):
                    continue  # it has ended in the meantime
                file.truncate(0)
                file.write(json.dumps({**own, "options": options}))
                return ""
    except OSError as error:
        return f"{path}: the lock of the run cannot be written ({error.strerror}); {unwritable_advice(error)}"


def release(folder: Path) -> None:
    """Removes the lock if it belongs to this process."""
    with suppress(OSError):
        if _is_ours(folder / LOCK):
            (folder / LOCK).unlink()


def locked_options(folder: Path) -> dict[str, Any] | None:
    """Options of the run that has locked the folder, whether alive or dead; None without a lock."""
    try:
        other = _read((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return other["options"] if other and isinstance(other.get("options"), dict) else None


@contextmanager
def lock_heartbeat(folder: Path, end: Callable[[str], object]) -> Iterator[None]:
    """Context that shows to others that this process, the owner of the folder, is alive.

    Args:
        end: called with a message, in a thread, if another run has taken the folder: this process was suspended for a
            while (a sleeping machine), or its lock was removed by hand.
    """
    leaving = threading.Event()
    threading.Thread(target=_beat, args=(folder / LOCK, leaving, end), daemon=True).start()
    try:
        yield
    finally:
        leaving.set()


def _beat(path: Path, leaving: threading.Event, end: Callable[[str], object]) -> None:
    while not leaving.wait(INTERVAL):
        with suppress(OSError):
            other = _read(path.read_text(encoding="utf-8"))
            if other and not _is_ours(path) and not leaving.is_set():
                end(f"stopped: process {other['pid']} on {other['host']} has taken over {path.parent}")
            os.utime(path)


@contextmanager
def exclusive(path: Path) -> Iterator[IO[str]]:
    """Opens or creates a file for reading and appending, and locks it exclusively with `flock`."""
    while True:
        with open(path, "a+", encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise
            if not _is_at(path, file):
                continue  # just removed by its owner
            file.seek(0)
            yield file
            return


def _is_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _own() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "place": _place(), "pid": pid, "started": _started(pid)}


def _is_ours(path: Path) -> bool:
    other = _read(path.read_text(encoding="utf-8"))
    return other is not None and {**other, **_own()} == other


def _read(content: str) -> dict[str, Any] | None:
    """Owner of the folder; None if the lock file is incomplete."""
    try:
        other = json.loads(content)
        other["pid"] = int(other["pid"])
        return other if {"host", "place", "started"} <= other.keys() else None
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _is_alive(path: Path, other: dict[str, Any]) -> bool:
    if other["place"] == _place():
        return _started(other["pid"]) == other["started"] != ""
    signed, told = path.stat().st_mtime, False
    while (silent := _now(path.parent) - signed) <= SILENCE:
        if not told and silent > INTERVAL:
            told = True
            LOGGER.info("%s: waiting for a sign of life of process %d on %s", path, other["pid"], other["host"])
        time.sleep(POLL)
        try:
            with open(path, "rb") as file:  # NFS revalidates on open
                if os.fstat(file.fileno()).st_mtime != signed:
                    return True
        except FileNotFoundError:
            return False  # it has ended
    return False


def _now(folder: Path) -> float:
    """Current time of the folder's file system, which also dates the heartbeats."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _place() -> str:
    """Id of the system and PID namespace, shared by processes that see each other in /proc."""
    try:
        return f"{Path(_BOOT).read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """Start time of a process on this system, in kernel ticks; "" if it has ended."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else others[18]


def end_with_launcher() -> None:
    """Makes the kernel send SIGTERM to this process when its launcher dies.

    The process then finishes and saves the step. This may hang if another rank has ended in the same step: gloo's
    `waitSend` waits for half an hour. Therefore the process is killed after `GRACE` seconds.

    It applies only if the parent is a known launcher: a shell may leave its processes running.

    Raises:
        TrainingError: the launcher is already dead.
    """
    if not any(name in os.environ for name in _LAUNCHERS):
        return
    on_death_of_parent(signal.SIGTERM)
    threading.Thread(target=_end_after, args=(os.getppid(),), daemon=True).start()
    with suppress(OSError):  # no /proc
        if is_orphan():
            raise TrainingError("the launcher that started this process has ended, so this process does too")


def _end_after(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(POLL)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def is_orphan(proc: Path = Path("/proc")) -> bool:
    """Whether this process's parent is a process that adopts orphans, not a launcher."""
    parent = os.getppid()
    if (proc / str(parent) / "comm").read_text().strip() in _INITS:
        return True
    words = (proc / str(parent) / "cmdline").read_bytes()  # in a container, process 1 may be the launcher
    return parent == 1 and not any(word in words for word in _LAUNCHER_WORDS)
