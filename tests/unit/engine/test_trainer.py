import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import Loader, training_loader
from lavender.engine.engines import build_engine
from lavender.engine.optim import build_optimizer, learning_rate
from lavender.engine.output import RunFolder
from lavender.engine.trainer import Trainer
from lavender.models.lavender import Lavender
from lavender.runtime.errors import LavenderError, TrainingError
from lavender.tasks.pretrain import PretrainTask

CPU = torch.device("cpu")


@pytest.fixture
def make(config: Config, make_model, tmp_path: Path) -> Callable[..., Trainer]:
    """A trainer over the two toy parts (3 videos each) and 32-pixel frames, with a folder of its own."""
    numbers = iter(range(100))

    def build(task_class: type[PretrainTask] = PretrainTask, **options: Any) -> Trainer:
        changed = replace(config, **{"size_img": 32, "size_batch": 2, **options})
        task = task_class(changed)
        model = make_model(task.heads)
        optimizer = build_optimizer(model, changed.lr, changed.vis_backbone_lr_mul, changed.decay)
        folder = RunFolder(str(tmp_path / str(next(numbers))), task.run_name())
        return Trainer(task, build_engine(model, optimizer, changed, CPU), changed, CPU, folder)

    return build


def files(trainer: Trainer) -> set[str]:
    return {str(path.relative_to(trainer.folder.path)) for path in trainer.folder.path.rglob("*") if path.is_file()}


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run(make, log):
    trainer = make(size_epoch=2, logging_steps=1)
    results = trainer.run()
    trainer.folder.close()
    assert json.loads((trainer.folder.path / "results.json").read_text()) == results
    assert [(e["epoch"], e["dataset"], e["part"]) for e in results["epochs"]] == [
        (epoch, "toy", part) for epoch in (1, 2) for part in (0, 1)
    ]
    for entry in results["epochs"]:
        assert set(entry["train"]) == {"loss", "mtm", "vtm", "count_unlabelled_batches"}
        assert entry["train"]["loss"] == pytest.approx(entry["train"]["mtm"] + entry["train"]["vtm"], rel=1e-4)
        assert {"acc_vtm", "loss_vtm", "loss"} <= set(entry["val"])
    losses = [entry["val"]["loss"] for entry in results["epochs"]]
    best = results["epochs"][losses.index(min(losses))]
    assert results["best"] == {key: value for key, value in best.items() if key != "train"}
    assert "zero_shot" not in results
    curves = json.loads((trainer.folder.path / "log.json").read_text())["toy"]
    assert curves["ls_vtm"] == [entry["train"]["vtm"] for entry in results["epochs"]]
    checkpoints = {f"ckpt_violet_pretrain_toy_{part}_{epoch}.pt" for epoch in (1, 2) for part in (0, 1)}
    expected = {"ckpt_violet_pretrain_init_0_0.pt", "results.json", "log.json", "predictions/val.jsonl", "stdout.txt"}
    assert {name for name in files(trainer) if not name.startswith("events")} == checkpoints | expected
    assert (trainer.step, trainer.total_steps) == (8, 8)
    assert "epoch 2/2, toy 1, step 2/2: loss" in log.text
    assert "epoch 2/2, toy 1: 3 samples (3 by process)" in log.text
    assert f"saved {trainer.folder.path}/ckpt_violet_pretrain_toy_1_2.pt" in log.text


def test_checkpoints_hold_the_weights_of_their_time(make):
    trainer = make()
    before = {name: tensor.clone() for name, tensor in trainer.engine.weights().items()}
    trainer.run()
    first = torch.load(trainer.folder.path / "ckpt_violet_pretrain_init_0_0.pt", weights_only=True)
    last = torch.load(trainer.folder.path / "ckpt_violet_pretrain_toy_1_1.pt", weights_only=True)
    assert all(torch.equal(first[name], before[name]) for name in before)
    assert all(torch.equal(last[name], tensor) for name, tensor in trainer.engine.weights().items())
    assert not torch.equal(first["trsfr.layer.0.output.dense.weight"], last["trsfr.layer.0.output.dense.weight"])


def test_runs_repeat(make):
    def curve() -> list[float]:
        torch.manual_seed(1)
        return [entry["train"]["loss"] for entry in make(size_epoch=2).run()["epochs"]]

    assert curve() == curve()


def test_training_mode_is_on_again_after_each_evaluation(make, monkeypatch):
    modes = []
    loss = PretrainTask.loss

    def watch(task, model, batch):
        modes.append(model.training)
        return loss(task, model, batch)

    monkeypatch.setattr(PretrainTask, "loss", watch)
    make().run()
    assert modes == [True] * 4


@pytest.mark.parametrize(("accumulation", "epochs", "steps"), [(1, 1, 4), (2, 1, 2), (3, 1, 1), (3, 2, 2)])
def test_steps_and_their_rates(make, monkeypatch, accumulation: int, epochs: int, steps: int):
    trainer = make(gradient_accumulation=accumulation, size_epoch=epochs, lr=0.01)
    assert trainer.total_steps == steps
    rates = []
    step = trainer.engine.optimizer.step
    optimizer = trainer.engine.optimizer

    def watch(*arguments, **options):
        rates.append(optimizer.param_groups[1]["lr"])
        return step(*arguments, **options)

    monkeypatch.setattr(optimizer, "step", watch)
    trainer.run()
    assert trainer.step == steps
    assert rates == [learning_rate(0.01, number, steps) for number in range(steps)]


def test_more_accumulation_than_batches_is_no_silent_run(make):
    with pytest.raises(LavenderError, match="gradient_accumulation"):
        make(gradient_accumulation=5)


@pytest.mark.parametrize("path_ckpt", ["somewhere.pt", ""])  # the model has been loaded already
def test_evaluation_alone(make, log, path_ckpt: str):
    trainer = make(size_epoch=0, path_ckpt=path_ckpt, allow_random=not path_ckpt)
    before = {name: tensor.clone() for name, tensor in trainer.engine.weights().items()}
    results = trainer.run()
    assert set(results["zero_shot"]) == {"val"}
    assert {"acc_vtm", "loss_vtm", "loss"} <= set(results["zero_shot"]["val"])
    assert ("random weights are evaluated" in log.text) == (not path_ckpt)
    assert list(trainer.folder.path.glob("*.pt")) == [], "a copy of the weights"
    assert results["epochs"] == []
    assert "best" not in results
    assert json.loads((trainer.folder.path / "results.json").read_text()) == results
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.engine.weights().items())


def test_checkpoint_0_is_written_before_the_zero_shot_evaluation(make, monkeypatch):
    """The order of a run: a fault in the evaluation must not find an empty folder."""
    trainer = make(path_ckpt="somewhere.pt")
    there: list[list[str]] = []
    named: list[Path] = []
    evaluate = trainer.evaluate

    def watch(sets: dict, checkpoint: Path) -> dict:
        there.append(files(trainer))
        named.append(checkpoint)
        return evaluate(sets, checkpoint)

    monkeypatch.setattr(trainer, "evaluate", watch)
    results = trainer.run()
    assert json.loads((trainer.folder.path / "results.json").read_text())["zero_shot"] == results["zero_shot"]
    assert "ckpt_violet_pretrain_init_0_0.pt" in there[0]
    trained = [trainer.folder.path / f"ckpt_violet_pretrain_toy_{part}_1.pt" for part in range(len(trainer.parts))]
    assert named == [Path("somewhere.pt"), *trained]


def test_bad_samples_are_counted(make, monkeypatch, log):
    trainer = make(on_bad_sample="zero", size_frame=60)  # more frames than any video has
    video = trainer.engine.model.enc_img
    video.emb_len = torch.nn.Parameter(torch.zeros(1, 60, 1, 64))
    torch.nn.init.normal_(video.swin.patch_embed.proj.bias)  # as in trained weights
    results = trainer.run()
    assert [entry["train"]["bad_samples"] for entry in results["epochs"]] == [3, 3]
    assert "60 frames are asked for" in log.text


# --- a loss that is not finite ----------------------------------------------------------------------------------------


def exploding(at: int, value: float = math.nan) -> Any:
    """A task whose loss is `value` from batch `at` (from 1) on."""

    class Exploding(PretrainTask):
        batches = 0
        seen: dict[int, dict] = {}  # noqa: RUF012

        def loss(self, model: Lavender, batch: dict[str, Any]) -> dict[str, Tensor]:
            Exploding.batches += 1
            Exploding.seen[Exploding.batches] = batch
            losses = super().loss(model, batch)
            if Exploding.batches >= at:
                losses["vtm"] = losses["vtm"] * value
                losses["loss"] = losses["mtm"] + losses["vtm"]
            return losses

    return Exploding


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_not_finite_stops_the_run(make, value: float, accumulation: int):
    task = exploding(3, value)
    trainer = make(task, gradient_accumulation=accumulation)
    saved = trainer.folder.path / "ckpt_violet_pretrain_toy_0_1.pt"
    with pytest.raises(TrainingError) as raised:
        trainer.run()
    message = str(raised.value)
    step, total = (3, 4) if accumulation == 1 else (2, 2)
    assert message.startswith(f"the loss is not finite at step {step} of {total} (loss {value:.4g}, mtm ")
    assert "\n" not in message
    assert f"in the batch of {', '.join(task.seen[3]['video'])};" in message
    assert f"the last good checkpoint is {saved}" in message
    assert "--max_grad_norm" in message
    last_good = torch.load(saved, weights_only=True)
    now = trainer.engine.weights()
    assert all(torch.equal(now[name], last_good[name]) for name in now), "stopped before the weights changed"
    assert all(torch.isfinite(tensor).all() for tensor in now.values())
    assert not (trainer.folder.path / "ckpt_violet_pretrain_toy_1_1.pt").exists()
    assert len(json.loads((trainer.folder.path / "results.json").read_text())["epochs"]) == 1


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(make):
    """Else the next batch is blamed, or a checkpoint of NaN is called the last good one."""

    class Steep(PretrainTask):
        def loss(self, model: Lavender, batch: dict[str, Any]) -> dict[str, Tensor]:
            losses = super().loss(model, batch)
            loss = losses["loss"]
            return {**losses, "loss": loss + (loss - loss.detach()) * 1e38 * 1e38}  # a finite loss, an endless slope

    trainer = make(Steep)
    before = {name: tensor.clone() for name, tensor in trainer.engine.weights().items()}
    batch = next(iter(_loader(trainer)))
    with pytest.raises(TrainingError, match="not finite"):
        trainer.train_batch(batch)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.engine.weights().items())


def test_before_anything_was_saved(make):
    trainer = make(exploding(1))
    with pytest.raises(TrainingError, match=r"at step 1 of 4 .*; nothing was saved yet"):
        trainer.train_batch(next(iter(_loader(trainer))))


def _loader(trainer: Trainer) -> Loader:
    return training_loader(trainer.parts[0].open())


# --- the best epoch ---------------------------------------------------------------------------------------------------


def chosen(trainer: Trainer, *entries: dict[str, Any]) -> dict[str, Any] | None:
    trainer.results = {"epochs": [{"epoch": n, "train": {"loss": 1.0}, **e} for n, e in enumerate(entries, start=1)]}
    trainer.choose_best()
    return trainer.results.get("best")


def losses(**splits: float) -> dict[str, dict[str, float]]:
    return {split: {"loss": value} for split, value in splits.items()}


def test_best_is_best_on_validation(make, log):
    trainer = make()
    best = chosen(trainer, losses(val=3.0, test=0.2), losses(val=1.0, test=0.9), losses(val=2.0, test=0.1))
    assert best == {"epoch": 2, **losses(val=1.0, test=0.9)}
    assert "best on test, chosen on test itself (do not report): {'loss': 0.1}" in log.text
    trainer.task.best_metric = ("loss", max)
    best = chosen(trainer, losses(val=3.0), losses(val=1.0))
    assert best is not None
    assert best["epoch"] == 1


def test_without_validation_it_is_the_last_epoch(make, log):
    best = chosen(make(), losses(test=0.1), losses(test=0.9))
    assert best is not None
    assert best["epoch"] == 2
    assert best["chosen"] == "the last epoch: there is no validation"
    assert "best on validation" not in log.text


def test_without_epochs_there_is_none(make):
    assert chosen(make()) is None


@pytest.mark.parametrize("better", [min, max])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_validation_loss_that_is_no_number_is_never_the_best(make, better: Callable, place: int):
    trainer = make()
    trainer.task.best_metric = ("loss", better)
    values = [2.0, 2.0]
    values.insert(place, math.nan)
    best = chosen(trainer, *(losses(val=value) for value in values))
    assert best is not None
    assert best["val"]["loss"] == 2.0


def test_predictions_are_those_of_the_best_epoch(make, monkeypatch):
    """Of each evaluation the first record tells which one it was; the second of four is best."""
    trainer = make(size_epoch=4, size_part=1)
    losses = iter([3.0, 1.0, 2.0, 2.5])

    def scored(records: list, split: str) -> dict[str, float]:
        loss = next(losses)
        records[0]["video"] = loss
        return {"loss": loss}

    monkeypatch.setattr(trainer.task, "metrics", scored)
    results = trainer.run()
    first = (trainer.folder.path / "predictions" / "val.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["video"] == results["best"]["val"]["loss"] == 1.0
    assert [name for name in files(trainer) if name.startswith("predictions")] == ["predictions/val.jsonl"]
