from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine import resume
from lavender.engine.checkpoint import write_json
from lavender.engine.resume import Found, Position, ProcessState, find_run, forget, load_state, save_state
from lavender.runtime.errors import ConfigError, TrainingError


class Scales:
    """An engine of one number."""

    def __init__(self, name: str = "Lavender, fp32"):
        self.name, self.weight = name, 1.0

    def save_state(self, folder: Path) -> None:
        torch.save({"weight": self.weight}, folder / "state.pt")

    def load_state(self, folder: Path) -> None:
        self.weight = torch.load(folder / "state.pt", weights_only=True)["weight"]


def position(step: int, **more: Any) -> Position:
    return Position(epoch=2, part=1, batches=3, step=step, all_batches=9, engine="Lavender, fp32", **more)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "resume").iterdir())


def test_what_is_saved_comes_back(tmp_path: Path):
    engine: Any = Scales()
    engine.weight = 2.5
    running = {"sums": {"loss": 0.1 + 0.2}, "steps": {"loss": 3}}
    saved = save_state(tmp_path, position(7, running=running), ProcessState(["a.tsv, line 3: cut"], 8), engine, 1)
    expected = torch.rand(3)
    torch.rand(5)
    engine.weight = 0.0
    found, process = load_state(saved, engine)
    process.restore_random()
    assert torch.equal(torch.rand(3), expected), "the random generator goes on where it was"
    process.restore_random()
    assert not torch.equal(torch.rand(3), expected), "it is put back once"
    assert (engine.weight, process) == (2.5, ProcessState(["a.tsv, line 3: cut"], 8))
    assert found == position(7, running=running)


def test_the_last_ones_are_kept_in_order(tmp_path: Path):
    engine: Any = Scales()
    for step, figures in ((2, None), (10, None), (10, {"loss": 1.0}), (11, None)):
        save_state(tmp_path, position(step, figures=figures), ProcessState(), engine, keep_last=3)
    assert names(tmp_path) == ["step_000000010", "step_000000010_trained", "step_000000011"]
    forget(tmp_path)
    assert not (tmp_path / "resume").exists()


def test_a_fault_on_the_way_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engine: Any = Scales()
    save_state(tmp_path, position(1), ProcessState(), engine, keep_last=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*free space"):
        save_state(tmp_path, position(2), ProcessState(), engine, keep_last=1)
    assert "step_000000001" in names(tmp_path)
    assert "step_000000002" not in names(tmp_path)


@pytest.mark.parametrize(("ours", "theirs"), [("DeepSpeedEngine (ZeRO 1), fp32", "Lavender, fp32")])
def test_the_state_of_another_engine_is_refused(tmp_path: Path, ours: str, theirs: str):
    for own, other in ((ours, theirs), (theirs, ours)):
        engine: Any = Scales(own)
        saved = save_state(tmp_path, replace(position(1), engine=other), ProcessState(), engine, 1)
        with pytest.raises(TrainingError, match="choose --deepspeed as it was"):
            load_state(saved, engine)


def test_another_number_of_processes_starts_the_part_again(tmp_path: Path, log):
    engine: Any = Scales()
    saved = save_state(tmp_path, replace(position(5), processes=4), ProcessState(["x"], 3), engine, 1)
    found, process = load_state(saved, engine)
    assert (found.place, found.batches, found.step, process) == ((2, 1), 0, 5, ProcessState())
    assert "is of 4 processes, these are 1" in log.text
    zero: Any = Scales("DeepSpeedEngine (ZeRO 1), bf16")
    saved = save_state(tmp_path, replace(position(6), processes=4, engine=zero.name), ProcessState(), zero, 1)
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
            save_state(run, position(step), ProcessState(), engine, 1)
        if finished:
            write_json({"epochs": [], "best": {}}, run / "results.json")
        return run

    return make


def test_auto_finds_the_last_run_of_these_options(runs, tmp_path: Path):
    config = Config(path_output=str(tmp_path), resume="auto", n_workers=9, save_steps=3)
    assert find_run(config, "toy") is None
    runs("1", step=4)
    wanted = runs("2", step=6)
    runs("3", step=8, seed=5)  # of other options
    runs("4")  # stopped before it saved anything
    assert find_run(config, "toy") == Found(wanted, wanted / "resume" / "step_000000006")
    finished = runs("5", finished=True)
    assert find_run(config, "toy") == Found(finished, None)


def test_a_run_by_name(runs, tmp_path: Path):
    run = runs("1", step=4)
    state = run / "resume" / "step_000000004"
    for path in (run, state):
        assert find_run(Config(path_output=str(tmp_path), resume=str(path)), "toy") == Found(run, state)
    with pytest.raises(ConfigError, match=r"that run has other options: lr is 1.2e-05 there, 0.5 here"):
        find_run(Config(path_output=str(tmp_path), resume=str(run), lr=0.5), "toy")
    with pytest.raises(ConfigError, match="no folder of a run with a state to go on from"):
        find_run(Config(resume=str(tmp_path / "nowhere")), "toy")
