"""What ends a run that hangs, and no other."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.processes import Stall, run_bounded
from tests.warm import WarmStart


def test_a_run_that_hangs_is_ended():
    runs: list[subprocess.Popen] = []
    with pytest.raises(pytest.fail.Exception, match="sleep 1000"):
        run_bounded(["sleep", "1000"], {}, watch=runs.append, limit=1.0)
    assert runs[0].returncode is not None


def test_a_run_that_ends_is_read():
    assert run_bounded(["sh", "-c", "echo out; echo err >&2; exit 3"], {}) == (3, "out\n", "err\n")


def test_a_watch_that_fails_fails_the_test():
    def watch(process: subprocess.Popen) -> None:
        raise AssertionError("seen")

    with pytest.raises(AssertionError, match="seen"):
        run_bounded(["true"], {}, watch=watch)


def test_slow_is_not_idle(monkeypatch):
    """Time counts from the last work."""
    monkeypatch.setattr(processes, "WORK", 0.1)
    stall = Stall(lambda: [os.getpid()], limit=1e9)
    begun, spent = stall.since, time.process_time()
    while time.process_time() - spent < 0.2:
        assert not stall.is_over()
    assert stall.since > begun


def test_a_process_that_comes_is_work():
    pids: list[int] = []
    stall = Stall(lambda: pids, limit=1e9)
    begun = stall.since
    assert not stall.is_over()
    assert stall.since == begun
    pids.append(os.getpid())
    assert not stall.is_over()
    assert stall.since > begun


@pytest.fixture
def session() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def test_warm_starts_of_a_session_are_of_one_process_that_ends_with_it(tmp_path: Path, session: subprocess.Popen):
    folder = tmp_path / "warm"
    first, second = (WarmStart(folder, session.pid, (), os.environ) for _ in range(2))
    parents = {start.run("-c", "import os; print(os.getppid())").stdout.strip() for start in (first, second)}
    assert len(parents) == 2, "each has a process that waits for it"
    assert len({_parent(first), _parent(second)}) == 1
    session.kill()
    session.wait()
    end = time.monotonic() + 60
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not folder.exists()


def _parent(start: WarmStart) -> str:
    """Number of the process that forks."""
    lines = "import os; print(open(f'/proc/{os.getppid()}/stat').read().rpartition(')')[2].split()[1])"
    return start.run("-c", lines).stdout.strip()


def test_work_of_a_warm_start_is_seen(tmp_path: Path, session: subprocess.Popen, monkeypatch: pytest.MonkeyPatch):
    """It is no descendant of the command, and one that hangs is ended with it."""
    monkeypatch.setattr(processes, "WORK", 0.0)
    start = WarmStart(tmp_path / "warm", session.pid, (), os.environ)
    busy = [*start.command, "-c", "import time\nwhile time.process_time() < 2: pass"]
    assert run_bounded(busy, {}, limit=1.0)[0] == 0
    number = tmp_path / "pid"
    idle = [
        *start.command,
        "-c",
        f"import os, time; open({str(number)!r}, 'w').write(str(os.getpid())); time.sleep(1000)",
    ]
    with pytest.raises(pytest.fail.Exception, match="idle for"):
        run_bounded(idle, {}, limit=1.0)
    end = time.monotonic() + 60
    while Path("/proc", number.read_text()).exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path("/proc", number.read_text()).exists()
