import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.engine.engines import TorchEngine
from lavender.engine.evaluator import evaluate, format_metrics, report_faults
from lavender.engine.output import RunFolder
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
        monkeypatch.setattr(distributed, "gather_on_main", gather)
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
    assert format_metrics({"acc": 0.5, "loss": 1.23456}) == "acc 0.5000, loss 1.2346"


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


# --- files beside the checkpoint --------------------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What the task was given to publish."""
    calls: list[tuple] = []

    def watch(task, split, checkpoint, weights, records, metrics):
        calls.append((split, checkpoint.name, weights(), [record["video"] for record in records], dict(metrics)))

    monkeypatch.setattr(PretrainTask, "publish", watch)
    return calls


def test_a_task_publishes_its_records_in_order_with_their_metrics(evaluated, published, monkeypatch):
    monkeypatch.setattr("lavender.engine.evaluator.weights_digest", lambda model: type(model).__name__)
    metrics, records = evaluated()
    assert published == [("val", "x.pt", "Lavender", [record["video"] for record in records], metrics)]


@pytest.mark.parametrize("main", [True, False])
def test_only_the_first_process_reads_and_publishes(evaluated, published, monkeypatch, main: bool):
    asked = []
    monkeypatch.setattr(PretrainTask, "earlier_records", lambda task, *arguments: asked.append(arguments))
    monkeypatch.setattr(distributed, "is_main", lambda: main)
    evaluated()
    assert (len(asked), len(published)) == ((1, 1) if main else (0, 0))


def test_earlier_records_stand_for_predictions(evaluated, published, monkeypatch, log):
    expected, records = evaluated()
    seen = []

    def earlier(task, split, checkpoint, weights):
        seen.append((split, checkpoint.name, weights() == weights()))
        return records[::-1]

    def predict(task, model, batch):
        raise AssertionError("nothing is predicted again")

    monkeypatch.setattr(PretrainTask, "earlier_records", earlier)
    monkeypatch.setattr(PretrainTask, "predict", predict)
    found, written = evaluated()
    assert (found, written) == (expected, records), "in the split's order again"
    assert seen == [("val", "x.pt", True)]
    assert [videos for *_, videos, _ in published] == [["vid0", "vid1", "vid2", "vid3"]] * 2
    assert "val: 4 samples (4 by process): " in log.text


def test_no_earlier_records_are_records_of_an_empty_split(evaluated, monkeypatch):
    """An empty list is an answer; None is none."""
    monkeypatch.setattr(PretrainTask, "earlier_records", lambda *_: [])
    monkeypatch.setattr(PretrainTask, "metrics", lambda task, records, split: {"n": len(records)})
    assert evaluated() == ({"n": 0}, [])


def test_the_weights_are_named_once_and_only_for_who_asks(evaluated, monkeypatch):
    calls = []
    monkeypatch.setattr("lavender.engine.evaluator.weights_digest", lambda model: calls.append(model))
    evaluated()
    assert calls == []
    monkeypatch.setattr(PretrainTask, "earlier_records", lambda task, split, checkpoint, weights: weights())
    monkeypatch.setattr(PretrainTask, "publish", lambda task, split, checkpoint, weights, *_: weights())
    evaluated()
    assert len(calls) == 1


def test_records_whose_score_is_not_finite_are_not_published(evaluated, published, monkeypatch):
    _, records = evaluated()
    records[1]["matching"]["scores"][0] = math.inf
    published.clear()
    monkeypatch.setattr(PretrainTask, "earlier_records", lambda *_: records)
    metrics, _ = evaluated()
    assert list(metrics) == ["a score of item 1"]
    assert published == []
