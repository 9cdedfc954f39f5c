from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.errors import DataError
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask

BOTH = pytest.mark.parametrize("kind", [RetMCTask, RetMCTaskSpecificTask])


@pytest.fixture
def make(config: Config, kit: Path) -> Callable[..., RetMCTask]:
    def build(kind: type[RetMCTask], **changes: Any) -> RetMCTask:
        options = {"type": "qamc", "dataset": "toy", "task": "toy-mc", "size_txt": 12, **changes}
        return kind(replace(config, **{"data_dir": str(kit / "data"), **options}))

    return build


def batch_of(task: RetMCTask, *numbers: int) -> dict[str, Any]:
    dataset = task.datasets["test"]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
    assert isinstance(batch, dict), batch
    return batch


@BOTH
def test_each_text_meets_its_own_video(make, make_model, kind):
    task = make(kind)
    model, batch = make_model(task.heads), batch_of(task, 0, 3)
    with torch.inference_mode():
        together = task.states(model, batch)
        assert together.shape == (2 * 5, batch["ids"].shape[2], 64)
        for number in range(2):
            alone = model.encode_video(batch["img"][number : number + 1], batch["present"][number : number + 1])
            for option in range(5):
                ids, mask = (batch[name][number, option][None] for name in ("ids", "mask"))
                states = task.text_states(model, alone, ids, mask)
                shown = mask[0].bool()
                assert torch.allclose(together[number * 5 + option][shown], states[0][shown], atol=1e-4)


@BOTH
def test_a_video_is_encoded_once_for_all_its_options(make, make_model, monkeypatch, kind):
    task = make(kind)
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    shapes = []
    encode = Lavender.encode_video

    def watch(model, img, *arguments):
        shapes.append(img.shape[0])
        return encode(model, img, *arguments)

    monkeypatch.setattr(Lavender, "encode_video", watch)
    with torch.inference_mode():
        task.loss(model, batch)
    assert shapes == [2]


def test_the_answer_is_true_or_false_at_the_last_token(make, make_model):
    task = make(RetMCTask)
    model, batch = make_model(task.heads), batch_of(task, 0, 1)
    with torch.inference_mode():
        words = model.fc_mtm(task.states(model, batch)[:, -1]).view(2, 5, -1)
        true, false = task.match_logits(model, batch)
        losses = task.loss(model, batch)
        scores, probabilities = task.option_scores(model, batch)
    assert (batch["ids"][..., -1] == task.tokenizer.mask_id).all()
    assert torch.equal(true, words[..., task.tokenizer.true_id])
    assert torch.equal(false, words[..., task.tokenizer.false_id])
    right = torch.nn.functional.one_hot(batch["answer"], 5).bool()
    said = torch.where(right, task.tokenizer.true_id, task.tokenizer.false_id)
    expected = -words.log_softmax(-1).gather(-1, said[..., None]).mean()
    assert float(losses["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert torch.allclose(probabilities, torch.stack([true, false]).softmax(0)[0])
    assert torch.equal(scores, true - false)  # ranks as the probabilities do, and never rounds to 1


def test_the_released_score_is_the_ratio_of_the_logits(make, monkeypatch):
    task = make(RetMCTask, score_fn="upstream")
    true = torch.tensor([[1.0, -1.0, 2.0, 0.0, 1.0]])
    false = torch.tensor([[1.0, -3.0, 0.0, 1.0, 4.0]])
    monkeypatch.setattr(task, "match_logits", lambda model, batch: (true, false))
    scores, probabilities = task.option_scores(None, {})
    assert torch.allclose(scores, torch.tensor([[0.5, 0.25, 1.0, 0.0, 0.2]]))
    assert torch.allclose(probabilities, torch.sigmoid(true - false))
    (record,) = task.predict(None, batch_of(task, 2))
    probs = probabilities[0].tolist()
    assert record == {
        "index": 2,
        "video": "vid2",
        "question": "",
        "options": [
            "a yellow circle moves right",
            "a red square moves right",
            "a blue triangle moves left",
            "a blue circle moves left",
            "a red circle moves left",
        ],
        "answer": 2,
        "prediction": 2,
        "top": [{"option": number, "probability": probs[number]} for number in (2, 0, 1, 4, 3)],
        "right": True,
    }


def test_the_task_specific_scores_compete(make, make_model):
    task = make(RetMCTaskSpecificTask, temp=0.05, score_fn="upstream")
    assert task.heads == Heads(mlm=False, task_tokens=False, classifiers={"fc": 1})
    model, batch = make_model(task.heads), batch_of(task, 0, 1, 2)
    with torch.inference_mode():
        logits, losses = task.logits(model, batch), task.loss(model, batch)
        states = task.states(model, batch).view(3, 5, -1, 64)
        scores, probabilities = task.option_scores(model, batch)
        assert torch.allclose(logits[1, 2], model.fc(states[1, 2, 0])[0], atol=1e-5)
    expected = -logits.log_softmax(1)[range(3), batch["answer"]].mean()
    assert float(losses["loss"]) == pytest.approx(float(expected), rel=1e-5), "not divided by temp"
    assert torch.equal(scores, logits)
    assert torch.equal(probabilities, logits.softmax(1))


@pytest.mark.parametrize("size", [4, 6])
def test_the_number_of_options_comes_from_the_configuration(make, size: int):
    with pytest.raises(DataError, match="option"):
        make(RetMCTask, size_option=size).evaluation_sets()
