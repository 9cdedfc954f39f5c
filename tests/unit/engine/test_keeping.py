"""How often is evaluated, and which checkpoints stay."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine.best import evaluated_tasks
from lavender.engine.engines import build_engine
from lavender.engine.optim import build_optimizer
from lavender.engine.output import RunFolder
from lavender.engine.trainer import Trainer
from lavender.tasks.pretrain import PretrainTask

CPU = torch.device("cpu")
INIT, *AFTER = (
    f"ckpt_violet_pretrain_{place}.pt" for place in ("init_0_0", "toy_0_1", "toy_1_1", "toy_0_2", "toy_1_2")
)


@pytest.fixture
def run(config: Config, make_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """Two epochs of two toy parts; `scores` are the losses that its evaluations find, in place of those they would."""
    numbers = itertools.count()

    def train(scores: Sequence[float] = (), **options: Any) -> Trainer:
        changed = replace(config, size_img=32, size_batch=2, size_epoch=2, **options)
        task = PretrainTask(changed)
        model = make_model(task.heads)
        optimizer = build_optimizer(model, changed.lr, changed.vis_backbone_lr_mul, changed.decay)
        folder = RunFolder(str(tmp_path / str(next(numbers))), task.run_name())
        torch.manual_seed(88)
        trainer = Trainer(task, build_engine(model, optimizer, changed, CPU), changed, CPU, folder)
        if scores:
            told = iter(scores)
            monkeypatch.setattr(trainer, "evaluate", lambda sets, _: {split: {"loss": next(told)} for split in sets})
        trainer.run()
        folder.close()
        return trainer

    return train


def checkpoints(trainer: Trainer) -> list[str]:
    return [name for name in (INIT, *AFTER) if (trainer.folder.path / name).is_file()]


@pytest.mark.parametrize(
    ("keep", "scores", "kept"),
    [
        ("all", [4, 1, 3, 2], [INIT, *AFTER]),
        ("last", [4, 1, 3, 2], AFTER[-1:]),
        ("best", [4, 1, 3, 2], [AFTER[1]]),
        ("best", [1, 4, 3, 2], [AFTER[0]]),
        ("best", [4, 3, 2, 1], [AFTER[3]]),
    ],
)
def test_which_checkpoints_stay(run, keep: str, scores: list[float], kept: list[str]):
    trainer = run(scores, keep_checkpoints=keep)
    assert checkpoints(trainer) == kept
    assert Path(trainer.last_checkpoint).name in kept


def test_evaluated_less_often_and_trained_alike(run):
    often, seldom = run(), run(eval_every=3)
    assert ["val" in entry for entry in often.results["epochs"]] == [True] * 4
    assert ["val" in entry for entry in seldom.results["epochs"]] == [False, False, True, True], "and at the end"
    trained = [[entry["train"] for entry in trainer.results["epochs"]] for trainer in (often, seldom)]
    assert trained[0] == trained[1]
    assert often.results["epochs"][3] == seldom.results["epochs"][3]
    assert checkpoints(seldom) == [INIT, *AFTER]
    curves = seldom.task.curves(seldom.results["epochs"])["toy"]
    assert (len(curves["ls_mtm"]), len(curves["ac_mtm"])) == (4, 2)


def test_the_best_of_those_that_were_evaluated(run):
    trainer = run([1, 5], eval_every=3, keep_checkpoints="best")
    assert checkpoints(trainer) == [AFTER[2]]
    assert (trainer.results["best"]["epoch"], trainer.results["best"]["part"]) == (2, 0)


def test_nothing_evaluated_so_far():
    assert evaluated_tasks([{"epoch": 1, "dataset": "toy", "part": 0, "train": {"loss": 1}}]) == []
    several = [{"epoch": 1, "train": {}}, {"epoch": 2, "train": {}, "tasks": {"a": {"val": {}}, "b": {"test": {}}}}]
    assert evaluated_tasks(several) == ["a", "b"]
