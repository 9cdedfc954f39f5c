import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lavender.config.schema import Config
from lavender.data.loaders import Loader
from lavender.data.samples import ClipDataset, Guard, SampleKey
from lavender.data.sources.base import StoredVideo
from lavender.data.workers import start_server
from lavender.runtime.errors import DataError

ROOT = Path(__file__).parents[3]


class Arrays(ClipDataset):
    """Samples out of arrays; the one at `slow` takes for ever, and that at `deadly` ends its process."""

    def __init__(self, config: Config, *, slow: int = -1, deadly: int = -1):
        super().__init__(config, training=False, size_frame=1)
        self.rows, self.empty, self.odd = np.arange(1000) * 3, np.zeros(0, np.int64), np.arange(3, dtype=np.uint8)
        self.slow, self.deadly = slow, deadly

    def __len__(self) -> int:
        return 4

    def video(self, index: int) -> StoredVideo:
        raise DataError("a number has no frames")

    def clip(self, index: int, stream: np.random.Generator) -> torch.Tensor:
        if index == self.slow:
            time.sleep(600)
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1, dtype=torch.uint8)

    def text(self, index: int, stream: np.random.Generator, guard: Guard) -> dict[str, Any]:
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return {
            "value": int(self.rows[index]) + len(self.empty) + int(self.odd[0]),
            "in_file": "memfd:dataset" in Path("/proc/self/maps").read_text() and not self.rows.flags.owndata,
            "aligned": self.rows.flags.aligned and self.rows.flags.writeable,
            "threads": len(os.listdir(f"/proc/{os.getppid()}/task")),
            "server": os.getppid(),
            "blocked": len(blocked),
        }


def loader(dataset: ClipDataset) -> Loader:
    return Loader(dataset, torch.utils.data.BatchSampler(Keys(4), 1, drop_last=False), "loader of numbers")


class Keys(torch.utils.data.Sampler):
    def __init__(self, count: int):
        self.count = count

    def __iter__(self):
        return (SampleKey(0, index) for index in range(self.count))

    def __len__(self) -> int:
        return self.count


def test_workers_come_from_a_server_without_threads_and_share_arrays(config: Config):
    config.n_workers = 2
    batches = list(loader(Arrays(config)))
    assert [batch["value"].tolist() for batch in batches] == [[0], [3], [6], [9]]
    for name in ("in_file", "aligned"):
        assert all(batch[name].all() for batch in batches), name
    assert {int(batch["server"]) for batch in batches} == {forkserver._forkserver._forkserver_pid} != {os.getpid()}
    assert {int(batch["threads"]) for batch in batches} == {1}
    assert {int(batch["blocked"]) for batch in batches} == {0}, "signals are for the workers to take again"


def test_a_pass_sees_the_data_set_as_it_is_then(config: Config):
    config.n_workers = 1
    dataset = Arrays(config)
    batches = loader(dataset)
    assert [int(batch["value"]) for batch in batches] == [0, 3, 6, 9]
    dataset.rows = dataset.rows + 1
    assert [int(batch["value"]) for batch in batches] == [1, 4, 7, 10]


def test_the_server_outlives_the_signals_that_end_a_run(config: Config):
    start_server()
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGTERM)
    os.kill(server, signal.SIGINT)
    config.n_workers = 1
    assert {int(batch["server"]) for batch in loader(Arrays(config))} == {server}


def test_a_loader_that_gives_nothing_is_given_up(config: Config):
    config.n_workers, config.loader_timeout = 1, 0.5
    others = set(multiprocessing.active_children())
    with pytest.raises(DataError, match=r"loader of numbers .* [1-9]\d* s: its 1 worker.*--loader_timeout"):
        list(loader(Arrays(config, slow=1)))
    assert set(multiprocessing.active_children()) <= others


def test_a_lost_worker_is_told(config: Config):
    config.n_workers = 1
    with pytest.raises(DataError, match=r"a data loading worker process was killed .*lower --n_workers"):
        list(loader(Arrays(config, deadly=2)))


@pytest.mark.parametrize("content", [lambda: 1, threading.Lock()])
def test_a_data_set_that_cannot_be_pickled_is_told(config: Config, content: object):
    config.n_workers = 1
    dataset = Arrays(config)
    dataset.content = content
    with pytest.raises(DataError, match=r"Arrays .*--n_workers 0"):
        list(loader(dataset))


SCRIPT = """
import os, sys
print("script", flush=True)  # once: workers must not run it again, guarded or not
from lavender.config.schema import Config
from lavender.data.loaders import evaluation_loader
from test_workers import Arrays
config = Config(n_workers=2, size_batch=1, size_img=32, size_frame=1)
for batch in evaluation_loader(Arrays(config)):
    print(int(batch["server"]), flush=True)
    if "leave" in sys.argv:
        os._exit(3)
"""


@pytest.mark.parametrize("word", ["", "leave"])
def test_nothing_stays_behind_or_is_said(tmp_path: Path, word: str):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = os.pathsep.join(map(str, (ROOT, Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, script, word],
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        capture_output=True,
        timeout=90,
    )
    first, *servers = done.stdout.split()
    assert (first, len(servers), done.returncode) == ("script", 1, 3) if word else ("script", 4, 0)
    assert done.stderr == ""
    for _ in range(200):
        if not Path(f"/proc/{servers[0]}").exists():
            return
        time.sleep(0.05)
    pytest.fail("the server of the workers is still there")


def test_a_program_that_leaves_a_lasting_loader_open_ends(tmp_path: Path):
    """Multiprocessing would ask its workers to end by a signal that they leave to their parent, and wait."""
    program = OPEN_AT_EXIT.format(unit=Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=240, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


OPEN_AT_EXIT = """
import sys
sys.path[:0] = [".", "{unit}"]
from test_workers import Arrays, Config, Keys, Loader, torch
data = Arrays(Config(n_workers=1, size_batch=1, size_img=32, size_frame=1))
loader = Loader(data, torch.utils.data.BatchSampler(Keys(4), 1, drop_last=False), "numbers", lasting=True)
batches = iter(loader)
print(int(next(batches)["value"]))
"""
