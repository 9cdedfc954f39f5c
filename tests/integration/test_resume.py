"""A run that was stopped, by whatever, goes on where it was: the same losses, figures and weights, bit for bit."""

import contextlib
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
ENTRIES = [
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy", "size_frame": 5},
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy", "size_vocab": 4, "on_bad_sample": "zero", "size_frame": 5},
    {"type": "captioning", "task": "toy-cap", "train_yaml": "CAP/train.yaml"},
]
QA = ("--config", "_args/args_msvd-qa.json", "--dataset", "toy", "--task", "toy-qa", "--on_bad_sample", "zero")
WORK = {  # what is trained → script, options, steps of one process
    "pretraining": ("main_pretrain_mlm.py", ("--config", "_args/args_pretrain.json", "--dataset", "toy"), 12),
    "questions": ("main_qaoe_mlm.py", QA, 16),
    "several tasks": ("main_multi_task_mlm.py", ("--type", "multi-task", "--datasets", json.dumps(ENTRIES)), 52),
}
SMALLER = ("--size_batch", 1, "--size_epoch", 2, "--size_part", 2, "--n_workers", 2, "--lr", "1e-3")
ENGINES = {"python": "false", "launch": "false", "torchrun": "true"}  # how it is started → deepspeed


@pytest.fixture
def train(start, needs, tmp_path: Path) -> Callable[..., Any]:
    """`train(what, name, *options, by=…)`: a run of `WORK` into a folder of that name; the log tells every step."""

    def run(what: str, name: str, *options: object, by: str = "python", **more: Any) -> Any:
        needs("deepspeed")
        script, words, _ = WORK[what]
        ground = ("--deepspeed", ENGINES[by], "--use_checkpoint", "false", "--logging_steps", 1, "-v", *SMALLER)
        return start(
            *(script, *ground, *options),
            launcher=None if by == "python" else by,
            released=words,
            data=KIT / "data",
            output=tmp_path / name,
            environment={"PATH": "/nowhere"},  # without Java
            **more,
        )

    return run


def at_step(folder: Path, step: int, number: int) -> Callable[[subprocess.Popen], None]:
    """Sends a signal once the log of the run in `folder` tells that many steps; SIGKILL waits for the first state, too,
    which is written while training goes on.
    """

    def watch(process: subprocess.Popen) -> None:
        while process.poll() is None:
            logs = [path.read_text() for path in folder.glob("*/stdout.txt")]
            saved = number != signal.SIGKILL or any(folder.glob("*/resume/step_*/"))
            if saved and sum(log.count(", step ") for log in logs) >= step:
                if number == signal.SIGKILL:
                    kill_family(process.pid)
                else:
                    process.send_signal(number)
                return
            time.sleep(0.005)

    return watch


def kill_family(pid: int) -> None:
    """SIGKILL to a process and all below it, at once; some of them end with those that were killed before."""
    family = [pid]
    for parent in family:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                family += [int(word) for word in path.read_text().split()]
    for member in reversed(family):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def check_same(whole: Any, resumed: Any) -> None:
    """Results, curves and every checkpoint are equal, to the last bit; nothing to resume from is left."""
    assert resumed.results == whole.results
    assert resumed.json("log.json") == whole.json("log.json")
    names = sorted(path.name for path in whole.folder.glob("*.pt"))
    assert names == sorted(path.name for path in resumed.folder.glob("*.pt"))
    for name in names:
        ours, theirs = resumed.checkpoint(name), whole.checkpoint(name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    assert not (resumed.folder / "resume").exists()


def check_resuming(train, tmp_path: Path, wholes: dict, what: str, by: str, step: int, save_steps: int) -> None:
    options = ("--save_steps", save_steps)
    if (what, by) not in wholes:  # how often it saves changes nothing
        wholes[what, by] = train(what, "whole", *options, by=by).check_passed()
    whole = wholes[what, by]
    killed = train(what, "killed", *options, by=by, watch=at_step(tmp_path / "killed", step, signal.SIGKILL))
    assert killed.code not in (0, 2), killed.stderr[-2000:]
    resumed = train(what, "killed", *options, "--resume", "auto", by=by).check_passed()
    assert len(list((tmp_path / "killed").iterdir())) == 1, "it goes on in its own folder"
    assert "resumed from" in resumed.log
    check_same(whole, resumed)


@pytest.fixture(scope="session")
def wholes() -> dict[tuple[str, str], Any]:
    """What and how → the run that was not stopped."""
    return {}


@pytest.mark.slow  # the fault matrix has a quick one
@pytest.mark.parametrize(("what", "by", "step"), [("pretraining", "python", 8), ("questions", "torchrun", 4)])
def test_killed_in_the_middle_of_an_epoch_between_two_saves(
    train, tmp_path: Path, wholes, what: str, by: str, step: int
):
    check_resuming(train, tmp_path, wholes, what, by, step, save_steps=3)


STEPS = random.Random(7)
MATRIX = [
    pytest.param(what, by, STEPS.randrange(3, WORK[what][2] // (1 if by == "python" else 2)), marks=pytest.mark.slow)
    for (what, by) in itertools.product(WORK, ENGINES)
    for _ in range(5)
]


@pytest.mark.parametrize(("what", "by", "step"), MATRIX)
def test_killed_at_any_step(train, tmp_path: Path, wholes, what: str, by: str, step: int):
    check_resuming(train, tmp_path, wholes, what, by, step, save_steps=2)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "by"), [(signal.SIGTERM, "python"), (signal.SIGINT, "python")])
def test_a_signal_lets_the_step_end_and_saves(train, tmp_path: Path, number: int, by: str):
    options = ("--save_steps", 0)
    whole = train("questions", "whole", *options, by=by).check_passed()
    stopped = train(
        *("questions", "stopped", *options),
        by=by,
        watch=at_step(tmp_path / "stopped", 5, number),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert stopped.code == 75, stopped.stderr[-2000:]
    assert "Traceback" not in stopped.stderr
    last = stopped.stderr.rstrip().splitlines()[-1]
    assert "stopped after step" in last
    state = last.partition("--resume ")[2]
    assert Path(state).is_dir()
    check_same(whole, train("questions", "stopped", *options, "--resume", state, by=by).check_passed())


@pytest.fixture
def stopped(train, tmp_path: Path) -> Any:
    """A run of two processes that was killed after a save."""
    run = train("questions", "x", "--save_steps", 1, by="launch", watch=at_step(tmp_path / "x", 3, signal.SIGKILL))
    assert list((run.folder / "resume").glob("step_*"))
    return run


def check_told(run: Any, *words: str) -> None:
    """An error line under a launcher, which has exit codes and words of its own."""
    assert run.code != 0
    assert any(all(word in line for word in words) for line in run.errors), run.stderr[-5000:]


@pytest.mark.slow
def test_what_cannot_be_resumed_is_told(train, stopped, tmp_path: Path):
    resume = ("--save_steps", 1, "--resume", stopped.folder)
    run = train("questions", "x", *resume, "--seed", 5)
    run.check_refused("other options", "seed is 88 there, 5 here")
    train("questions", "x", "--resume", tmp_path).check_refused("no folder of a run with a state to go on from")
    check_told(train("questions", "x", *resume, "--save_steps", 7, by="torchrun"), "deepspeed is False there")
    (state,) = (stopped.folder / "resume").glob("step_*")
    whole = (state / "state.pt").read_bytes()
    (state / "state.pt").write_bytes(whole[: len(whole) // 2])
    train("questions", "x", *resume).check_refused("state.pt: this state cannot be read")
    (state / "state.pt").write_bytes(pickle.dumps({"model": Path("x")}))
    train("questions", "x", *resume).check_refused("state.pt: this state cannot be read")


@pytest.mark.slow
def test_another_number_of_processes(train, stopped):
    """DDP's weights and optimizer go on; the part that was interrupted starts again, and the run says so."""
    run = train("questions", "x", "--save_steps", 1, "--resume", "auto").check_passed()
    assert "is of 2 processes, these are 1" in run.log
    assert len(run.results["epochs"]) == 2


class Hostile:
    """Leaves a trace where it is loaded."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.slow
def test_zero_cannot_change_the_number_of_processes_nor_load_what_is_no_state(train, tmp_path: Path):
    options = ("questions", "z", "--save_steps", 1)
    train(*options, by="torchrun", watch=at_step(tmp_path / "z", 3, signal.SIGKILL))
    run = train(*options, "--resume", "auto", by="torchrun", processes=1)
    check_told(run, "ZeRO split the optimizer over 2 processes, and these are 1", "--path_ckpt")
    (state,) = run.folder.glob("resume/step_*/deepspeed")
    torch.save({"module": Hostile(tmp_path / "trace")}, state / "mp_rank_00_model_states.pt")
    run = train(*options, "--resume", "auto", by="torchrun")
    check_told(run, "deepspeed: this state cannot be read (it asks for ")
    assert not (tmp_path / "trace").exists(), "its code was run"


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(train, tmp_path: Path):
    first = train("questions", "x").check_passed()
    again = train("questions", "x", "--resume", "auto").check_passed()
    assert "is finished already" in again.stdout
    assert (again.folder, again.results) == (first.folder, first.results)
    other = train("questions", "x", "--resume", "auto", "--seed", 3).check_passed()
    assert "no run with these options to resume" in other.stdout
    assert other.folder != first.folder


@pytest.mark.slow
def test_a_full_disk_leaves_the_state_before(train, tmp_path: Path):
    """A small file system takes a checkpoint (16 MB) and a state (24 MB), and not a second beside it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("a file system of a given size can be made by root alone")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=50m", "none", str(disk)], check=False)
    if made.returncode:
        pytest.skip("this machine makes no file systems")
    try:
        run = train("questions", "disk", "--save_steps", 1)
        run.check_refused("could not be written", "free space, or choose another --path_output")
        (state,) = (run.folder / "resume").glob("step_*")
        assert (state / "position.json").is_file()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
