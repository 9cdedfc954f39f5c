from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.text.questions import NOWHERE, answer_at_mask, blank_in_place, choice_at_mask, with_options
from lavender.text.tokens import TextTokenizer

BERT = Path(__file__).parents[2] / "conformance" / "kit" / "bert_micro"
TOKENIZER = TextTokenizer(BERT)  # hypothesis runs a test many times over one fixture
LONG = "the red circle moves left and the blue square jumps over it"  # 12 words, each in the vocabulary
POSITIONS = ["append", "prepend", "replace", "insert"]


def words(ids: np.ndarray) -> str:
    """The tokens, with `_` for a pad."""
    return " ".join(TOKENIZER.word(int(token)) for token in ids).replace("[PAD]", "_")


# --- answer: [MASK] ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "length", "tokens", "position"),
    [
        ("what color is it", 7, "[CLS] what color is it answer : [MASK] [SEP] _ _ _", 7),
        ("what color is it", 5, "[CLS] what color is it answer : [MASK] [SEP] _", 7),  # just not cut
        ("what color is it", 4, "[CLS] what color is answer : [MASK] [SEP] _", 6),
        ("what color is it", 2, "[CLS] what answer : [MASK] [SEP] _", 4),  # the smallest size_txt
        ("", 3, "[CLS] answer : [MASK] [SEP] _ _ _", 3),
        ("What  COLOR?", 4, "[CLS] what color ? answer : [MASK] [SEP] _", 6),
        ("walking", 2, "[CLS] walking answer : [MASK] [SEP] _", 4),
        ("spinsing", 3, "[CLS] spins ##ing answer : [MASK] [SEP] _", 5),
        ("spinsing", 2, "[CLS] spins answer : [MASK] [SEP] _", 4),  # the cut may fall inside a word
    ],
)
def test_an_answer_at_a_mask_of_its_own(question: str, length: int, tokens: str, position: int):
    ids, found = answer_at_mask(TOKENIZER, question, length)
    assert (words(ids), found) == (tokens, position)
    assert ids.dtype == np.int64


def test_a_mask_in_the_question_is_not_where_the_answer_is_read():
    ids, position = answer_at_mask(TOKENIZER, "a [MASK] circle [SEP]", 6)
    assert words(ids) == "[CLS] a [MASK] circle [SEP] answer : [MASK] [SEP] _ _"
    assert position == 7


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(2, 30))
def test_any_question_has_its_answer_at_the_mask(question: str, length: int):
    ids, position = answer_at_mask(TOKENIZER, question, length)
    assert len(ids) == length + 5
    assert (ids[position], ids[position + 1]) == (TOKENIZER.mask_id, TOKENIZER.sep_id)
    assert (ids[position + 2 :] == TOKENIZER.pad_id).all()
    assert len(ids[position + 2 :]) >= 1


# --- multiple choice --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask_pos", "length", "tokens", "position"),
    [
        ("append", 4, "[CLS] dog or cat [MASK] [SEP] _", 4),
        ("append", 3, "[CLS] dog or [MASK] [SEP] _", 3),
        ("append", 2, "[CLS] dog [MASK] [SEP] _", 2),
        ("prepend", 4, "[MASK] [CLS] dog or cat [SEP] _", 0),
        ("prepend", 2, "[MASK] [CLS] dog [SEP] _", 0),
        ("replace", 4, "[MASK] dog or cat [SEP] _", 0),
        ("replace", 2, "[MASK] dog [SEP] _", 0),
        ("insert", 4, "[CLS] dog or cat [SEP] _ [MASK]", 6),  # fewer than 10 tokens: at the end
        ("insert", 7, "[CLS] dog or cat [SEP] _ _ _ _ [MASK]", 9),
        ("insert", 8, "[CLS] dog or cat [SEP] _ _ _ _ _ [MASK]", 10),  # 10 tokens: index 10 is the end
        ("insert", 10, "[CLS] dog or cat [SEP] _ _ _ _ _ [MASK] _ _", 10),
    ],
)
def test_a_choice_by_position_of_the_mask(mask_pos: str, length: int, tokens: str, position: int):
    ids, found = choice_at_mask(TOKENIZER, "dog or cat", length, mask_pos)
    assert (words(ids), found) == (tokens, position)
    assert ids.dtype == np.int64


def test_insert_stands_inside_a_long_text():
    ids, position = choice_at_mask(TOKENIZER, LONG, 12, "insert")
    kept = [TOKENIZER.word(token) for token in TOKENIZER.wordpieces(LONG)[:11]]
    assert words(ids).split() == ["[CLS]", *kept[:9], "[MASK]", *kept[9:], "[SEP]", "_"]
    assert position == 10


@pytest.mark.parametrize("mask_pos", POSITIONS)
def test_no_text_at_all(mask_pos: str):
    ids, position = choice_at_mask(TOKENIZER, "", 2, mask_pos)
    tokens = {
        "append": "[CLS] [MASK] [SEP] _ _",
        "prepend": "[MASK] [CLS] [SEP] _ _",
        "replace": "[MASK] [SEP] _ _",
        "insert": "[CLS] [SEP] _ _ [MASK]",
    }
    assert words(ids) == tokens[mask_pos]
    assert words(ids).split()[position] == "[MASK]"


@pytest.mark.parametrize("mask_pos", POSITIONS)
def test_the_mask_is_the_one_put_in_and_not_one_in_the_text(mask_pos: str):
    ids, position = choice_at_mask(TOKENIZER, "a [MASK] dog", 20, mask_pos)
    plain, expected = choice_at_mask(TOKENIZER, "a red dog", 20, mask_pos)
    assert position == expected
    assert set(np.flatnonzero(ids == TOKENIZER.mask_id)) == {expected, words(plain).split().index("red")}


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80), st.integers(2, 40), st.sampled_from(POSITIONS))
def test_any_choice_has_its_answer_at_the_mask(text: str, length: int, mask_pos: str):
    ids, position = choice_at_mask(TOKENIZER, text, length, mask_pos)
    assert len(ids) == length + (2 if mask_pos == "replace" else 3)
    assert ids[position] == TOKENIZER.mask_id
    assert (ids == TOKENIZER.sep_id).sum() == 1
    assert (ids == TOKENIZER.cls_id).sum() == (mask_pos != "replace")


def test_a_question_with_its_options():
    text = with_options("what moves ?", ["a dog", "", "cats"])
    assert text == "what moves ? [SEP] option 0: a dog [SEP] option 1:  [SEP] option 2: cats"
    assert with_options("", ["x"]) == " [SEP] option 0: x"
    ids, _ = choice_at_mask(TOKENIZER, text, 30, "append")
    assert words(ids).startswith("[CLS] what moves ? [SEP] option 0 : a dog [SEP] option 1 : [SEP] option 2 :")


# --- fill in the blank ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sentence", "length", "tokens", "position"),
    [
        ("a [MASK] moves", 7, "[CLS] a [MASK] moves [SEP] _ _", 2),
        ("[MASK]", 3, "[CLS] [MASK] [SEP]", 1),
        ("a [MASK]", 4, "[CLS] a [MASK] [SEP]", 2),  # the last place that is kept
        ("a [MASK]", 3, "[CLS] a [SEP]", NOWHERE),
        ("[MASK] moves", 2, "[CLS] [SEP]", NOWHERE),
        ("[MASK] or [MASK]", 6, "[CLS] [MASK] or [MASK] [SEP] _", 1),
        ("a dog", 4, "[CLS] a dog [SEP]", NOWHERE),
        ("left[MASK]right", 6, "[CLS] left [MASK] right [SEP] _", 2),
    ],
)
def test_a_blank_in_its_place(sentence: str, length: int, tokens: str, position: int):
    ids, found = blank_in_place(TOKENIZER, sentence, length)
    assert (words(ids), found) == (tokens, position)
    assert ids.dtype == np.int64


def test_nowhere_is_no_position_of_a_token():
    assert NOWHERE < 0
