import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavender.runtime.errors import DataError
from lavender.runtime.quoting import LIMIT, one_line, shown, shown_json


def nested(depth: int, width: int) -> Any:
    """Lists of lists that share their items: `width ** depth` strings if they were written out."""
    value: Any = "lol"
    for _ in range(depth):
        value = [value] * width
    return value


def self_containing() -> list:
    value: list = []
    value += [value, {"key": value}]
    return value


class Endless:
    def __repr__(self) -> str:
        raise AssertionError("it must not be asked")


@pytest.mark.parametrize(
    ("value", "python", "json"),
    [
        ("film_00.10.5", "'film_00.10.5'", '"film_00.10.5"'),
        ("größer 红 🙂", "'größer 红 🙂'", '"größer 红 🙂"'),
        ("a\nb\rc\x1b[2J", r"'a\nb\rc\x1b[2J'", r'"a\nb\rc\u001b[2J"'),
        ("a\u2028b\u202ec\x85\ud83d", r"'a\u2028b\u202ec\x85\ud83d'", r'"a\u2028b\u202ec\u0085\ud83d"'),
        (None, "None", "null"),
        ([True, 1, 1.5], "[True, 1, 1.5]", "[true, 1, 1.5]"),
        ({"a": None, 2: ["b"]}, "{'a': None, 2: ['b']}", '{"a": null, 2: ["b"]}'),
        (Path("a/b"), "'a/b'", '"a/b"'),
        (np.str_("a"), "'a'", '"a"'),
        ({}, "{}", "{}"),
    ],
)
def test_small_values_are_shown_as_they_are(value: Any, python: str, json: str):
    assert shown(value) == python
    assert shown_json(value) == json


@pytest.mark.parametrize("show", [shown, shown_json])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * 10_000_000, id="text"),
        pytest.param("\x00" * 10_000_000, id="control"),
        pytest.param(b"x" * 10_000_000, id="bytes"),
        pytest.param(10**1_000_000, id="number"),
        pytest.param(-(10**5000), id="negative"),
        pytest.param(nested(9, 9), id="bomb"),
        pytest.param(nested(100_000, 1), id="deep"),
        pytest.param({"a": nested(5000, 2)}, id="object"),
        pytest.param(self_containing(), id="itself"),
        pytest.param(dict.fromkeys(range(1_000_000)), id="keys"),
        pytest.param(set(range(1_000_000)), id="set"),
        pytest.param([Endless()], id="unknown"),
    ],
)
def test_huge_values_cost_little(show: Callable[[Any], str], value: Any):
    start = time.perf_counter()
    text = show(value)
    assert time.perf_counter() - start < 0.5
    assert 0 < len(text) <= LIMIT
    assert text.isprintable()


def test_of_a_long_value_both_ends_are_seen():
    text = shown(f"folder/{'x' * 1000}/clip.7.mp4")
    assert text.startswith("'folder/xxx")
    assert text.endswith("xxx/clip.7.mp4'")


def test_the_size_of_a_number_is_told():
    assert "6,001 digits" in shown(10**6000)


def test_text_without_quotes():
    assert one_line("a 'b'\n\tc") == r"a 'b'\n\tc"
    assert len(one_line("\n" * 1000, 50)) == 50


def test_a_message_is_one_line_of_bounded_length():
    error = DataError("x.tsv, line 1: " + "a\n" * 5_000_000 + "; do this")
    assert str(error).startswith(r"x.tsv, line 1: a\na\n")
    assert str(error).endswith("; do this")
    assert len(str(error)) <= 4000
