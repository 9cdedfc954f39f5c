"""The head of the page says what a checkpoint can do."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lavender.app.about import describe, parts_of
from lavender.config.schema import Config
from tests.conftest import KIT


def predictor(config: Config, *heads: str) -> SimpleNamespace:
    """What the head is told by: the options of a training, and which heads the model has."""
    model = nn.Module()
    for name in heads:
        head = (
            nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Dropout(), nn.Linear(2, 3))
            if name != "fc_mtm"
            else nn.Linear(2, 3)
        )
        model.add_module(name, head)
    return SimpleNamespace(model=model, config=config, device=torch.device("cpu"))


@pytest.fixture
def config() -> Config:
    bert = str(KIT / "bert_micro")
    return dataclasses.replace(Config(), txt_backbone=bert, fusion_encoder=bert, type="qaoe", task="toy-qa")


def test_the_masked_language_modelling_head_does_everything(config: Config):
    parts = parts_of(predictor(config, "fc_mtm"))
    assert all(part.can for part in parts.values())
    assert [name for name, part in parts.items() if part.trained] == ["ask"]
    assert parts["ask"].note == ""
    assert "not trained" in parts["search"].note
    rows = dict(describe(predictor(config, "fc_mtm"), "a.pt", parts.values()))
    assert rows["Trained for"] == "answering questions (toy-qa)"
    assert "captions" in rows["Not trained for"]
    assert "Cannot do" not in rows


def test_a_task_specific_head_does_its_task(config: Config):
    parts = parts_of(predictor(config, "fc"))
    assert [name for name, part in parts.items() if part.can] == ["ask"]
    assert "no head" in parts["caption"].note
    rows = dict(describe(predictor(config, "fc"), "a.pt", parts.values()))
    assert "search" in rows["Cannot do"]
    assert "Not trained for" not in rows


def test_several_tasks(config: Config):
    tasks = [{"type": "captioning", "task": "toy-cap"}, {"type": "retrieval", "task": "toy-retrieval"}]
    config = dataclasses.replace(config, type="multi-task", task="toy-all", datasets=tasks)
    parts = parts_of(predictor(config, "fc_mtm"))
    assert [name for name, part in parts.items() if not part.trained] == ["ask"]
    rows = dict(describe(predictor(config, "fc_mtm"), "a.pt", parts.values()))
    assert rows["Trained for"] == "captions (toy-cap); finding videos for a text (toy-retrieval)"
