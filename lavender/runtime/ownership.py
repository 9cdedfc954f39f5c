"""A run's folder belongs to one run at a time; and processes whose launcher is gone end."""

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
INTERVAL = 10.0  # seconds between two signs of life, the lock file's modification time
SILENCE = 60.0  # seconds without one after which an owner on another host counts as dead
POLL = 1.0  # seconds between two looks for one
GRACE = 30.0  # seconds that ranks get to end after their launcher's death, as many as torchrun gives them
_NO_FLOCK = (
    errno.ENOSYS,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
)  # e.g. Lustre, mounted without
_BOOT = "/proc/sys/kernel/random/boot_id"
_LAUNCHERS = ("TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "CROSS_RANK")  # torchrun, MPI, deepspeed
_LAUNCHER_WORDS = (b"torch", b"python", b"mpi", b"prte", b"orted", b"hydra", b"slurm")
_INITS = ("systemd", "init", "tini", "dumb-init", "docker-init")


def take(folder: Path, options: dict[str, Any]) -> str:
    """Makes this process the owner of a run's folder; returns why not, in words, where a live run owns it.

    Which of two starts goes on is decided under `flock`. The lock of a process that was killed is taken over; on
    another host, where it cannot be looked at, a process counts as dead after `SILENCE` seconds without a sign of life.

    Args:
        options: of the run, for those who look for a run that has saved nothing yet.
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
                    continue  # it has ended meanwhile
                file.truncate(0)
                file.write(json.dumps({**own, "options": options}))
                return ""
    except OSError as error:
        return f"{path}: the lock of the run cannot be written ({error.strerror}); {unwritable_advice(error)}"


def release(folder: Path) -> None:
    """Removes the lock, if it is this process's."""
    with suppress(OSError):
        if _is_ours(folder / LOCK):
            (folder / LOCK).unlink()


def locked_options(folder: Path) -> dict[str, Any] | None:
    """The options of the run that has locked the folder, be it alive or not; None without a lock."""
    try:
        other = _read((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return other["options"] if other and isinstance(other.get("options"), dict) else None


@contextmanager
def signs_of_life(folder: Path, end: Callable[[str], object]) -> Iterator[None]:
    """While it lasts, others can see that the owner of the folder, this process, is alive.

    Args:
        end: called with a message, in a thread, where another run has taken the folder: this process was not running
            for a while (a machine that slept), or its lock was removed by hand.
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
    """A file, opened for reading and appending, that no other process holds (see `flock`); it is made if need be."""
    while True:
        with open(path, "a+", encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_FLOCK:
                    raise
            if not _is_at(path, file):
                continue  # its owner has just removed it
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
    """Who owns the folder; None where that was not written to the end."""
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
            with open(path, "rb") as file:  # NFS asks its server at opening
                if os.fstat(file.fileno()).st_mtime != signed:
                    return True
        except FileNotFoundError:
            return False  # it has just ended
    return False


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system, which also dates the signs of life."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_mtime


def _place() -> str:
    """What processes share that see each other in /proc: the system and its process numbers, of a container or not."""
    try:
        return f"{Path(_BOOT).read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str:
    """When a process of this place started, in the kernel's ticks; "" where it has ended."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else others[18]


def end_with_launcher() -> None:
    """Has the kernel send SIGTERM to this process when its launcher dies, which may be killed without a word.

    After it the step is finished and saved. That may hang, where another rank has ended in the same step: gloo's
    `waitSend` does not see it and waits for half an hour. So after `GRACE` seconds this process is killed.

    Only where a launcher is known to be the parent: a shell may leave its processes running.

    Raises:
        TrainingError: it is dead already.
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
    """Whether this process's parent is what adopts those whose parent has died, not a launcher."""
    parent = os.getppid()
    if (proc / str(parent) / "comm").read_text().strip() in _INITS:
        return True
    words = (proc / str(parent) / "cmdline").read_bytes()  # in a container it may be a launcher itself
    return parent == 1 and not any(word in words for word in _LAUNCHER_WORDS)
