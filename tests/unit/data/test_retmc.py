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
from lavender.data.retmc import MatchingChoiceDataset, MatchingTextDataset
from lavender.data.samples import SampleKey
from lavender.runtime.errors import DataError
from lavender.text.tokens import TextTokenizer

BOTH = pytest.mark.parametrize("kind", [MatchingChoiceDataset, MatchingTextDataset])
OPTIONS = ["a red circle", "", "a dog jumps over a cat"]


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def make(config: Config, kit: Path, tokenizer: TextTokenizer, tmp_path: Path) -> Callable[..., MatchingChoiceDataset]:
    """A test split of questions with three options, over the kit's six videos."""

    def build(kind: type[MatchingChoiceDataset], *items: Item, **changes: Any) -> MatchingChoiceDataset:
        (tmp_path / "txt_mc.json").write_text(json.dumps({"test": items}))
        folders = {"data_dir": str(kit / "data"), "txt_dir": str(tmp_path)}
        options = {"type": "qamc", "dataset": "toy", "task": "mc", "size_option": 3, "size_txt": 7}
        changed = replace(config, **{**options, **folders, **changes})
        return kind(changed, tokenizer, open_frames(changed), ItemFile(changed), "test")

    return build


def item(**changes: Any) -> Item:
    options = {f"option_{number}": option for number, option in enumerate(OPTIONS)}
    return {"video": "vid0", "question": "", **options, "answer": 1, **changes}


def sample(dataset: MatchingChoiceDataset) -> dict[str, Any]:
    found = dataset[SampleKey(0, 0)]
    assert isinstance(found, dict), found
    return found


def words(tokenizer: TextTokenizer, rows: np.ndarray) -> list[str]:
    return [" ".join(tokenizer.word(int(token)) for token in row).replace("[PAD]", "_") for row in rows]


# --- texts ------------------------------------------------------------------------------------------------------------

ALONE = ["[CLS] a red circle [SEP] _ _", "[CLS] [SEP] _ _ _ _ _", "[CLS] a dog jumps over a [SEP]"]
ASKED = ["[CLS] what ? a red circle [SEP]", "[CLS] what ? [SEP] _ _ _", "[CLS] what ? a dog jumps [SEP]"]


@BOTH
@pytest.mark.parametrize(("question", "texts"), [("", ALONE), ("what ?", ASKED)])
def test_a_text_for_each_option(make, tokenizer: TextTokenizer, kind, question: str, texts: list[str]):
    found = sample(make(kind, item(question=question)))
    appended = kind is MatchingChoiceDataset
    assert words(tokenizer, found["ids"]) == [f"{text} [MASK]" if appended else text for text in texts]
    assert found["mask"].tolist() == [[int(word != "_") for word in text.split()] + [1] * appended for text in texts]
    assert found["options"] == OPTIONS


@pytest.mark.parametrize("answer", [0, 1, 2])
def test_true_for_the_right_option_and_false_for_the_others(make, tokenizer: TextTokenizer, answer: int):
    found = sample(make(MatchingChoiceDataset, item(answer=answer)))
    assert found["labels"].shape == (3, 8)
    assert (found["labels"][:, :-1] == -1).all()
    expected = [tokenizer.true_id if number == answer else tokenizer.false_id for number in range(3)]
    assert found["labels"][:, -1].tolist() == expected
    assert found["answer"] == answer


@pytest.mark.parametrize(
    ("way", "taught"), [("distinct", ["", "true", "false"]), ("released", ["false", "true", "false"])]
)
def test_the_text_of_the_right_option_is_not_false_elsewhere(make, tokenizer: TextTokenizer, way: str, taught: list):
    same = item(option_0=" A DOG  jumps over a cat ", option_1="a dog jumps over a cat", option_2="a red circle")
    found = sample(make(MatchingChoiceDataset, same, size_txt=12, vtm_negatives=way))
    rows = [[tokenizer.word(label) for label in row if label != -1] for row in found["labels"].tolist()]
    assert rows == [[word] if word else [] for word in taught]


def test_the_task_specific_way_has_no_labels_but_the_answer(make):
    found = sample(make(MatchingTextDataset, item(answer=2)))
    assert "labels" not in found
    assert found["answer"] == 2


def test_a_mask_in_an_option_is_labelled_too(make, tokenizer: TextTokenizer):
    found = sample(make(MatchingChoiceDataset, item(option_0="a [MASK] circle")))
    assert np.flatnonzero(found["labels"][0] != -1).tolist() == [2, 7]
    assert words(tokenizer, found["ids"])[0].endswith("[MASK]"), "which is where the answer is read"


@BOTH
def test_a_batch(make, kind):
    items = [item(), item(video="vid1", option_1="a cat", answer=2)]
    (batch,) = evaluation_loader(make(kind, *items))
    assert batch["ids"].shape == batch["mask"].shape == (2, 3, 8 if kind is MatchingChoiceDataset else 7)
    assert batch["answer"].tolist() == [1, 2]
    assert batch["options"] == [OPTIONS, [OPTIONS[0], "a cat", OPTIONS[2]]]
    assert batch["img"].shape[0] == 2, "one clip for all options"


# --- faults -----------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"option_2": None}, '"option_2" is missing'),
        ({"option_0": 7}, '"option_0" is not text'),
        ({"option_3": "dog"}, 'there is an "option_3", but size_option is 3'),
        ({"question": None}, '"question" is missing'),
        ({"answer": 3}, r'"answer" is 3, but size_option is 3 \(0 to 2\)'),
    ],
    ids=str,
)
def test_a_bad_item_is_named_before_the_run(make, kind, changes: dict, fault: str):
    with pytest.raises(DataError, match=rf"txt_mc\.json, test, item 1 \(counted from 0\): {fault}"):
        make(kind, item(), item(**changes))


@BOTH
def test_a_missing_video_stops_the_run_or_has_no_label(make, kind):
    items = [item(), item(video="nobody")]
    with pytest.raises(DataError, match=r"test, item 1 \(counted from 0\): video 'nobody' is not in"):
        make(kind, *items)
    (batch,) = evaluation_loader(make(kind, *items, on_bad_sample="zero"))
    assert batch["present"].tolist() == [True, False]
    assert len(batch["faults"]) == 1
    if kind is MatchingChoiceDataset:
        assert (batch["labels"] != -1).sum((1, 2)).tolist() == [3, 0]
