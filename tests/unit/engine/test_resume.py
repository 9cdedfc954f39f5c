import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine import resume
from lavender.engine.checkpoint import write_json
from lavender.engine.resume import (
    Claim,
    RankState,
    StateWriter,
    TrainState,
    claimed_run,
    load_state,
    remove_state,
    write_files,
)
from lavender.runtime import ownership
from lavender.runtime.errors import ConfigError, TrainingError
from lavender.runtime.ownership import LOCK, _place, take
from tests.warm import warm


class Scales:
    """An engine of one number."""

    def __init__(self, name: str = "Lavender, fp32"):
        self.kind, self.name, self.weight = name.split(",")[0].split(" ")[0], name, 1.0

    def save_state(self, folder: Path) -> dict[Path, Any]:
        return {folder / "state.pt": {"weight": self.weight}}

    def load_state(self, folder: Path) -> None:
        self.weight = torch.load(folder / "state.pt", weights_only=True)["weight"]


def position(step: int, **more: Any) -> TrainState:
    return TrainState(epoch=2, part=1, batches=3, step=step, all_batches=9, engine="Lavender, fp32", **more)


def save_state(run: Path, place: TrainState, process: RankState, engine: Any, keep_last: int) -> Path:
    """Saves a state, and waits for it."""
    writer = StateWriter(run, engine, keep_last)
    saved = writer.save(place, process)
    writer.wait()
    return saved


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "resume").iterdir())


def test_what_is_saved_comes_back(tmp_path: Path):
    engine: Any = Scales()
    engine.weight = 2.5
    running = {"sums": {"loss": 0.1 + 0.2}, "steps": {"loss": 3}}
    saved = save_state(tmp_path, position(7, running=running), RankState(["a.tsv, line 3: cut"], 8), engine, 1)
    expected = torch.rand(3)
    torch.rand(5)
    engine.weight = 0.0
    found, process = load_state(saved, engine)
    assert torch.equal(torch.rand(3), expected), "the random generator goes on where it was"
    assert (engine.weight, process) == (2.5, RankState(["a.tsv, line 3: cut"], 8))
    assert found == position(7, running=running)


def test_the_last_ones_are_kept_in_order(tmp_path: Path):
    engine: Any = Scales()
    for step, figures in ((2, None), (10, None), (10, {"loss": 1.0}), (11, None)):
        save_state(tmp_path, position(step, figures=figures), RankState(), engine, keep_last=3)
    assert names(tmp_path) == ["step_000000010", "step_000000010_trained", "step_000000011"]
    remove_state(tmp_path)
    assert not (tmp_path / "resume").exists()


def test_a_fault_on_the_way_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine: Any = Scales()
    save_state(tmp_path, position(1), RankState(), engine, keep_last=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*free space"):
        save_state(tmp_path, position(2), RankState(), engine, keep_last=1)
    assert "step_000000001" in names(tmp_path)
    assert "step_000000002" not in names(tmp_path)


class Slowly:
    """Files are on disk when `written` is set, if there is no failure."""

    def __init__(self, failure: str = ""):
        self.written, self.failure = threading.Event(), failure

    def __call__(self, files: dict[Path, Any]) -> None:
        assert self.written.wait(60)
        if self.failure:
            raise TrainingError(self.failure)
        write_files(files)


def test_training_goes_on_while_a_state_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine: Any = Scales()
    slowly = Slowly()
    monkeypatch.setattr(resume, "write_files", slowly)
    writer, place = StateWriter(tmp_path, engine, keep_last=1), position(1)
    saved = writer.save(place, RankState())
    assert names(tmp_path) == [".step_000000001.unfinished"]
    engine.weight, place.batches = 9.0, 99  # training goes on
    slowly.written.set()
    writer.wait()
    assert names(tmp_path) == ["step_000000001"]
    found, _ = load_state(saved, engine)
    assert (engine.weight, found.batches) == (1.0, 3), "the state is of when it was saved"


def test_states_are_written_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine: Any = Scales()
    slowly = Slowly()
    monkeypatch.setattr(resume, "write_files", slowly)
    writer = StateWriter(tmp_path, engine, keep_last=1)
    writer.save(position(1), RankState())
    threading.Timer(0.2, slowly.written.set).start()
    writer.save(position(2), RankState())
    assert "step_000000001" in names(tmp_path), "the first is complete before the second is begun"
    writer.close()
    assert names(tmp_path) == ["step_000000002"]


def test_a_state_that_could_not_be_written_is_told_once(tmp_path: Path, log, monkeypatch: pytest.MonkeyPatch):
    engine: Any = Scales()
    slowly = Slowly("the disk is full")
    slowly.written.set()
    monkeypatch.setattr(resume, "write_files", slowly)
    writer = StateWriter(tmp_path, engine, keep_last=1)
    writer.save(position(1), RankState())
    with pytest.raises(TrainingError, match="the disk is full"):
        writer.save(position(2), RankState())
    writer.wait()
    writer.save(position(3), RankState())
    writer.close()  # the run ends with an error of its own
    assert "the disk is full" in log.text
    assert not any(name.startswith("step_") for name in names(tmp_path))


@pytest.fixture
def another_writes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[Path]]:
    """A second process, which says that it writes this file of each state; returns the files it said."""
    said: list[Path] = []

    def begin(name: Path) -> list[Path]:
        def gather(ours: list[Path]) -> list[list[Path]]:
            said.append(ours[0].parent / name)
            return [ours, said[-1:]]

        monkeypatch.setattr(resume.distributed, "gather_objects", gather)
        return said

    return begin


def test_a_state_is_complete_with_the_files_of_all_processes(tmp_path: Path, another_writes):
    said = another_writes(Path("shard_1.pt"))
    writer = StateWriter(tmp_path, Scales(), keep_last=1)  # type: ignore[arg-type]
    writer.save(position(1), RankState())
    assert writer._written.wait(60)
    assert names(tmp_path) == [".step_000000001.unfinished"]
    said[0].touch()
    writer.wait()
    assert names(tmp_path) == ["step_000000001"]
    assert (tmp_path / "resume" / "step_000000001" / "shard_1.pt").exists()


def test_a_file_of_another_host_that_is_not_seen(tmp_path: Path, another_writes, monkeypatch: pytest.MonkeyPatch, log):
    monkeypatch.setattr(resume, "SEEN_AFTER", 0.0)
    monkeypatch.setattr(resume, "CLOSING", 0.0)
    another_writes(Path("shard_1.pt"))
    writer = StateWriter(tmp_path, Scales(), keep_last=1)  # type: ignore[arg-type]
    writer.save(position(1), RankState())
    with pytest.raises(TrainingError, match=r"step_000000001.*shard_1\.pt.*path_output.*share"):
        writer.wait()
    writer.save(position(2), RankState())
    writer.close()  # the run has failed, by whatever ended the other
    assert log.text == ""
    assert not any(name.startswith("step_") for name in names(tmp_path))


@pytest.mark.parametrize(("ours", "theirs"), [("DeepSpeedEngine (ZeRO 1), fp32", "Lavender, fp32")])
def test_the_state_of_another_engine_is_refused(tmp_path: Path, ours: str, theirs: str):
    for own, other in ((ours, theirs), (theirs, ours)):
        engine: Any = Scales(own)
        saved = save_state(tmp_path, replace(position(1), engine=other), RankState(), engine, 1)
        with pytest.raises(TrainingError, match="choose --deepspeed as it was"):
            load_state(saved, engine)


def test_another_number_of_processes_starts_the_part_again(tmp_path: Path, log):
    engine: Any = Scales()
    saved = save_state(tmp_path, replace(position(5), processes=4), RankState(["x"], 3), engine, 1)
    found, process = load_state(saved, engine)
    assert (found.place, found.batches, found.step, process) == ((2, 1), 0, 5, RankState())
    assert "is of 4 processes, these are 1" in log.text
    zero: Any = Scales("DeepSpeedEngine (ZeRO 1), bf16")
    saved = save_state(tmp_path, replace(position(6), processes=4, engine=zero.name), RankState(), zero, 1)
    with pytest.raises(TrainingError, match="over 4 processes, and these are 1"):
        load_state(saved, zero)


# --- finding a run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path) -> Any:
    """`runs("1", step=…, finished=…, **options)`: the folder of an earlier run."""

    def make(stamp: str, step: int = 0, finished: bool = False, **options: Any) -> Path:
        run = tmp_path / f"_toy_{stamp}"
        run.mkdir()
        write_json(Config(path_output=str(tmp_path), **options).to_dict(), run / "args.json")
        if step:
            engine: Any = Scales()
            save_state(run, position(step), RankState(), engine, 1)
        if finished:
            write_json({"epochs": [], "best": {}}, run / "results.json")
        return run

    return make


def claim(config: Config) -> Claim:
    with claimed_run(config, "toy", pytest.fail) as found:
        assert (found.run / LOCK).exists() != found.finished
    assert not (found.run / LOCK).exists()
    return found


def test_auto_finds_the_last_run_of_these_options(runs, tmp_path: Path):
    config = Config(path_output=str(tmp_path), resume="auto", n_workers=9, save_steps=3)
    runs("1", step=4)
    wanted = runs("2", step=6)
    runs("3", step=8, seed=5)  # of other options
    runs("4")  # stopped before it saved anything
    assert claim(config) == Claim(wanted, wanted / "resume" / "step_000000006")
    finished = runs("5", finished=True)
    assert claim(config) == Claim(finished, finished=True)
    assert sorted(tmp_path.iterdir()) == sorted(tmp_path.glob("_toy_?"))


def test_auto_makes_a_run_where_there_is_none(runs, tmp_path: Path):
    config = Config(path_output=str(tmp_path / "new"), resume="auto")
    made = claim(config)
    assert made == Claim(made.run)
    assert list((tmp_path / "new").iterdir()) == [made.run]
    assert claim(config).run != made.run, "it saved nothing"


def test_auto_refuses_a_live_run_that_has_saved_nothing(tmp_path: Path):
    """Not even its options: its model is still to be built."""
    config = Config(path_output=str(tmp_path), resume="auto")
    with claimed_run(config, "toy", pytest.fail) as first:
        with pytest.raises(TrainingError) as told, claimed_run(config, "toy", pytest.fail):
            pass
        assert all(fact in str(told.value) for fact in (str(first.run), str(os.getpid())))
        other = Config(path_output=str(tmp_path), resume="auto", lr=0.5)
        assert claim(other).run != first.run
    content = json.loads('{"host": "", "place": "", "pid": 1, "started": ""}')
    dead = subprocess.Popen(["true"])
    dead.wait()
    (first.run / LOCK).write_text(
        json.dumps({**content, "place": _place(), "pid": dead.pid, "options": config.to_dict()})
    )
    assert claim(config).run != first.run


def test_what_an_owner_did_before_it_ended_counts(runs, tmp_path: Path, monkeypatch):
    """It finishes its run after its folder was found, and before the folder is taken."""
    run = runs("1", step=4)

    def finish(folder: Path, options: dict) -> str:
        remove_state(folder)
        write_json({"epochs": [], "best": {}}, folder / "results.json")
        return take(folder, options)

    monkeypatch.setattr(ownership, "take", finish)
    assert claim(Config(path_output=str(tmp_path), resume="auto")) == Claim(run, finished=True)


def test_of_many_starts_one_goes_on(tmp_path: Path):
    """Processes of their own, all at once, with nothing to resume: one makes a run, the others are refused."""
    go = tmp_path / "go"
    command = [*warm().command, "-c", START, str(tmp_path / "out"), str(go)]
    starts = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for process in starts:
        assert process.stdout.readline() == b"ready\n"
    go.touch()
    said = [process.stdout.readline().decode().strip() for process in starts]
    for process in starts:
        process.communicate(b"end\n")
    (run,) = (tmp_path / "out").iterdir()
    assert sorted(said) == ["TrainingError"] * 3 + [run.name]


START = """
import sys, time
from pathlib import Path
from lavender.config.schema import Config
from lavender.engine.resume import claimed_run
from lavender.runtime.errors import TrainingError
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
try:
    with claimed_run(Config(path_output=sys.argv[1], resume="auto"), "toy", print) as claim:
        print(claim.run.name, flush=True)
        sys.stdin.readline()
except TrainingError as fault:
    print(type(fault).__name__, flush=True)
"""


def test_a_run_by_name(runs, tmp_path: Path):
    run = runs("1", step=4)
    state = run / "resume" / "step_000000004"
    for path in (run, state):
        assert claim(Config(path_output=str(tmp_path), resume=str(path))) == Claim(run, state)
    with pytest.raises(ConfigError, match=r"that run has other options: lr is 1.2e-05 there, 0.5 here"):
        claim(Config(path_output=str(tmp_path), resume=str(run), lr=0.5))
    with pytest.raises(ConfigError, match="no folder of a run with a state to go on from"):
        claim(Config(resume=str(tmp_path / "nowhere")))
