import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lavender.runtime import ownership
from lavender.runtime.errors import TrainingError
from lavender.runtime.ownership import (
    LOCK,
    SILENCE,
    _own,
    _place,
    _started,
    end_with_launcher,
    exclusive,
    is_orphan,
    lock_heartbeat,
    locked_options,
    release,
    take,
)

HOST = socket.gethostname()


def lock(folder: Path, **owner: object) -> None:
    (folder / LOCK).write_text(json.dumps({**_own(), **owner}))


def owner(folder: Path) -> int:
    return json.loads((folder / LOCK).read_text())["pid"]


def test_a_live_owner_is_named(tmp_path: Path):
    assert take(tmp_path, {"lr": 1}) == ""
    assert locked_options(tmp_path) == {"lr": 1}
    fault = take(tmp_path, {})
    assert all(fact in fault for fact in (str(tmp_path), str(os.getpid()), HOST))
    assert locked_options(tmp_path) == {"lr": 1}, "it is still the first one's"
    release(tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_the_lock_of_another_is_not_removed(tmp_path: Path):
    lock(tmp_path, pid=1)
    release(tmp_path)
    assert owner(tmp_path) == 1


@pytest.mark.parametrize("host", [HOST, "renamed"])
def test_the_lock_of_a_dead_process_is_taken_at_once(tmp_path: Path, host: str):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for lost in ({"pid": dead.pid}, {"started": "1"}):  # the second: another process has got its number
        lock(tmp_path, host=host, **lost)
        start = time.monotonic()
        assert take(tmp_path, {}) == ""
        assert time.monotonic() - start < 1
        assert owner(tmp_path) == os.getpid()
    for content in ('{"host"', '{"host": "", "place": "", "started": "", "pid": 1e999}', "[" * 100_000):
        (tmp_path / LOCK).write_text(content)
        assert take(tmp_path, {}) == ""


@pytest.mark.parametrize("content", ['{"host"', "", "[]", "null", '{"pid": "x"}', "\0" * 64, "[" * 100_000])
def test_a_lock_that_was_not_written_to_the_end_is_taken(tmp_path: Path, content: str):
    (tmp_path / LOCK).write_text(content)
    assert locked_options(tmp_path) is None
    assert take(tmp_path, {}) == ""
    assert owner(tmp_path) == os.getpid()


def test_an_old_lock_of_another_host_is_taken_at_once(tmp_path: Path):
    lock(tmp_path, place="elsewhere", host="elsewhere")
    os.utime(tmp_path / LOCK, (time.time() - SILENCE - 60,) * 2)
    assert take(tmp_path, {}) == ""
    assert owner(tmp_path) == os.getpid()


@pytest.mark.parametrize("lives", [True, False])
def test_an_owner_on_another_host_is_watched(tmp_path: Path, monkeypatch, lives: bool):
    """A container of the same host name, too: a process of its number and start is none of its processes."""
    monkeypatch.setattr(ownership, "SILENCE", 1.5)
    monkeypatch.setattr(ownership, "POLL", 0.05)
    lock(tmp_path, place="elsewhere")
    if lives:
        threading.Timer(0.5, os.utime, [tmp_path / LOCK]).start()
    fault = take(tmp_path, {})
    assert (HOST in fault) == lives
    assert json.loads((tmp_path / LOCK).read_text())["place"] == ("elsewhere" if lives else _place())


def test_an_owner_that_ends_while_it_is_watched(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ownership, "POLL", 0.05)
    lock(tmp_path, place="elsewhere")
    threading.Timer(0.3, (tmp_path / LOCK).unlink).start()
    assert take(tmp_path, {}) == ""
    assert owner(tmp_path) == os.getpid()


def test_signs_of_life(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ownership, "INTERVAL", 0.02)
    ends: list[str] = []
    assert take(tmp_path, {}) == ""
    os.utime(tmp_path / LOCK, (1, 1))
    with lock_heartbeat(tmp_path, ends.append):
        time.sleep(0.5)
        assert (tmp_path / LOCK).stat().st_mtime > 1
        assert ends == []
        lock(tmp_path, pid=1, host="elsewhere")
        time.sleep(0.5)
    assert all(fact in ends[0] for fact in ("process 1", "elsewhere", str(tmp_path)))


def test_of_many_starts_one_goes_on(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        faults = list(pool.map(lambda _: take(tmp_path, {}), range(8)))
    assert faults.count("") == 1


def test_a_file_system_without_flock(tmp_path: Path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(ownership.fcntl, "flock", refuse)
    assert take(tmp_path, {}) == ""
    assert str(os.getpid()) in take(tmp_path, {})


def test_a_file_that_its_holder_removes(tmp_path: Path):
    """Who waited for it gets the file that is there then, not the one that is gone."""
    held: list[bool] = []

    def wait() -> None:
        with exclusive(tmp_path / "x") as file:
            held.append(os.path.samestat(os.fstat(file.fileno()), (tmp_path / "x").stat()))

    with exclusive(tmp_path / "x"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        assert held == []
        (tmp_path / "x").unlink()
    waiting.join(5)
    assert held == [True]


def test_a_start_is_known(tmp_path: Path):
    assert _started(os.getpid())
    assert _started(2**22 + 1) == ""


LAUNCHER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(600)
"""
RANK = """
import os, signal, time
from lavender.runtime import ownership
ownership.GRACE = 0.1
ownership.end_with_launcher()
if "HANGS" in os.environ:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "variables",
    [
        *(("TORCHELASTIC_RUN_ID",), ("OMPI_COMM_WORLD_RANK",), ("PMI_RANK",), ("CROSS_RANK",)),
        ("TORCHELASTIC_RUN_ID", "HANGS"),
    ],
)
def test_a_rank_ends_with_its_launcher(variables: tuple[str, ...]):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, RANK],
        env={**os.environ, **dict.fromkeys(variables, "0")},
        stdout=subprocess.PIPE,
    )
    rank = int(launcher.stdout.readline())
    assert _started(rank)
    launcher.kill()
    launcher.wait()
    for _ in range(200):
        if not _started(rank):
            return
        time.sleep(0.05)
    os.kill(rank, 9)
    pytest.fail("it lives on")


@pytest.mark.parametrize(
    ("parent", "comm", "cmdline", "orphan"),
    [
        (1, "bash", "bash", True),
        (1, "process_api", "/process_api", True),
        (1, "torchrun", "/usr/bin/python\0/usr/bin/torchrun", False),  # in a container that runs it alone
        (1, "mpirun", "mpirun", False),
        (700, "systemd", "/lib/systemd/systemd\0--user", True),
        (700, "python3", "python3", False),
        (700, "bash", "bash\0run.sh", False),
    ],
)
def test_orphans(tmp_path: Path, monkeypatch, parent: int, comm: str, cmdline: str, orphan: bool):
    (tmp_path / str(parent)).mkdir()
    (tmp_path / str(parent) / "comm").write_text(comm + "\n")
    (tmp_path / str(parent) / "cmdline").write_text(cmdline)
    monkeypatch.setattr(os, "getppid", lambda: parent)
    assert is_orphan(tmp_path) == orphan


def test_an_orphan_does_not_start(monkeypatch):
    monkeypatch.setattr(ownership, "is_orphan", lambda: True)
    for name in ownership._LAUNCHERS:
        monkeypatch.delenv(name, raising=False)
    end_with_launcher()  # a shell may leave its processes running
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(ownership, "on_death_of_parent", lambda number: None)
    monkeypatch.setattr(ownership, "_end_after", lambda launcher: None)
    with pytest.raises(TrainingError, match="launcher"):
        end_with_launcher()
