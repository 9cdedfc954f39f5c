import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine.evaluator import evaluate, in_words, report_faults
from lavender.engine.output import RunFolder
from lavender.engine.parallel import TorchEngine
from lavender.runtime import distributed
from lavender.tasks.pretrain import PretrainTask

CPU = torch.device("cpu")


@pytest.fixture
def evaluated(config: Config, make_model, tmp_path: Path) -> Callable[[], tuple[Any, list]]:
    """Evaluates the toy validation split (4 videos, batches of 3); returns metrics and the written records."""
    task = PretrainTask(config)
    model = make_model(task.heads).train()
    engine = TorchEngine(model, torch.optim.SGD(model.parameters()), config, CPU)

    def run() -> tuple[Any, list]:
        folder = RunFolder(str(tmp_path), "x")
        metrics = evaluate(task, engine, "val", task.evaluation_sets()["val"], CPU, folder, tmp_path / "x.pt")
        path = folder.path / "predictions" / "val.latest.jsonl"
        return metrics, [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return run


def test_every_sample_once_in_order(evaluated, log):
    metrics, records = evaluated()
    assert [record["video"] for record in records] == ["vid0", "vid1", "vid2", "vid3"]
    assert metrics == pytest.approx(PretrainTask.metrics(SimpleNamespace(), records, "val"))  # type: ignore[arg-type]
    assert {"acc_vtm", "loss_vtm", "loss"} <= set(metrics)
    assert "val: 4 samples (4 by process): " in log.text


def test_the_task_is_told_which_split_it_scores(evaluated, monkeypatch):
    """Some figures are those of one split alone, such as the accuracy over the true size of a test split."""
    told = []

    def watch(task, records, split):
        told.append((split, len(records)))
        return {"loss": 1.5}

    monkeypatch.setattr(PretrainTask, "metrics", watch)
    metrics, _ = evaluated()
    assert (metrics, told) == ({"loss": 1.5}, [("val", 4)])


def test_it_repeats_itself_in_evaluation_mode_without_gradients(evaluated, config: Config, monkeypatch):
    seen = []
    predict = PretrainTask.predict

    def watch(task, model, batch):
        seen.append((model.training, torch.is_inference_mode_enabled()))
        return predict(task, model, batch)

    monkeypatch.setattr(PretrainTask, "predict", watch)
    first, second = evaluated(), evaluated()
    assert first == second
    assert set(seen) == {(False, True)}


def test_two_processes_find_what_one_finds(evaluated, monkeypatch: pytest.MonkeyPatch):
    alone, expected = evaluated()
    shares: dict[int, list] = {}
    for rank in (1, 0):
        gathered: list[list] = []

        def gather(value: list, rank: int = rank, gathered: list = gathered) -> list[list]:
            gathered.append(value)
            if len(gathered) == 1:  # records; the second call is about faults
                shares[rank] = value
                return [shares.get(number, []) for number in range(2)]
            return [value, []]

        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        monkeypatch.setattr(distributed, "gather_objects", gather)
        metrics, records = evaluated()
    assert [len(shares[rank]) for rank in (0, 1)] == [3, 1]
    assert metrics == alone
    assert records == expected


def test_bad_samples_are_counted_and_ten_are_named(log):
    shares = [[f"a.tsv, line {number}: cut" for number in range(8)], [f"b.tsv, line {n}: cut" for n in range(7)]]
    assert report_faults(shares, "val") == 15
    assert "val: 15 bad samples, replaced by zeros (on_bad_sample: zero)" in log.text
    assert sum("line" in record.getMessage() for record in log.records) == 10
    log.clear()
    assert report_faults([[], []], "val") == 0
    assert log.text == ""


def test_in_words():
    assert in_words({"acc": 0.5, "loss": 1.23456}) == "acc 0.5000, loss 1.2346"


def test_a_score_that_is_not_finite_is_not_hidden_by_an_accuracy(evaluated, monkeypatch):
    predict = PretrainTask.predict

    def spoilt(task, model, batch):
        records = predict(task, model, batch)
        for record in records:
            if record["index"] == 2:
                record["matching"]["scores"][1] = float("nan")
        return records

    monkeypatch.setattr(PretrainTask, "predict", spoilt)
    metrics, records = evaluated()
    assert list(metrics) == ["a score of item 2"]
    assert math.isnan(metrics["a score of item 2"])
    assert records == []
