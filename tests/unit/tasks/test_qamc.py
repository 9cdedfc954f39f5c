from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.models.lavender import Heads
from lavender.runtime.errors import WeightsError
from lavender.tasks.downstream import ChoiceTask
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask


@pytest.fixture
def make(config: Config, kit: Path) -> Callable[..., ChoiceTask]:
    def build(kind: type[ChoiceTask], **changes: Any) -> ChoiceTask:
        options = {"type": "qamc", "dataset": "toy", "task": "toy-action", "size_txt": 40, **changes}
        return kind(replace(config, **{"data_dir": str(kit / "data"), **options}))

    return build


def batch_of(task: ChoiceTask, *numbers: int) -> dict[str, Any]:
    dataset = task.datasets["test"]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
    assert isinstance(batch, dict), batch
    return batch


@pytest.mark.parametrize("mask_pos", ["append", "prepend", "insert", "replace"])
def test_the_answer_is_read_at_the_mask(make, make_model, mask_pos: str):
    task = make(QAMCTask, mask_pos=mask_pos)
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    with torch.inference_mode():
        states, logits, losses = task.states(model, batch), task.logits(model, batch), task.loss(model, batch)
    place = (batch["ids"] == task.tokenizer.mask_id).nonzero()[:, 1]
    assert place.tolist() == batch["position"].tolist()
    assert torch.allclose(logits, model.fc_mtm(states[range(2), place]), atol=1e-5)
    answers = [task.tokenizer.word_id(str(int(number))) for number in batch["answer"]]
    expected = -logits.log_softmax(1)[[0, 1], answers].mean()
    assert float(losses["loss"]) == pytest.approx(float(expected), rel=1e-5), "among all words, not among the options"


def test_options_are_the_digits(make, make_model):
    task = make(QAMCTask)
    assert [task.tokenizer.word(number) for number in task.option_ids] == list("01234")
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2)
    with torch.inference_mode():
        scores, probabilities = task.option_scores(model, batch)
        digits = task.logits(model, batch)[:, task.option_ids]
    assert torch.equal(probabilities, digits.softmax(1))
    assert torch.equal(scores, probabilities)


def test_the_released_scores_divide_by_the_sum(make, make_model, monkeypatch):
    task = make(QAMCTask, score_fn="upstream")
    logits = torch.zeros(2, task.tokenizer.size)
    logits[0, task.option_ids] = torch.tensor([-5.0, -1.0, -2.0, -3.0, -1.0])
    logits[1, task.option_ids] = torch.tensor([1.0, 0.0, 5.0, 1.0, 1.0])
    monkeypatch.setattr(task, "logits", lambda model, batch: logits)
    wrong, right = task.predict(None, batch_of(task, 1, 2))
    assert (wrong["prediction"], right["prediction"]) == (0, 2), "with a negative sum the worst one wins"
    assert wrong["top"][0]["probability"] == float(logits[0, task.option_ids].softmax(0)[0])
    assert (wrong["right"], right["right"]) == (False, True)
    task.config.score_fn = "probability"
    first, _ = task.predict(None, batch_of(task, 1, 2))
    assert first["prediction"] == 1


@pytest.mark.parametrize("kind", [QAMCTask, QAMCTaskSpecificTask])
def test_a_record_in_full(make, monkeypatch, kind):
    task = make(kind)
    options = torch.tensor([[0.0, 4.0, 1.0, 3.0, 2.0]])
    logits = options
    if kind is QAMCTask:
        logits = torch.full((1, task.tokenizer.size), 9.0)  # other words are no options, however likely
        logits[0, task.option_ids] = options[0]
    monkeypatch.setattr(task, "logits", lambda model, batch: logits)
    (record,) = task.predict(None, batch_of(task, 1))
    probs = options.softmax(1)[0].tolist()
    assert record == {
        "index": 1,
        "video": "vid1",
        "question": "what shape moves ?",
        "options": ["circle", "square", "triangle", "star", "dog"],
        "answer": 1,
        "prediction": 1,
        "top": [{"option": number, "probability": probs[number]} for number in (1, 3, 4, 2, 0)],
        "right": True,
    }


@pytest.mark.parametrize(("size", "words"), [(2, "[0, 1]"), (7, "[0, 1, 2, 3, 4, 5, 6]")])
def test_another_number_of_options(make, size: int, words: str):
    task = make(QAMCTask, size_option=size)
    assert task.prompt() == f"which answer is correct, from {words}?"
    assert [task.tokenizer.word(number) for number in task.option_ids] == [str(number) for number in range(size)]
    assert make(QAMCTaskSpecificTask, size_option=size).heads == Heads(
        mlm=False, task_tokens=False, classifiers={"fc": size}
    )


def test_a_number_that_is_no_word_shows_at_once(make):
    """BERT's vocabulary has the numbers; this one has digits alone."""
    with pytest.raises(WeightsError, match=r'vocab\.txt: the vocabulary has no "10"'):
        make(QAMCTask, size_option=11)
    make(QAMCTaskSpecificTask, size_option=11)


def test_the_task_specific_answer_is_a_class(make, make_model):
    task = make(QAMCTaskSpecificTask, score_fn="upstream")
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    with torch.inference_mode():
        video = model.encode_video(batch["img"], batch["present"])
        states = task.text_states(model, video, batch["ids"], batch["mask"])
        logits, losses = task.logits(model, batch), task.loss(model, batch)
        scores, probabilities = task.option_scores(model, batch)
        assert torch.equal(logits, model.fc(states[:, 0]))
    assert torch.equal(scores, logits), "one class an option: the released ratio is not for them"
    assert torch.equal(probabilities, logits.softmax(1))
    assert float(losses["loss"]) == pytest.approx(float(-logits.log_softmax(1)[[0, 1], [0, 1]].mean()), rel=1e-5)
