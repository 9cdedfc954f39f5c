import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lavender.config.schema import Config
from lavender.data.items import ItemFile
from lavender.data.loaders import evaluation_loader
from lavender.data.qaoe import (
    AnswerWords,
    ClosedVocabularyDataset,
    FillInTheBlankDataset,
    OpenEndedDataset,
    QuestionDataset,
)
from lavender.runtime.errors import DataError
from lavender.text.tokens import TextTokenizer
from tests.unit.data.questions_world import ANS2LABEL, EVERY, MLM, item, labelled, maker, sample, words


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def make(config: Config, kit: Path, tokenizer: TextTokenizer, tmp_path: Path) -> Callable[..., QuestionDataset]:
    return maker(config, kit, tokenizer, tmp_path)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_an_open_ended_question(make, tokenizer: TextTokenizer):
    found = sample(make(OpenEndedDataset, item(question="what color is it"), size_txt=6))
    assert words(tokenizer, found["ids"]) == "[CLS] what color is it answer : [MASK] [SEP] _ _"
    assert found["mask"].tolist() == [1] * 9 + [0] * 2
    assert labelled(found) == {7: tokenizer.word_id("red")}
    assert (found["position"], found["answer_id"]) == (7, tokenizer.word_id("red"))
    assert [found[key] for key in ("video", "question", "answer")] == ["vid0", "what color is it", "red"]
    assert (found["present"], found["faults"], found["img"].shape) == (True, [], (2, 3, 64, 64))


def test_a_mask_in_an_open_ended_question_is_labelled_too_but_not_read(make, tokenizer: TextTokenizer):
    found = sample(make(OpenEndedDataset, item(question="a [MASK] circle")))
    assert labelled(found) == dict.fromkeys([2, 6], tokenizer.word_id("red"))
    assert found["position"] == 6


def test_a_question_that_is_cut_keeps_its_mask(make, tokenizer: TextTokenizer):
    found = sample(make(OpenEndedDataset, item(question="what color is it " * 20), size_txt=4))
    assert words(tokenizer, found["ids"]) == "[CLS] what color is answer : [MASK] [SEP] _"
    assert labelled(found) == {6: tokenizer.word_id("red")}


def test_a_blank_in_the_sentence(make, tokenizer: TextTokenizer):
    found = sample(make(FillInTheBlankDataset, item(), size_txt=7))
    assert words(tokenizer, found["ids"]) == "[CLS] a [MASK] circle [SEP] _ _"
    assert found["mask"].tolist() == [1] * 5 + [0] * 2
    assert labelled(found) == {2: tokenizer.word_id("red")}
    assert found["position"] == 2


def test_of_two_blanks_the_first_is_read(make, tokenizer: TextTokenizer):
    found = sample(make(FillInTheBlankDataset, item(question="[MASK] or [MASK]")))
    assert labelled(found) == dict.fromkeys([1, 3], tokenizer.word_id("red"))
    assert found["position"] == 1


def test_a_question_of_the_closed_vocabulary(make, tokenizer: TextTokenizer):
    found = sample(make(ClosedVocabularyDataset, item(question="what color is it", answer=2), size_txt=8))
    assert words(tokenizer, found["ids"]) == "[CLS] what color is it [SEP] _ _"
    assert found["mask"].tolist() == [1] * 6 + [0] * 2
    assert (int(found["labels"]), found["answer_id"], found["position"]) == (2, 2, 0)


@pytest.mark.parametrize("kind", [OpenEndedDataset, ClosedVocabularyDataset])
def test_an_empty_question(make, tokenizer: TextTokenizer, kind):
    tokens = words(tokenizer, sample(make(kind, item(question=""), size_txt=3))["ids"])
    assert tokens == ("[CLS] answer : [MASK] [SEP] _ _ _" if kind is OpenEndedDataset else "[CLS] [SEP] _")


@EVERY
def test_a_batch(make, kind):
    items = [item(), item(video="vid1.mp4", question="what [MASK] shape", answer=1, answer_text="green")]
    (batch,) = evaluation_loader(make(kind, *items))
    assert batch["video"] == ["vid0", "vid1.mp4"]
    assert batch["question"] == ["a [MASK] circle", "what [MASK] shape"]
    assert batch["answer"] == ["red", "green"]
    assert batch["ids"].shape == batch["mask"].shape
    assert batch["labels"].shape == ((2,) if kind is ClosedVocabularyDataset else batch["ids"].shape)
    assert batch["answer_id"].shape == batch["position"].shape == (2,)
    assert (batch["answer_id"] >= 0).all()


# --- the answer in words ----------------------------------------------------------------------------------------------


@MLM
@pytest.mark.parametrize(
    "top",
    [
        {"ans2label": ANS2LABEL},
        {"vocab": list(ANS2LABEL)},
        {"ans2label": None, "vocab": list(ANS2LABEL)},
        {"ans2label": ANS2LABEL, "vocab": ["wrong"] * 4},
        {"ans2label": dict(reversed(ANS2LABEL.items()))},
    ],
    ids=["ans2label", "vocab", "null and vocab", "both", "in any order"],
)
def test_a_missing_answer_text_comes_from_the_list(make, tokenizer: TextTokenizer, kind, top: dict):
    found = sample(make(kind, item(answer=2, answer_text=None), top=top))
    assert found["answer"] == "blue"
    assert found["answer_id"] == tokenizer.word_id("blue")


def test_the_answer_text_wins_over_the_list(make):
    found = sample(make(OpenEndedDataset, item(answer=2, answer_text="red"), top={"ans2label": ANS2LABEL}))
    assert found["answer"] == "red"
    without_number = sample(make(OpenEndedDataset, item(answer=None, answer_text="red")))
    assert without_number["answer"] == "red"


@MLM
@pytest.mark.parametrize("answer", [0, 17])
def test_with_no_word_and_no_list_the_item_is_named(make, tmp_path: Path, kind, answer: int | None):
    with pytest.raises(DataError) as raised:
        make(kind, item(), item(answer=answer, answer_text=None))
    where = f"{tmp_path / 'txt_qa.json'}, test, item 1 (counted from 0)"
    assert str(raised.value) == (
        f'{where}: no "answer_text", and the file has neither "ans2label" nor "vocab" to fill it in'
    )


@MLM
@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (4, r'"answer" is 4, but "ans2label" has 4 words \(0 to 3\)'),
        (-2, r'"answer" is -2, but "ans2label" has 4 words \(0 to 3\)'),
        ("2", r'"answer" is no whole number: "2"'),
        (True, r'"answer" is no whole number: true'),
        (1.5, r'"answer" is no whole number: 1\.5'),
    ],
)
def test_an_answer_that_the_list_does_not_have(make, kind, answer: object, fault: str):
    with pytest.raises(DataError, match=rf"txt_qa\.json, test, item 1 \(counted from 0\): {fault}$"):
        make(kind, item(), item(answer=answer, answer_text=None), top={"ans2label": ANS2LABEL})


def test_a_number_without_a_word(make):
    top = {"ans2label": {"red": 0, "blue": 2}}
    with pytest.raises(DataError, match=r'item 0 .*: "answer" is 1, .*"ans2label"'):
        make(OpenEndedDataset, item(answer=1, answer_text=None), top=top)
    assert sample(make(OpenEndedDataset, item(answer=2, answer_text=None), top=top))["answer"] == "blue"


@MLM
@pytest.mark.parametrize("text", [5, ["red"], {"word": "red"}, True], ids=repr)
def test_an_answer_text_that_is_no_text(make, kind, text: object):
    with pytest.raises(DataError, match=rf'item 0 .*: "answer_text" is not text: {re.escape(json.dumps(text))}$'):
        make(kind, item(answer_text=text), top={"ans2label": ANS2LABEL})


@EVERY
@pytest.mark.parametrize(
    ("top", "fault"),
    [
        *(({"ans2label": value}, r'"ans2label" must be an object, word → index') for value in ([], ["red"], 5, "red")),
        *(({"ans2label": {"red": n}}, r'"ans2label" must be an object, word → index') for n in ("0", 1.0, True, None)),
        *(({"vocab": value}, r'"vocab" must be a list of words') for value in ({}, {"red": 0}, 5, "red", [1], [None])),
    ],
)
def test_a_list_of_another_shape(make, tmp_path: Path, kind, top: dict, fault: str):
    with pytest.raises(DataError, match=rf"^{tmp_path / 'txt_qa.json'}: {fault}$"):
        make(kind, item(), top=top)


@EVERY
@pytest.mark.parametrize("top", [{"ans2label": {"\ud800": 0}}, {"vocab": ["\ud800"]}], ids=["ans2label", "vocab"])
def test_half_a_character_in_a_list(make, tmp_path: Path, kind, top: dict):
    fault = rf'"{next(iter(top))}": the word .*ud800. holds invalid Unicode'
    with pytest.raises(DataError, match=rf"^{tmp_path / 'txt_qa.json'}, {fault}"):
        make(kind, item(answer=0, answer_text=None), top=top)


def test_words_of_the_classes_from_the_items_that_give_both(make, config: Config, kit: Path, tmp_path: Path):
    items = {
        "train": [item(answer=1, answer_text="green"), item(answer=0, answer_text="red")],
        "val": [item(answer=2, answer_text="blue"), item(answer=5, answer_text=None)],
        "test": [item(answer="3", answer_text="yellow"), item(answer=None, answer_text="white")],
    }
    (tmp_path / "txt_qa.json").write_text(json.dumps(items))
    words = AnswerWords(ItemFile(replace(config, type="", task="qa", txt_dir=str(tmp_path))))
    assert [words.word(number) for number in range(6)] == ["red", "green", "blue", "3", "4", "5"]


def test_words_of_the_classes_from_the_list(make):
    listed = make(ClosedVocabularyDataset, item(answer_text="wrong"), top={"vocab": list(ANS2LABEL)}).words
    assert [listed.word(number) for number in range(5)] == ["red", "green", "blue", "yellow", "4"]


# --- the closed vocabulary --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [0, 3])
@pytest.mark.parametrize("top", [{}, {"ans2label": ANS2LABEL}], ids=["no list", "list"])
def test_the_label_is_the_answer_whatever_its_word(make, answer: int, top: dict):
    found = sample(make(ClosedVocabularyDataset, item(answer=answer, answer_text="zebracorn"), top=top))
    assert (int(found["labels"]), found["answer"]) == (answer, "zebracorn")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (4, r'"answer" is 4, but size_vocab is 4 \(0 to 3\)'),
        (-2, r'"answer" is -2, but size_vocab is 4 \(0 to 3\)'),
        (None, r'"answer" is missing'),
        ("0", r'"answer" is no whole number: "0"'),
        (False, r'"answer" is no whole number: false'),
    ],
)
def test_an_answer_outside_the_closed_vocabulary(make, answer: object, fault: str):
    with pytest.raises(DataError, match=rf"txt_qa\.json, test, item 1 \(counted from 0\): {fault}$"):
        make(ClosedVocabularyDataset, item(), item(answer=answer))


def test_an_answer_outside_the_vocabulary_has_no_label(make, log):
    found = sample(make(ClosedVocabularyDataset, item(answer=-1, answer_text="zebra")))
    assert (int(found["labels"]), found["answer_id"], found["answer"]) == (-1, -1, "zebra")
    assert "1 of 1 test questions can never be right" in log.text


@pytest.mark.parametrize(("top", "word"), [({}, "2"), ({"ans2label": ANS2LABEL}, "blue")])
def test_the_answer_of_a_class_without_text(make, top: dict, word: str):
    assert sample(make(ClosedVocabularyDataset, item(answer=2, answer_text=None), top=top))["answer"] == word


def test_an_answer_text_of_the_closed_vocabulary_that_is_no_text(make):
    with pytest.raises(DataError, match=r'item 0 .*: "answer_text" is not text: 5$'):
        make(ClosedVocabularyDataset, item(answer_text=5))


# --- a missing video --------------------------------------------------------------------------------------------------


@EVERY
def test_a_missing_video_stops_the_run(make, kind):
    with pytest.raises(DataError, match=r"txt_qa\.json, test, item 1 \(counted from 0\): video 'nobody' is not in"):
        make(kind, item(), item(video="nobody"))


@EVERY
def test_a_missing_video_has_no_label_but_for_a_blank(make, tokenizer: TextTokenizer, kind):
    kept = kind is FillInTheBlankDataset
    items = [item(), item(video="nobody", answer=1, answer_text="green")]
    (batch,) = evaluation_loader(make(kind, *items, on_bad_sample="zero"))
    assert batch["present"].tolist() == [True, False]
    assert (batch["labels"][0] != -1).any()
    assert bool((batch["labels"][1] != -1).any()) == kept
    assert int(batch["answer_id"][1]) == (tokenizer.word_id("green") if kept else -1)
    assert batch["answer"] == ["red", "green"], "the records still tell what was asked for"
    assert len(batch["faults"]) == 1


@EVERY
def test_a_batch_of_missing_videos_alone(make, kind):
    (batch,) = evaluation_loader(make(kind, item(video="nobody"), item(video="noone"), on_bad_sample="zero"))
    assert not batch["present"].any()
    assert len(batch["faults"]) == 2
    assert bool((batch["labels"] == -1).all()) == (kind is not FillInTheBlankDataset)
