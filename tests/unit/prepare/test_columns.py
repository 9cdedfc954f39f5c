"""What columns mean."""

from pathlib import Path

import pytest

from lavender.prepare.columns import check_given, find_columns
from lavender.prepare.table import Table
from lavender.runtime.errors import DataError


def table_of(*columns: str) -> Table:
    return Table(Path("t.csv"), list(columns), [(2, [""] * len(columns))])


@pytest.mark.parametrize(
    ("columns", "single", "options"),
    [
        (["video", "caption"], {"video": 0, "caption": 1}, []),
        (["Sentence", "Video_ID", "Split"], {"caption": 0, "video": 1, "split": 2}, []),
        (["id", "video_id", "text"], {"video": 1, "caption": 2}, []),
        (["key", "question", "answer"], {"video": 0, "question": 1, "answer": 2}, []),
        (
            ["gif_name", "question", "a1", "a2", "a3", "answer"],
            {"video": 0, "question": 1, "answer": 5},
            [2, 3, 4],
        ),
        (
            ["video", "question", "option_10", "option_2", "option_1", "label"],
            {"video": 0, "question": 1, "answer": 5},
            [4, 3, 2],
        ),
        (["video", "question", "option a", "option b", "answer"], {"video": 0, "question": 1, "answer": 4}, [2, 3]),
        (["video", "question", "a", "b", "c", "answer"], {"video": 0, "question": 1, "answer": 5}, [2, 3, 4]),
        (["video", "question", "answer_1", "answer_2"], {"video": 0, "question": 1}, []),
        (["video", "question", "options", "answer"], {"video": 0, "question": 1, "options": 2, "answer": 3}, []),
    ],
)
def test_the_guess(columns: list[str], single: dict[str, int], options: list[int]):
    found = find_columns(table_of(*columns), {})
    assert found.single == single
    assert found.options == options


def test_what_the_user_says_comes_first():
    table = table_of("video", "caption", "text_en", "split")
    assert find_columns(table, {"caption": "text_en"}).single == {"video": 0, "caption": 2, "split": 3}
    assert "split" not in find_columns(table, {"split": ""}).single


def test_the_guess_is_told():
    table = table_of("clip", "sentence", "year")
    described = find_columns(table, {}).describe(table)
    assert all(word in described for word in ("t.csv", "video = clip", "caption = sentence", "not used: year"))


@pytest.mark.parametrize("columns", [["caption", "year"], ["video", "year"]])
def test_what_is_missing_is_told(columns: list[str]):
    with pytest.raises(DataError, match=r"t\.csv.*'year'.*--columns"):
        find_columns(table_of(*columns), {})


@pytest.mark.parametrize("given", [{"caption": "text_en"}, {"colour": "caption"}])
def test_a_wrong_choice(given: dict[str, str]):
    with pytest.raises(DataError, match="--columns"):
        check_given([table_of("video", "caption")], given)
