from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.models.lavender import Heads
from lavender.runtime.errors import ConfigError
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask, QAOETaskSpecificTask

TASKS = {QAOETask: "toy-qa", FillInTheBlankTask: "toy-fib", QAOETaskSpecificTask: "toy-qa"}
EVERY = pytest.mark.parametrize("kind", TASKS)


@pytest.fixture
def make(config: Config, kit: Path) -> Callable[..., QAOETask]:
    """A task over the kit's texts: item 6 of `toy-qa` has no video, item 7 no answer of one word."""

    def build(kind: type[QAOETask], **changes: Any) -> QAOETask:
        options = {"dataset": "toy", "task": TASKS[kind], "size_txt": 25, "size_vocab": 4, "on_bad_sample": "zero"}
        return kind(replace(config, **{"type": "qaoe", "data_dir": str(kit / "data"), **options, **changes}))

    return build


def batch_of(task: QAOETask, *numbers: int) -> dict[str, Any]:
    dataset = task.datasets["test"]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
    assert isinstance(batch, dict), batch
    return batch


def answered(task: QAOETask, batch: dict[str, Any], logits: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """The records where the model has said these logits."""
    monkeypatch.setattr(task, "logits", lambda model, batch: logits)
    return task.predict(None, batch)  # type: ignore[arg-type]


# --- the answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [QAOETask, FillInTheBlankTask])
def test_the_answer_is_read_at_the_mask(make, make_model, kind):
    task = make(kind)
    model, batch = make_model(task.heads), batch_of(task, 0, 2)
    with torch.inference_mode():
        states, logits = task.states(model, batch), task.logits(model, batch)
    assert states.shape == (*batch["ids"].shape, 64)
    assert batch["ids"][range(2), batch["position"]].tolist() == [task.tokenizer.mask_id] * 2
    expected = model.fc_mtm(torch.stack([states[n, position] for n, position in enumerate(batch["position"])]))
    assert torch.allclose(logits, expected, atol=1e-5)
    assert logits.shape == (2, 350)


def test_the_task_specific_answer_is_read_at_cls(make, make_model):
    task = make(QAOETaskSpecificTask, size_vocab=7)
    assert task.heads == Heads(mlm=False, task_tokens=False, classifiers={"fc": 7})
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    with torch.inference_mode():
        logits, losses = task.logits(model, batch), task.loss(model, batch)
        assert torch.equal(logits, model.fc(task.states(model, batch)[:, 0]))
    assert logits.shape == (2, 7)
    assert float(losses["loss"]) == pytest.approx(float(-logits.log_softmax(1)[[0, 1], [0, 1]].mean()), rel=1e-5)


def test_the_loss_is_that_of_the_answer_among_all_words(make, make_model):
    task = make(QAOETask)
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 6, 7)
    with torch.inference_mode():
        logits, losses = task.logits(model, batch), task.loss(model, batch)
    answers = [task.tokenizer.word_id(word) for word in ("red", "green")]
    assert float(losses["loss"]) == pytest.approx(float(-logits.log_softmax(1)[[0, 1], answers].mean()), rel=1e-5)


@pytest.mark.parametrize("size", [0, -1])
def test_the_task_specific_way_needs_a_vocabulary(make, size: int):
    with pytest.raises(ConfigError, match=rf"^size_vocab is {size}: give the number of answers"):
        make(QAOETaskSpecificTask, size_vocab=size)
    make(QAOETask, size_vocab=size)


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_record_in_full(make, monkeypatch):
    task = make(QAOETask)
    words = ["green", "dog", "red", "cat", "0", "blue"]  # from the likeliest
    logits = torch.full((1, task.tokenizer.size), -9.0)
    for place, word in enumerate(words):
        logits[0, task.tokenizer.word_id(word)] = 5.0 - place
    probs = logits.softmax(1)[0]
    (record,) = answered(task, batch_of(task, 0), logits, monkeypatch)
    assert record == {
        "index": 0,
        "video": "vid0",
        "question": "what color is the circle ?",
        "answer": "red",
        "prediction": "green",
        "top": [{"answer": word, "probability": float(probs[task.tokenizer.word_id(word)])} for word in words[:5]],
        "right": False,
        "right_in_5": True,
    }


@pytest.mark.parametrize(("place", "right", "in_five"), [(0, True, True), (4, False, True), (5, False, False)])
def test_right_at_once_and_among_five(make, monkeypatch, place: int, right: bool, in_five: bool):
    task = make(QAOETask)
    order = [task.tokenizer.word_id(word) for word in ("dog", "cat", "0", "1", "2")]
    order.insert(place, task.tokenizer.word_id("red"))
    logits = torch.zeros(1, task.tokenizer.size)
    logits[0, order] = torch.arange(9.0, 3.0, -1)
    (record,) = answered(task, batch_of(task, 0), logits, monkeypatch)
    assert (record["right"], record["right_in_5"]) == (right, in_five)


def test_a_question_without_label_is_wrong_whatever_is_said(make, monkeypatch):
    """Of a missing video the record keeps the answer in words; an unanswerable word is no token that could be said."""
    task = make(QAOETask)
    logits = torch.zeros(2, task.tokenizer.size)
    logits[0, task.tokenizer.word_id("red")] = logits[1, task.tokenizer.unknown_id] = 9.0
    records = answered(task, batch_of(task, 6, 7), logits, monkeypatch)
    assert [(record["video"], record["answer"]) for record in records] == [("missing", "red"), ("vid0", "zebracorn")]
    assert [record["prediction"] for record in records] == ["red", "[UNK]"]
    assert not any(record["right"] or record["right_in_5"] for record in records)


def test_a_blank_of_a_missing_video_counts(make, monkeypatch):
    task = make(FillInTheBlankTask)
    batch = batch_of(task, 0)
    batch["present"][0] = False
    logits = torch.zeros(1, task.tokenizer.size)
    logits[0, task.tokenizer.word_id("red")] = 9.0
    (record,) = answered(task, batch, logits, monkeypatch)
    assert record["right"] is True


def test_a_blank_that_is_cut_away_has_no_answer(make, monkeypatch):
    task = make(FillInTheBlankTask, size_txt=3, size_epoch=0)  # [CLS] a [SEP]
    batch = batch_of(task, 0, 1)
    assert batch["position"].tolist() == [-1, -1]
    assert (batch["labels"] == -1).all()
    logits = torch.zeros(2, task.tokenizer.size)
    logits[:, task.tokenizer.word_id("red")] = 9.0
    record, _ = answered(task, batch, logits, monkeypatch)
    assert (record["prediction"], record["top"], record["answer"]) == ("", [], "red")
    assert (record["right"], record["right_in_5"]) == (False, False)


def test_a_closed_vocabulary_of_fewer_than_five(make, monkeypatch):
    task = make(QAOETaskSpecificTask)
    logits = torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    (record,) = answered(task, batch_of(task, 0), logits, monkeypatch)
    assert [entry["answer"] for entry in record["top"]] == ["green", "yellow", "blue", "red"]
    assert sum(entry["probability"] for entry in record["top"]) == pytest.approx(1)
    assert (record["prediction"], record["right"], record["right_in_5"]) == ("green", False, True)


def test_classes_without_a_word_are_called_by_their_number(make, monkeypatch):
    task = make(QAOETaskSpecificTask, size_vocab=9)
    (record,) = answered(task, batch_of(task, 1), torch.arange(9.0)[None], monkeypatch)
    assert [entry["answer"] for entry in record["top"]] == ["8", "7", "6", "5", "4"]
    assert record["answer"] == "green"


@EVERY
def test_low_precision_gives_probabilities_of_full_precision(make, monkeypatch, kind):
    task = make(kind)
    classes = 4 if kind is QAOETaskSpecificTask else task.tokenizer.size
    logits = torch.linspace(0, 1, classes)[None].bfloat16()
    (record,) = answered(task, batch_of(task, 0), logits, monkeypatch)
    assert record["top"][0]["probability"] == float(logits.float().softmax(1).max())


# --- figures ----------------------------------------------------------------------------------------------------------

RECORDS = [
    {"right": right, "right_in_5": in_five}
    for right, in_five in [(True, True), (False, True), (False, False), (False, True)]
]


@EVERY
@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("size_test", [0, 4])
def test_accuracy_is_over_all_questions(make, kind, split: str, size_test: int):
    assert make(kind, size_test=size_test).metrics(RECORDS, split) == {"acc_1": 0.25, "acc_5": 0.75}


def test_the_adjusted_accuracy_is_over_the_true_size_of_the_test_split(make):
    task, records = make(QAOETask, size_test=40), RECORDS * 11
    plain = {"acc_1": 0.25, "acc_5": 0.75}
    assert task.metrics(records, "test") == {**plain, "acc_1_adjusted": 11 / 40, "acc_5_adjusted": 33 / 40}
    assert task.metrics(records, "val") == plain


def test_curves_under_the_released_keys(make):
    def figures(one: float, five: float, **more: float) -> dict[str, float]:
        return {"acc_1": one, "acc_5": five, **more}

    epochs = [
        {"train": {"loss": 3.0}, "val": figures(0.1, 0.2), "test": figures(0.3, 0.4)},
        {
            "train": {"loss": 2.0},
            "val": figures(0.5, 0.6),
            "test": figures(0.7, 0.8, acc_1_adjusted=0.35, acc_5_adjusted=0.4),
        },
    ]
    assert make(QAOETask).curves(epochs) == {
        "ls_tr": [3.0, 2.0],
        "ac_1_vl": [0.1, 0.5],
        "ac_5_vl": [0.2, 0.6],
        "ac_1_ts": [0.3, 0.35],
        "ac_5_ts": [0.4, 0.4],
    }
    assert make(QAOETask).curves([{"train": {"loss": 1.0}}])["ac_1_vl"] == []
    baseline = make(QAOETaskSpecificTask).curves(epochs)
    assert baseline == {"ls_tr": [3.0, 2.0], "ac_vl": [0.1, 0.5], "ac_ts": [0.3, 0.35]}


def test_the_best_epoch_has_the_highest_top_1(make):
    name, better = make(QAOETask).best_metric
    assert name in make(QAOETask).metrics(RECORDS, "val")
    assert better([0.1, 0.3, 0.2]) == 0.3


@pytest.mark.parametrize(
    ("size_test", "adjusted"), [(72821, False), (199, True), (202, False), (67, True), (66, False)]
)
def test_size_test_of_another_data_set_gives_no_adjusted_accuracy(make, caplog, size_test: int, adjusted: bool):
    records = [{"right": True, "right_in_5": True}] * 100
    with caplog.at_level("WARNING", logger="lavender"):
        metrics = make(QAOETask, size_test=size_test).metrics(records, "test")
    assert ("acc_1_adjusted" in metrics) == adjusted
    warned = all(fact in caplog.text for fact in ("size_test", str(size_test), "100"))
    assert warned == (not adjusted)
