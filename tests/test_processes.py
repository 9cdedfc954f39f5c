"""What ends a run that hangs, and no other."""

import os
import subprocess
import time

import pytest

from tests import processes
from tests.processes import Stall, run_bounded


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
