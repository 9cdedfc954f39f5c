"""Questions whose answer is withheld, written in another way or never right, and items that are none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.data.items import ItemFile
from lavender.data.qaoe import (
    ClosedVocabularyDataset,
    FillInTheBlankDataset,
    OpenEndedDataset,
    QuestionDataset,
)
from lavender.runtime.errors import DataError
from lavender.text.questions import NOWHERE
from lavender.text.tokens import TextTokenizer
from tests.unit.data.questions_world import ANS2LABEL, EVERY, MLM, item, labelled, maker, sample


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def make(config: Config, kit: Path, tokenizer: TextTokenizer, tmp_path: Path) -> Callable[..., QuestionDataset]:
    return maker(config, kit, tokenizer, tmp_path)


# --- questions that can never be right --------------------------------------------------------------------------------


@MLM
@pytest.mark.parametrize("word", ["zebracorn", "red circle", "[UNK]", "walkings"])
def test_an_answer_that_is_not_one_word_of_the_vocabulary_has_no_label(make, log, kind, word: str):
    found = sample(make(kind, item(answer_text=word), item()))
    assert labelled(found) == {}
    assert (found["answer_id"], found["answer"]) == (-1, word)
    assert "1 of 2 test questions can never be right; the first: " in log.text
    assert f"item 0 (counted from 0): its answer, {word!r}, is no word of the vocabulary" in log.text


@MLM
def test_an_answer_of_minus_1_has_no_label(make, kind):
    found = sample(make(kind, item(answer=-1, answer_text=None)))
    assert (found["answer_id"], found["answer"], labelled(found)) == (-1, "", {})


def test_they_are_counted_in_one_line(make, log, tmp_path: Path):
    make(OpenEndedDataset, item(), item(answer_text="zebra"), item(), item(answer_text="two words"))
    (record,) = log.records
    assert record.getMessage() == (
        "2 of 4 test questions can never be right; the first: "
        f"{tmp_path / 'txt_qa.json'}, test, item 1 (counted from 0): its answer, 'zebra', is no word of the vocabulary"
    )


@EVERY
def test_where_all_can_be_right_nothing_is_said(make, log, kind):
    make(kind, item(), item(answer=3, answer_text="yellow"))
    assert log.text == ""


@pytest.mark.parametrize(("size", "position"), [(5, 2), (4, 2), (3, NOWHERE), (2, NOWHERE)])
def test_a_blank_beyond_size_txt(make, log, size: int, position: int):
    found = sample(make(FillInTheBlankDataset, item(), item(question="[MASK] " * 9), size_txt=size))
    assert found["position"] == position
    assert len(labelled(found)) == (position != NOWHERE)
    beyond = f"item 0 (counted from 0): its [MASK] lies beyond size_txt, {size} tokens"
    assert (beyond in log.text) == (position == NOWHERE)


def test_blanks_beyond_size_txt_are_counted(make, log):
    make(FillInTheBlankDataset, item(question="a dog and a [MASK]"), item(question="it [MASK]s"), size_txt=5)
    assert "1 of 2 test questions can never be right; the first: " in log.text


def test_a_blank_behind_signs_is_counted_too(make, log):
    assert sample(make(FillInTheBlankDataset, item(question="!!![MASK]"), size_txt=5))["position"] == NOWHERE
    assert "1 of 1 test questions can never be right" in log.text


def test_an_answer_outside_the_list_is_told_even_where_the_blank_is_cut(make):
    cut = item(question="a dog and a cat [MASK]", answer=17, answer_text=None)
    with pytest.raises(DataError, match=r'test, item 0 .*"answer" is 17'):
        make(FillInTheBlankDataset, cut, top={"ans2label": ANS2LABEL}, size_txt=5)


def test_a_question_with_two_faults_is_one_question(make, log):
    make(FillInTheBlankDataset, item(question="a dog and a cat [MASK]", answer_text="zebra"), size_txt=5)
    assert "1 of 1 test questions can never be right" in log.text


# --- answers as people write them, and splits without any -----------------------------------------------------------


@MLM
@pytest.mark.parametrize("word", ["Red", " red ", "RED\n", "r\u00e9d"])
def test_an_answer_is_read_as_the_tokenizer_reads_it(make, log, kind, word: str):
    expected = sample(make(kind, item()))
    for given in (item(answer_text=word), item(answer_text=None)):
        found = sample(make(kind, given, top={"ans2label": {word: 0}}))
        assert found["answer_id"] == expected["answer_id"]
        assert found["labels"].tolist() == expected["labels"].tolist()
    assert log.text == ""


@EVERY
@pytest.mark.parametrize("nothing", [None, "", " ", -1])
def test_a_test_item_without_an_answer(make, log, kind, nothing: object):
    found = sample(make(kind, item(answer=nothing, answer_text=None), item(answer=nothing, answer_text="")))
    assert (found["answer_id"], found["answer"]) == (-1, "")
    assert (np.asarray(found["labels"]) == -1).all()
    assert log.text == ""


@EVERY
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("nothing", "told"), [(None, "missing"), ("", '""'), (-1, "-1")])
def test_other_splits_need_answers(make, kind, split: str, nothing: object, told: str):
    made = make(kind, top={split: [item(), item(answer=nothing, answer_text=None)]})
    texts, frames = ItemFile(made.config), made.frames
    with pytest.raises(DataError, match=rf'txt_qa\.json, {split}, item 1 .*"answer" is {told}'):
        kind(made.config, made.tokenizer, frames, texts, split)


@pytest.mark.parametrize(("bad", "share"), [(3, "100"), (2, "67%"), (1, "")])
def test_training_answers_that_cannot_be_learned(make, log, bad: int, share: str):
    items = [item(answer_text="zebra")] * bad + [item()] * (3 - bad)
    made = make(OpenEndedDataset, top={"train": items})
    texts = ItemFile(made.config)
    if bad == 3:
        with pytest.raises(DataError, match=r"txt_qa\.json: nothing .* 3 .*'zebra'.*vocab\.txt"):
            OpenEndedDataset(made.config, made.tokenizer, made.frames, texts, "train")
        return
    OpenEndedDataset(made.config, made.tokenizer, made.frames, texts, "train")
    (record,) = log.records
    assert record.levelname == ("WARNING" if share else "INFO")
    assert share in record.getMessage()
    assert f"{bad} of 3" in record.getMessage()


# --- answers that are withheld ----------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("top", [{}, {"vocab": list(ANS2LABEL)}, {"ans2label": ANS2LABEL}], ids=list)
@pytest.mark.parametrize("text", ["", " ", -1, None], ids=repr)
@pytest.mark.parametrize("answer", ["", -1, None], ids=repr)
def test_a_text_that_withholds_the_answer(make, kind, top: dict, text: object, answer: object):
    dataset = make(kind, item(answer=answer, answer_text=text), top=top)
    assert sample(dataset)["answer_id"] == -1
    assert sample(dataset)["answer"] == ""


@MLM
def test_a_blank_text_beside_a_number_that_is_no_word(make, kind):
    """Such as 0 for all of a blind split; where the file names its words the number counts."""
    assert sample(make(kind, item(answer=0, answer_text="")))["answer_id"] == -1
    named = sample(make(kind, item(answer=1, answer_text=""), top={"ans2label": ANS2LABEL}))
    assert named["answer"] == "green"
    training = {"train": [item(answer=1, answer_text="green")]}
    dataset = make(kind, item(answer=1, answer_text=""), top=training)
    assert sample(dataset)["answer"] == "", "words of single items are no list"


def test_a_class_counts_without_its_word(make):
    dataset = make(ClosedVocabularyDataset, item(answer=2, answer_text=""))
    assert (sample(dataset)["answer_id"], sample(dataset)["answer"]) == (2, "2")


@EVERY
@pytest.mark.parametrize("text", [5, [], {}, True], ids=repr)
def test_a_text_that_is_none_is_an_error(make, kind, text: object):
    with pytest.raises(DataError, match='"answer_text" is not text'):
        make(kind, item(answer_text=text))


def test_a_class_that_is_no_number(make):
    with pytest.raises(DataError, match='"answer" is no whole number'):
        make(ClosedVocabularyDataset, item(answer=[1], answer_text=None))


# --- bad items --------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(
    ("question", "fault"), [(None, "missing"), (5, "not text: 5"), (["a [MASK]"], r'not text: \["a \[MASK\]"\]')]
)
def test_a_question_that_is_no_text(make, kind, question: object, fault: str):
    with pytest.raises(DataError, match=rf'txt_qa\.json, test, item 1 \(counted from 0\): "question" is {fault}$'):
        make(kind, item(), item(question=question))


@pytest.mark.parametrize("question", ["what color is it ?", "a MASK circle", "a [mask] circle", ""])
def test_a_sentence_without_a_blank(make, question: str):
    with pytest.raises(DataError) as raised:
        make(FillInTheBlankDataset, item(), item(question=question))
    assert str(raised.value).endswith(
        f'test, item 1 (counted from 0): the question has no [MASK] to fill in: "{question}"'
    )


def test_a_long_sentence_without_a_blank_is_told_in_short(make):
    with pytest.raises(DataError) as raised:
        make(FillInTheBlankDataset, item(question="x" * 500))
    assert len(str(raised.value).partition('"xx')[2]) <= 100


@EVERY
@pytest.mark.parametrize("key", ["question", "answer_text"])
def test_half_a_character_is_a_fault_of_its_item(make, kind, key: str):
    with pytest.raises(DataError, match="item 1"):
        make(kind, item(), item(**{key: "a [MASK] \ud83d"}))
