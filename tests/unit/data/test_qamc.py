import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.data.items import Item, ItemFile, open_frames
from lavender.data.loaders import evaluation_loader
from lavender.data.qamc import MultipleChoiceDataset, OptionNumberDataset
from lavender.data.samples import SampleKey
from lavender.runtime.errors import DataError
from lavender.text.tokens import TextTokenizer

BOTH = pytest.mark.parametrize("kind", [MultipleChoiceDataset, OptionNumberDataset])
OPTIONS = ["circle", "square", "star"]


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def make(config: Config, kit: Path, tokenizer: TextTokenizer, tmp_path: Path) -> Callable[..., MultipleChoiceDataset]:
    """A test split of questions with three options, over the kit's six videos."""

    def build(kind: type[MultipleChoiceDataset], *items: Item, **changes: Any) -> MultipleChoiceDataset:
        (tmp_path / "txt_mc.json").write_text(json.dumps({"test": items}))
        folders = {"data_dir": str(kit / "data"), "txt_dir": str(tmp_path)}
        options = {"type": "qamc", "dataset": "toy", "task": "mc", "size_option": 3, "size_txt": 30}
        changed = replace(config, **{**options, **folders, **changes})
        return kind(changed, tokenizer, open_frames(changed), ItemFile(changed), "test")

    return build


def item(**changes: Any) -> Item:
    """A question about video 0; None takes a key away."""
    options = {f"option_{number}": option for number, option in enumerate(OPTIONS)}
    whole = {"video": "vid0", "question": "what moves ?", **options, "answer": 1, **changes}
    return {key: value for key, value in whole.items() if value is not None}


def sample(dataset: MultipleChoiceDataset, index: int = 0) -> dict[str, Any]:
    found = dataset[SampleKey(0, index)]
    assert isinstance(found, dict), found
    return found


def words(tokenizer: TextTokenizer, ids: np.ndarray) -> str:
    """The tokens, with `_` for a pad."""
    return " ".join(tokenizer.word(int(token)) for token in ids).replace("[PAD]", "_")


# --- samples ----------------------------------------------------------------------------------------------------------

BEGINNING = "what moves ? [SEP] option 0 : circle [SEP]"  # 9 tokens
TEXT = f"{BEGINNING} option 1 : square [SEP] option 2 : star"


@pytest.mark.parametrize(
    ("mask_pos", "tokens", "position"),
    [
        ("append", f"[CLS] {TEXT} [MASK] [SEP]", 19),
        ("prepend", f"[MASK] [CLS] {TEXT} [SEP]", 0),
        ("replace", f"[MASK] {TEXT} [SEP]", 0),
        ("insert", f"[CLS] {TEXT} [SEP]".replace(BEGINNING, f"{BEGINNING} [MASK]"), 10),
    ],
)
def test_a_question_with_its_options(make, tokenizer: TextTokenizer, mask_pos: str, tokens: str, position: int):
    found = sample(make(MultipleChoiceDataset, item(), mask_pos=mask_pos))
    assert words(tokenizer, found["ids"]) == tokens + " _" * 12
    assert found["mask"].tolist() == [1] * len(tokens.split()) + [0] * 12
    labels = np.full(len(found["ids"]), -1)
    labels[position] = tokenizer.word_id("1")
    assert found["labels"].tolist() == labels.tolist()
    assert (found["position"], found["answer"]) == (position, 1)
    assert (found["video"], found["question"], found["options"]) == ("vid0", "what moves ?", OPTIONS)


@pytest.mark.parametrize("mask_pos", ["append", "prepend", "replace", "insert"])
def test_a_text_that_is_cut_keeps_its_mask(make, tokenizer: TextTokenizer, mask_pos: str):
    found = sample(make(MultipleChoiceDataset, item(), mask_pos=mask_pos, size_txt=8))
    tokens = [word for word in words(tokenizer, found["ids"]).split() if word not in ("[CLS]", "[MASK]")]
    assert " ".join(tokens) == "what moves ? [SEP] option 0 : [SEP] _"
    assert found["ids"][found["position"]] == tokenizer.mask_id
    assert np.flatnonzero(found["labels"] != -1).tolist() == [found["position"]]


def test_a_mask_in_the_question_is_labelled_too_but_not_read(make, tokenizer: TextTokenizer):
    found = sample(make(MultipleChoiceDataset, item(question="a [MASK] moves")))
    assert np.flatnonzero(found["labels"] != -1).tolist() == [2, 19]
    assert found["position"] == 19


def test_questions_and_options_may_be_empty(make, tokenizer: TextTokenizer):
    found = sample(make(MultipleChoiceDataset, item(question="", option_1="")))
    text = "[CLS] [SEP] option 0 : circle [SEP] option 1 : [SEP] option 2 : star [MASK] [SEP] _"
    assert words(tokenizer, found["ids"]).startswith(text)
    assert found["options"] == ["circle", "", "star"]


def test_the_task_specific_text_has_no_mask(make, tokenizer: TextTokenizer):
    found = sample(make(OptionNumberDataset, item(answer=2)))
    assert words(tokenizer, found["ids"]) == f"[CLS] {TEXT} [SEP]" + " _" * 10
    assert found["mask"].tolist() == [1] * 20 + [0] * 10
    assert found["answer"] == 2
    assert "labels" not in found
    assert "position" not in found


@pytest.mark.parametrize("answer", [0, 1, 2])
def test_the_label_is_the_digit(make, tokenizer: TextTokenizer, answer: int):
    found = sample(make(MultipleChoiceDataset, item(answer=answer)))
    assert found["labels"].max() == tokenizer.word_id(str(answer))


@BOTH
def test_a_batch(make, kind):
    items = [item(), item(video="vid1.mp4", question="what ?", option_0="a dog", answer=0), item(video="vid2")]
    (batch,) = evaluation_loader(make(kind, *items))
    assert batch["video"] == ["vid0", "vid1.mp4", "vid2"]
    assert batch["question"] == ["what moves ?", "what ?", "what moves ?"]
    assert batch["options"] == [OPTIONS, ["a dog", *OPTIONS[1:]], OPTIONS], "a list for each question"
    assert batch["answer"].tolist() == [1, 0, 1]
    assert batch["ids"].shape == batch["mask"].shape == (3, 33 if kind is MultipleChoiceDataset else 30)
    assert batch["faults"] == []


def test_another_number_of_options(make, tokenizer: TextTokenizer):
    found = sample(make(MultipleChoiceDataset, item(option_2=None, answer=1), size_option=2))
    assert found["options"] == OPTIONS[:2]
    many = {f"option_{number}": f"dog {number}" for number in range(10)}
    found = sample(make(MultipleChoiceDataset, item(**many, answer=9), size_option=10))
    assert len(found["options"]) == 10
    assert found["labels"].max() == tokenizer.word_id("9")


# --- bad items --------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"question": None}, '"question" is missing'),
        ({"question": 3}, '"question" is not text: 3'),
        ({"option_0": None}, '"option_0" is missing'),
        ({"option_2": None}, '"option_2" is missing; for 2 options: --size_option 2'),
        ({"option_1": 7}, '"option_1" is not text: 7'),
        ({"option_1": ["square"]}, r'"option_1" is not text: \["square"\]'),
        ({"option_3": "dog"}, r'there is an "option_3", but size_option is 3; --size_option 4'),
        ({"answer": "1"}, r'"answer" is no whole number: "1"'),
        ({"answer": 1.0}, r'"answer" is no whole number: 1\.0'),
        ({"answer": True}, r'"answer" is no whole number: true'),
        ({"answer": 3}, r'"answer" is 3, but size_option is 3 \(0 to 2\)'),
        ({"answer": -2}, r'"answer" is -2, but size_option is 3 \(0 to 2\)'),
    ],
    ids=str,
)
def test_a_bad_item_is_named_before_the_run(make, kind, changes: dict, fault: str):
    with pytest.raises(DataError, match=rf"txt_mc\.json, test, item 1 \(counted from 0\): {fault}$"):
        make(kind, item(), item(**changes))


@BOTH
@pytest.mark.parametrize("key", ["question", "option_1"])
def test_half_a_character_is_a_fault_of_its_item(make, kind, key: str):
    with pytest.raises(DataError, match="item 1"):
        make(kind, item(), item(**{key: "cut \ud83d"}))


# --- a missing video --------------------------------------------------------------------------------------------------


@BOTH
def test_a_missing_video_stops_the_run(make, kind):
    with pytest.raises(DataError, match=r"txt_mc\.json, test, item 1 \(counted from 0\): video 'nobody' is not in"):
        make(kind, item(), item(video="nobody"))


@BOTH
def test_or_its_question_has_no_label(make, kind):
    items = [item(), item(video="nobody", option_0="a dog", answer=2)]
    (batch,) = evaluation_loader(make(kind, *items, on_bad_sample="zero"))
    assert batch["present"].tolist() == [True, False]
    assert batch["answer"].tolist() == [1, 2]
    assert batch["options"] == [OPTIONS, ["a dog", *OPTIONS[1:]]]
    assert len(batch["faults"]) == 1
    if kind is MultipleChoiceDataset:
        assert (batch["labels"] != -1).sum(1).tolist() == [1, 0]


@BOTH
def test_a_batch_of_missing_videos_alone(make, kind):
    (batch,) = evaluation_loader(make(kind, item(video="nobody"), item(video="noone"), on_bad_sample="zero"))
    assert not batch["present"].any()
    if kind is MultipleChoiceDataset:
        assert (batch["labels"] == -1).all()
    assert len(batch["faults"]) == 2


@BOTH
def test_a_fault_goes_on_to_where_it_is_raised(make, kind):
    with pytest.raises(DataError, match=r"img_toy\.tsv, line 1: .*60"):
        list(evaluation_loader(make(kind, item(), item(video="vid1"), size_frame=60)))
