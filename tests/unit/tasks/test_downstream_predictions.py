"""What the downstream tasks predict, and their metrics."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.models.lavender import Lavender
from lavender.tasks.downstream import ChoiceTask, DownstreamTask
from lavender.tasks.qamc import QAMCTask
from lavender.tasks.qaoe import QAOETask
from tests.unit.tasks.downstream_world import EVERY, batch_of, maker, texts_of, unlabelled


@pytest.fixture
def texts(kit: Path) -> Callable[[type[DownstreamTask]], dict[str, list]]:
    return texts_of(kit)


@pytest.fixture
def make(config: Config, kit: Path, tmp_path: Path, texts: Callable) -> Callable[..., DownstreamTask]:
    return maker(config, kit, tmp_path, texts)


# --- predictions ------------------------------------------------------------------------------------------------------


@EVERY
def test_a_record_of_every_question(make, make_model, texts: Callable, kind):
    items = texts(kind)["test"]
    task = make(kind, {"test": [*items[:2], *unlabelled(items[2:3])]}, on_bad_sample="zero", score_fn="upstream")
    with torch.inference_mode():
        records = task.predict(make_model(task.heads), batch_of(task, 0, 1, 2))
    assert [record["index"] for record in records] == [0, 1, 2]
    assert [record["video"] for record in records] == ["vid0", "vid1", "not vid2"]
    assert [record["question"] for record in records] == [item["question"] for item in items[:3]]
    assert records[2]["right"] is False, "without its video or its word a question is wrong"
    json.dumps(records)  # they are written as they are
    metrics = task.metrics(records, "val")
    assert task.best_metric[0] in metrics
    assert metrics[task.best_metric[0]] == sum(record["right"] for record in records) / 3


@EVERY
def test_the_model_is_told_which_videos_are_missing(make, make_model, texts: Callable, monkeypatch, kind):
    """Their zeros are those of normalised frames: black frames are something to see."""
    items = texts(kind)["test"]
    task = make(kind, {"test": [items[0], *unlabelled(items[1:2])]}, on_bad_sample="zero")
    model, told = make_model(task.heads), []
    encode = Lavender.encode_video

    def watch(model: Lavender, img: Tensor, present: Tensor | None = None) -> Any:
        told.append(None if present is None else present.tolist())
        return encode(model, img, present)

    monkeypatch.setattr(Lavender, "encode_video", watch)
    with torch.inference_mode():
        task.loss(model, batch_of(task, 0, 1))
        task.predict(model, batch_of(task, 0, 1))
    assert told == [[True, False]] * 2


class Chosen(ChoiceTask):
    """Options with the scores and probabilities that a test gives."""

    heads = QAMCTask.heads
    dataset_class = QAMCTask.dataset_class
    scores: Tensor
    probabilities: Tensor

    def loss(self, model: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        raise NotImplementedError

    def option_scores(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return self.scores, self.probabilities


def choice(
    config: Config,
    scores: list[list[float]],
    probabilities: list[list[float]],
    answers: list[int],
    present: list[bool] | None = None,
) -> list:
    task = Chosen(replace(config, type="", dataset="toy", task="mine"))
    task.scores, task.probabilities = torch.tensor(scores), torch.tensor(probabilities)
    questions = len(scores)
    return task.predict(
        None,  # type: ignore[arg-type]
        {
            "index": torch.arange(10, 10 + questions),
            "answer": torch.tensor(answers),
            "present": torch.tensor(present or [True] * questions),
            "video": [f"vid{number}" for number in range(questions)],
            "question": ["what ?"] * questions,
            "options": [[f"option {number}" for number in range(len(scores[0]))]] * questions,
        },
    )


def test_a_record_in_full(config: Config):
    (record,) = choice(config, [[0.5, -2.0, 8.0]], [[0.25, 0.25, 0.5]], [2])
    assert record == {
        "index": 10,
        "video": "vid0",
        "question": "what ?",
        "options": ["option 0", "option 1", "option 2"],
        "answer": 2,
        "prediction": 2,
        "top": [
            {"option": 2, "probability": 0.5},
            {"option": 0, "probability": 0.25},
            {"option": 1, "probability": 0.25},
        ],
        "right": True,
    }


def test_the_best_score_wins_and_not_the_best_probability(config: Config):
    records = choice(config, [[0.0, 1.0], [1.0, 0.0]], [[0.75, 0.25], [0.75, 0.25]], [0, 0])
    assert [(record["prediction"], record["right"]) for record in records] == [(1, False), (0, True)]
    assert records[0]["top"] == [{"option": 1, "probability": 0.25}, {"option": 0, "probability": 0.75}]


def test_of_equal_scores_the_first_option_wins(config: Config):
    (record,) = choice(config, [[0.5, 0.5, 0.5]], [[0.5] * 3], [1])
    assert [entry["option"] for entry in record["top"]] == [0, 1, 2]
    assert record["right"] is False


def test_five_of_more_options_are_listed(config: Config):
    (record,) = choice(config, [[0.0, 1, 2, 3, 4, 5, 6]], [[0.125] * 7], [0])
    assert [entry["option"] for entry in record["top"]] == [6, 5, 4, 3, 2]
    assert len(record["options"]) == 7


def test_without_its_video_no_question_is_right(config: Config):
    records = choice(config, [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]] * 2, [0, 1], [False, True])
    assert [record["right"] for record in records] == [False, True]
    assert [record["answer"] for record in records] == [0, 1], "the true answer is kept"


def test_accuracy_is_over_all_questions(make):
    records = [{"right": right} for right in (True, False, True, False, False)]
    for split in ("val", "test"):
        assert make(QAMCTask, size_test=9).metrics(records, split) == {"acc": 0.4}


def test_curves_under_the_released_keys(make):
    epochs = [
        {"train": {"loss": 3.0}, "val": {"acc": 0.1}, "test": {"acc": 0.2}},
        {"train": {"loss": 2.0}, "val": {"acc": 0.3}, "test": {"acc": 0.4}},
    ]
    task = make(QAMCTask)
    assert task.curves(epochs) == {"ls_tr": [3.0, 2.0], "ac_vl": [0.1, 0.3], "ac_ts": [0.2, 0.4]}
    tested = task.curves([{"train": {"loss": 1.0}, "test": {"acc": 0.5}}])
    assert tested == {"ls_tr": [1.0], "ac_vl": [], "ac_ts": [0.5]}


@pytest.mark.parametrize(("right", "acc"), [([None, None], None), ([True, None, False], 0.5), ([True, False], 0.5)])
def test_items_without_an_answer_are_not_counted(right: list[bool | None], acc: float | None):
    records = [{"right": value, "right_in_5": value} for value in right]
    missing = {"no_answer": right.count(None)} if None in right else {}
    assert ChoiceTask.metrics(None, records, "test") == ({} if acc is None else {"acc": acc, **missing})
    task = SimpleNamespace(config=SimpleNamespace(size_test=10), _is_of_this_data=lambda _: True)
    found = QAOETask.metrics(task, records, "test")
    adjusted = {} if missing else {"acc_1_adjusted": 0.1, "acc_5_adjusted": 0.1}
    assert found == ({} if acc is None else {"acc_1": acc, "acc_5": acc, **missing, **adjusted})
    assert QAOETask.curves(task, [{"train": {"loss": 1.0}, "test": found}])["ac_1_ts"] == [
        None if acc is None else adjusted.get("acc_1_adjusted", acc)
    ]
