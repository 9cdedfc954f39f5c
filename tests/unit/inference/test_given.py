"""Texts and options as people hand them over."""

from typing import Any

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.inference.given import check_count, texts_of
from lavender.inference.predictor import Predictor
from lavender.runtime.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("given", "texts"),
    [("a dog", ["a dog"]), (["a", "b"], ["a", "b"]), (("a",), ["a"]), (np.array(["a", "b"]), ["a", "b"])],
)
def test_one_text_or_several(given: Any, texts: list[str]):
    """A text is never taken for a list of its letters."""
    assert texts_of(given, "option") == texts
    assert texts_of("", "question", blank=True) == [""]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "None"),
        (5, "5"),
        (b"dog", "b'dog'"),
        (["a", None], "None is no text"),
        (["a", 5], "5 is no text"),
        (["a", " "], "option is empty"),
        ("", "option is empty"),
        ([], "no option"),
    ],
)
def test_what_is_no_text(given: Any, words: str):
    with pytest.raises(DataError, match=f"option.*{words}|{words}"):
        texts_of(given, "option")


def test_how_many():
    assert [check_count(k) for k in (1, np.int64(7))] == [1, 7]
    for k in (0, -1, 1.5, "3", None):
        with pytest.raises(DataError, match=r"k is .*; a whole number"):
            check_count(k)


def test_options_of_a_caption(make_model, config: Config):
    predictor = Predictor(make_model(), config, "cpu")
    positions = predictor.model.enc_txt.emb_txt.position_embeddings.num_embeddings
    for options, words in (
        ({"foo": 1}, "foo: there is no such option"),
        ({"max_gen_length": "many"}, 'max_gen_length is "many"'),
        ({"max_gen_length": positions + 1}, f"max_gen_length is {positions + 1}, .*{positions} positions"),
    ):
        with pytest.raises(ConfigError, match=words):
            predictor.caption(np.zeros((2, 64, 64, 3), np.uint8), **options)
