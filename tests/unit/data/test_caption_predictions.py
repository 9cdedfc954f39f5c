"""Prediction files of any captions, and files of any content in their place."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.data.caption import read_predictions, write_predictions
from lavender.runtime.errors import DataError

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\n\r\ufeff"), max_size=9).filter(
    str.strip
)
CAPTIONS = st.fixed_dictionaries({"caption": st.text(max_size=20), "conf": st.floats(0, 1)})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["caption", "conf"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.lists(CAPTIONS, min_size=1, max_size=3)), max_size=4))
def test_any_captions_come_back_bit_for_bit(captions: list):
    with TemporaryDirectory() as place:
        path = Path(place) / "ckpt_3.pred.CAP.val.beam1.max20.tsv"
        write_predictions(path, captions)
        assert read_predictions(path) == captions
        lines = path.read_bytes().split(b"\n")
        assert len(lines) == len(captions) + 1
        starts = path.with_suffix(".lineidx").read_text().split()
        assert [int(start) for start in starts] == [
            sum(len(line) + 1 for line in lines[:n]) for n in range(len(captions))
        ]


def test_a_later_file_takes_the_place_of_an_earlier_one(tmp_path: Path):
    """With its line index: the earlier one's would point into the middle of lines."""
    path = tmp_path / "p.tsv"
    write_predictions(path, [("a", [{"caption": "long " * 9, "conf": 0.5}]), ("b", [{"caption": "c", "conf": 0.5}])])
    later = [("b", [{"caption": "x", "conf": 0.25}])]
    write_predictions(path, later)
    assert read_predictions(path) == later


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | JSON.map(lambda value: "a\t" + json.dumps(value))
)
def test_any_content_is_predictions_or_our_error(content: str):
    with TemporaryDirectory() as place:
        path = Path(place) / "p.tsv"
        path.write_text(content)
        try:
            found = read_predictions(path)
        except DataError as error:
            assert str(path.with_suffix("")) in str(error)  # noqa: PT017
        else:
            assert all(
                isinstance(one["caption"], str) and isinstance(one["conf"], float) for _, f in found for one in f
            )


def test_a_file_that_was_cut(tmp_path: Path):
    path = tmp_path / "p.tsv"
    write_predictions(path, [(f"vid{number}", [{"caption": "a star", "conf": 0.5}]) for number in range(9)])
    whole = path.read_bytes()
    for length in (len(whole) - 3, len(whole) // 2, 1, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            read_predictions(path)


@pytest.mark.parametrize("conf", ["9" * 400, "[" * 100_000], ids=["a number too large", "brackets"])
def test_a_confidence_that_is_none(tmp_path: Path, conf: str):
    path = tmp_path / "p.tsv"
    path.write_text(f'a\t[{{"caption": "x", "conf": {conf}}}]\n')
    with pytest.raises(DataError, match=r"p\.tsv, line 1: this is no prediction file"):
        read_predictions(path)
