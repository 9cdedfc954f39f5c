import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizer

from lavender.runtime.errors import WeightsError
from lavender.text.prompts import PROMPTS
from lavender.text.tokens import TextTokenizer

LONG = "the red circle moves left and the blue square jumps over it"  # 12 words, each in the vocabulary


@pytest.fixture
def tokenizer(kit: Path) -> TextTokenizer:
    return TextTokenizer(kit / "bert_micro")


@pytest.fixture
def folder(kit: Path, tmp_path: Path) -> Path:
    """A copy of the BERT folder that a test may spoil."""
    return Path(shutil.copytree(kit / "bert_micro", tmp_path / "bert"))


def words(tokenizer: TextTokenizer, ids: np.ndarray) -> str:
    return " ".join(tokenizer.word(int(token)) for token in ids)


def test_a_short_text_is_padded(tokenizer: TextTokenizer):
    ids, mask = tokenizer.encode("A red circle", 7)
    assert words(tokenizer, ids) == "[CLS] a red circle [SEP] [PAD] [PAD]"
    assert mask.tolist() == [1, 1, 1, 1, 1, 0, 0]
    assert ids.dtype == mask.dtype == np.int64


@pytest.mark.parametrize("length", [14, 13, 8, 3, 2])
def test_a_long_text_is_cut_and_still_ends_in_sep(tokenizer: TextTokenizer, length: int):
    ids, mask = tokenizer.encode(LONG, length)
    assert words(tokenizer, ids) == " ".join(["[CLS]", *LONG.split()[: length - 2], "[SEP]"])
    assert mask.tolist() == [1] * length


@pytest.mark.parametrize(("text", "pads"), [("", 10), ("a dog", 8), (LONG, 0)])
def test_the_appended_mask_stands_last_after_the_pads(tokenizer: TextTokenizer, text: str, pads: int):
    plain, plain_mask = tokenizer.encode(text, 12)
    ids, mask = tokenizer.encode(text, 12, append_mask=True)
    assert len(ids) == 13
    np.testing.assert_array_equal(ids, [*plain, tokenizer.mask_id])
    np.testing.assert_array_equal(mask, [*plain_mask, 1])
    assert (mask == 0).sum() == pads


def test_special_tokens_written_in_the_text_are_those_tokens(tokenizer: TextTokenizer):
    ids, _ = tokenizer.encode("a [MASK] moves[MASK]. [SEP] up", 12)
    assert words(tokenizer, ids) == "[CLS] a [MASK] moves [MASK] . [SEP] up [SEP] [PAD] [PAD] [PAD]"
    assert tokenizer.wordpieces("answer: [MASK]")[-1] == tokenizer.mask_id


def test_prompt(tokenizer: TextTokenizer):
    ids = tokenizer.prompt(PROMPTS["vtm"])
    text = words(tokenizer, ids)
    assert text.startswith("[CLS] is the video - text paired , true or false ?")
    assert text.endswith("[SEP]")
    assert ids.dtype == np.int64


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Hello,  wörld!\tYou'll",
            "un\u200bseen \x00 control",
            "红 circle 方",
            "🙂 red 🙂",
            "x" * 150,
            "ＦＵＬＬ width",
        ),
        *("left-hand; 3.14 & co.", "\n", "ÉÈ naïve İstanbul", "a" * 101 + " dog"),
    ],
)
def test_the_wordpieces_are_those_of_transformers(tokenizer: TextTokenizer, kit: Path, text: str):
    reference = BertTokenizer.from_pretrained(kit / "bert_micro")
    expected = reference(text, max_length=16, padding="max_length", truncation=True)
    ids, mask = tokenizer.encode(text, 16)
    assert ids.tolist() == expected["input_ids"]
    assert mask.tolist() == expected["attention_mask"]


def test_words_and_ids(tokenizer: TextTokenizer, kit: Path):
    vocabulary = (kit / "bert_micro" / "vocab.txt").read_text().splitlines()
    assert tokenizer.size == len(vocabulary) == 350
    assert [tokenizer.word(token) for token in range(350)] == vocabulary
    assert tokenizer.word(350) == ""
    assert (tokenizer.pad_id, tokenizer.word(tokenizer.unknown_id)) == (0, "[UNK]")
    assert [tokenizer.word(i) for i in (tokenizer.true_id, tokenizer.false_id)] == ["true", "false"]
    with pytest.raises(WeightsError, match=r'vocab\.txt: the vocabulary has no "zebra"'):
        tokenizer.word_id("zebra")


@pytest.mark.parametrize("word", ["red", "0", "left-hand", "##ing", "[UNK]"])
def test_a_word_is_found_as_it_stands(tokenizer: TextTokenizer, word: str):
    found = tokenizer.find(word)
    assert found is not None
    assert tokenizer.word(found) == word
    assert tokenizer.word_id(word) == found


@pytest.mark.parametrize("word", ["zebra", "", "Red", " red", "red circle", "walkings", "\0"])
def test_what_is_no_word_of_the_vocabulary_is_not_found(tokenizer: TextTokenizer, word: str):
    assert tokenizer.find(word) is None


def test_the_first_word_of_the_vocabulary_is_a_word(tokenizer: TextTokenizer):
    assert tokenizer.find("[PAD]") == 0, "an id, not an absence"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("[CLS] a red circle [SEP] [PAD] [PAD]", "a red circle"),
        ("[CLS] spins ##ing [SEP]", "spinsing"),
        ("[CLS] what color is it ? [SEP]", "what color is it?"),
        ("a circle , a square .", "a circle, a square."),
        ("[CLS] [MASK] red [UNK] dog [SEP]", "red dog"),
        ("[CLS] [SEP] [PAD]", ""),
        ("", ""),
        ("##ing red", "##ing red"),
    ],
)
def test_ids_as_text(tokenizer: TextTokenizer, tokens: str, text: str):
    assert tokenizer.text([tokenizer.word_id(token) for token in tokens.split()]) == text


@pytest.mark.parametrize("text", ["the circle is red and it moves left", "spins", "left - hand?"])
def test_text_comes_back_from_its_ids(tokenizer: TextTokenizer, text: str):
    ids, _ = tokenizer.encode(text, 20)
    assert tokenizer.text(ids.tolist()) == text


def test_an_apostrophe_stands_within_its_word(tmp_path: Path):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "true",
        "false",
        "man",
        "s",
        "doesn",
        "t",
        "'",
        "hat",
        "dogs",
    ]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    tokenizer = TextTokenizer(tmp_path)
    for text in ("man's hat", "doesn't", "dogs'"):
        assert tokenizer.text(tokenizer.wordpieces(text)).replace("dogs '", "dogs'") == text


def test_text_is_that_of_transformers(tokenizer: TextTokenizer, kit: Path):
    """But for what it makes of a lone apostrophe."""
    reference = BertTokenizer.from_pretrained(kit / "bert_micro")
    random = np.random.default_rng(3)
    apostrophe = tokenizer.find("'")
    for _ in range(200):
        ids = [token for token in random.integers(0, tokenizer.size, 12).tolist() if token != apostrophe]
        expected = reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        assert tokenizer.text(ids) == expected.strip()


def test_upper_case_follows_the_folder(folder: Path):
    assert TextTokenizer(folder).wordpieces("RED") == TextTokenizer(folder).wordpieces("red")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    cased = TextTokenizer(folder)
    assert cased.wordpieces("RED") == [cased.unknown_id]
    (folder / "tokenizer_config.json").unlink()
    assert TextTokenizer(folder).wordpieces("RED") == TextTokenizer(folder).wordpieces("red")


def test_a_missing_vocabulary_is_named(tmp_path: Path):
    with pytest.raises(WeightsError, match=rf"{tmp_path}: no vocab\.txt"):
        TextTokenizer(tmp_path)


@pytest.mark.parametrize("word", ["[PAD]", "[MASK]", "true", "false"])
def test_a_vocabulary_without_a_needed_word_is_refused(folder: Path, word: str):
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace(f"\n{word}\n", "\n").removeprefix(f"{word}\n"))
    with pytest.raises(WeightsError, match=r"vocab\.txt.*no") as error:
        TextTokenizer(folder)
    assert f'"{word}"' in str(error.value)


def test_a_vocabulary_that_is_no_text_is_refused(folder: Path):
    (folder / "vocab.txt").write_bytes(b"\x80\x81\xff\n" * 20)
    with pytest.raises(WeightsError, match=r"vocab\.txt"):
        TextTokenizer(folder)


def test_a_vocabulary_of_a_windows_editor_has_the_same_ids(folder: Path, tokenizer: TextTokenizer):
    for name in ("vocab.txt", "tokenizer_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text + "\n \n", encoding="utf-8-sig", newline="\r\n")
    edited = TextTokenizer(folder)
    assert edited.size == tokenizer.size
    assert [edited.word(number) for number in range(edited.size)] == [tokenizer.word(n) for n in range(tokenizer.size)]
    assert edited.wordpieces(LONG) == tokenizer.wordpieces(LONG)


def test_a_vocabulary_of_another_encoding_is_named(folder: Path):
    text = (folder / "vocab.txt").read_text(encoding="utf-8")
    (folder / "vocab.txt").write_text(text, encoding="utf-16")
    with pytest.raises(WeightsError, match=r"vocab\.txt: the text is UTF-16; save it as UTF-8"):
        TextTokenizer(folder)
