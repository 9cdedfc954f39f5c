import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lavender.runtime.errors import TrainingError
from lavender.runtime.ownership import LOCK, SILENCE, _started, _take, owned

HOST = socket.gethostname()


def lock(folder: Path, **owner: object) -> None:
    ours = {"host": HOST, "pid": os.getpid(), "started": _started(os.getpid())}
    (folder / LOCK).write_text(json.dumps({**ours, **owner}))


def test_a_live_owner_is_named(tmp_path: Path):
    with owned(tmp_path):
        with pytest.raises(TrainingError) as raised, owned(tmp_path):
            pass
        for fact in (str(tmp_path), str(os.getpid()), HOST):
            assert fact in str(raised.value)
        assert (tmp_path / LOCK).exists(), "it is still the first one's"
    assert not (tmp_path / LOCK).exists()


def test_the_lock_goes_with_a_run_that_fails(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), owned(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / LOCK).exists()


def test_the_lock_of_a_dead_process_is_taken(tmp_path: Path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for owner in ({"pid": dead.pid}, {"started": "1"}):  # the second: another process has got its number
        lock(tmp_path, **owner)
        with owned(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    for content in ('{"host"', '{"host": "", "started": "", "pid": 1e999}', "[" * 100_000):
        (tmp_path / LOCK).write_text(content)
        with owned(tmp_path):
            pass


@pytest.mark.parametrize(("age", "taken"), [(0, False), (SILENCE + 60, True)])
def test_an_owner_on_another_host_counts_by_its_signs(tmp_path: Path, age: float, taken: bool):
    lock(tmp_path, host="elsewhere")
    os.utime(tmp_path / LOCK, (time.time() - age,) * 2)
    if taken:
        with owned(tmp_path):
            return
    with pytest.raises(TrainingError, match="elsewhere"), owned(tmp_path):
        pass


def test_of_many_starts_one_goes_on(tmp_path: Path):
    own = {"host": HOST, "pid": os.getpid(), "started": _started(os.getpid())}
    with ThreadPoolExecutor(8) as pool:
        faults = list(pool.map(lambda _: _take(tmp_path / LOCK, own), range(8)))
    assert faults.count("") == 1
