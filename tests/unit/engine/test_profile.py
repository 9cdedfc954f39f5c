import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine.engines import build_engine, no_mark
from lavender.engine.optim import build_optimizer
from lavender.engine.output import RunFolder
from lavender.engine.profile import PHASES, WARM_UP, StepProfile
from lavender.engine.trainer import Trainer
from lavender.tasks.pretrain import PretrainTask

CPU = torch.device("cpu")


@pytest.fixture
def run(config: Config, make_model, tmp_path: Path) -> Callable[..., tuple[Trainer, dict]]:
    """`run(profile)`: two parts of 3 batches, with that many steps to trace; the trainer and its results."""

    def train(profile: int) -> tuple[Trainer, dict]:
        changed = replace(config, size_img=32, size_batch=1, profile=profile)
        task = PretrainTask(changed)
        model = make_model(task.heads)
        for name, weight in model.named_parameters():
            weight.requires_grad_(not name.startswith(task.unused_parameters()))
        engine = build_engine(model, build_optimizer(model, 1e-3, 1.0, 1e-3), changed, CPU)
        folder = RunFolder(str(tmp_path / str(profile)), task.run_name())
        torch.manual_seed(0)
        trainer = Trainer(task, engine, changed, CPU, folder)
        results = trainer.run()
        folder.close()
        return trainer, results

    return train


def test_a_profiled_run(run, log):
    (plain, expected), (trainer, results) = run(0), run(1)
    assert results == expected
    assert not (plain.folder.path / "profile").exists()
    written = trainer.folder.path / "profile"
    events = json.loads((written / "trace_rank0.json").read_text())["traceEvents"]
    assert {event.get("name") for event in events} >= set(PHASES) - {"other"}
    text = (written / "profile.txt").read_text()
    assert "profile of 1 steps on cpu" in text
    assert "aten::" in text
    shares = [float(share) for share in re.findall(r"^  \D+ [\d.]+ s +([\d.]+)%", text, re.MULTILINE)]
    assert len(shares) == len(PHASES)
    assert sum(shares) == pytest.approx(100, abs=0.5)
    assert min(shares[1:5]) > 0  # the encoder, fusion, heads, backward
    assert "video encoder" in log.text
    model = trainer.engine.model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert trainer.engine.mark is no_mark


def test_a_part_that_ends_early_ends_the_trace(run):
    trainer, _ = run(5)
    assert "profile of 1 steps" in (trainer.folder.path / "profile" / "profile.txt").read_text()


@pytest.fixture
def profile(make_model, tmp_path: Path) -> StepProfile:
    return StepProfile(2, SimpleNamespace(model=make_model()), CPU, tmp_path)  # type: ignore[arg-type]


def test_a_part_within_the_warm_up_is_left_to_the_next(profile):
    assert list(profile.batches(range(WARM_UP))) == [*range(WARM_UP)]
    assert not profile.is_done
    assert list(profile.batches(range(9))) == [*range(9)]
    assert profile.is_done
    loader = range(3)
    assert profile.batches(loader) is loader


def test_nothing_is_written_of_a_run_that_fails(profile):
    batches = iter(profile.batches(range(9)))
    for _ in range(WARM_UP + 2):
        next(batches)
    batches.close()
    assert not profile.folder.exists()


def test_the_seconds_of_a_phase_end_where_the_next_begins(profile, monkeypatch):
    times = iter([1.0, 2.0, 5.0, 9.0])
    monkeypatch.setattr(profile, "_now", lambda: next(times))
    for phase in ("waiting for input", "backward", "optimizer", "other"):
        profile.mark(phase)
    seconds = {phase: spent for phase, spent in profile.seconds().items() if spent}
    assert seconds == {"waiting for input": 1.0, "backward": 3.0, "optimizer": 4.0}
