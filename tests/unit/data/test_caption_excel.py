"""Captioning files as Excel and pandas leave them."""

import json
from pathlib import Path

import pytest

from lavender.data.caption_folder import CaptionFolder
from lavender.data.items import is_missing
from lavender.runtime.errors import DataError
from tests.unit.data.caption_world import PLAIN, annotations, fault, frames, lay_in

WITH_REFERENCES = PLAIN + "caption_coco_format: x.coco.json\n"


def references(*ids: object) -> str:
    return json.dumps({"annotations": [{"image_id": name, "caption": f"of {name}"} for name in ids]})


def numbered(folder: Path, *ids: object) -> Path:
    return lay_in(folder)(
        WITH_REFERENCES,
        x_img_tsv=frames("007", "8"),
        x_caption_tsv=annotations({"007": ["a"], "8": ["b"]}),
        x_coco_json=references(*ids),
    )


@pytest.mark.parametrize("eight", [8, 8.0, "8"])
def test_numbers_of_references(tmp_path: Path, eight: object):
    folder = CaptionFolder(numbered(tmp_path, "007", eight))
    assert folder.references([0, 1]) == [["of 007"], [f"of {eight}"]]


@pytest.mark.parametrize(
    ("wrong", "words"), [(7, "'007'"), (7.0, "'007'"), (True, "annotation 1"), (None, "annotation 1")]
)
def test_a_reference_without_its_zeros_is_not_taken_and_the_id_named(tmp_path: Path, wrong: object, words: str):
    path = numbered(tmp_path, "8", wrong)
    with pytest.raises(DataError, match=r"x\.coco\.json") as raised:
        CaptionFolder(path).references([0, 1])
    assert words in str(raised.value)


def test_quotes_of_excel_are_named(tmp_path: Path):
    table = 'vid0\t"[{""caption"": ""a""}]"\r\nvid1\t"[{""caption"": ""b""}]"\r\n'
    words = fault(lay_in(tmp_path)(x_caption_tsv=table))
    assert "x.caption.tsv, line 1" in words
    assert "Excel" in words
    assert "line 1" in fault(lay_in(tmp_path)(x_caption_tsv="vid0\t\nvid1\t\n"))


@pytest.mark.parametrize("none", ["NaN", '[{"caption": NaN}]', "[NaN]"])
def test_captions_that_pandas_withholds(tmp_path: Path, none: str):
    path = lay_in(tmp_path)(x_caption_tsv=f"vid0\t{none}\nvid1\t{none}\n")
    folder = CaptionFolder(path, blind=True)
    assert [folder.rows[row]["captions"] for row in range(2)] == [[], []]
    fault(path)


def test_answers_that_are_withheld():
    assert all(map(is_missing, (None, -1, "", " ", float("nan"), json.loads("NaN"))))
    assert not any(map(is_missing, (0, 1, "red", "-1", "nan", [], False)))
