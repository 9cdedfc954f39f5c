"""A first ranking by captions, by BM25."""

import pytest

from lavender.inference.shortlist import CaptionRanking

CAPTIONS = ["a red dog runs", "a blue cat sleeps", "", "a red car"]


@pytest.mark.parametrize(
    ("text", "count", "best"),
    [
        ("A DOG", 2, [0, 3]),  # "a" is in three; the car's caption is shorter than the cat's
        ("red car!", 1, [3]),
        ("red", 4, [3, 0, 1, 2]),
        ("quantum", 3, [0, 1, 2]),  # no word in common: the first ones
        ("?!", 2, [0, 1]),
        ("dog", 9, [0, 1, 2, 3]),  # more than there are
    ],
)
def test_the_best_captions(text: str, count: int, best: list[int]):
    assert CaptionRanking(CAPTIONS).best(text, count) == best


def test_captions_without_words():
    assert CaptionRanking(["", "…"]).best("dog", 1) == [0]


def test_words_of_other_scripts():
    assert CaptionRanking(["ein hund", "собака бежит", "STRASSE"]).best("Собака", 1) == [1]
    assert CaptionRanking(["ein hund", "STRASSE"]).best("straße", 1) == [1]
