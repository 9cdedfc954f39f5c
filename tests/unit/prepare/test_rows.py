"""Rows of tables, in their splits."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lavender.prepare.columns import find_columns
from lavender.prepare.rows import Rows, check_splits, leave_out_unanswered, read_rows, share_out
from lavender.prepare.table import Table
from lavender.runtime.errors import DataError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
VIDEOS = [f"v{number}" for number in range(10)]


def rows_of(
    columns: str, *rows: Sequence[str], videos: Sequence[str] = VIDEOS, answers_from: int | None = None
) -> Rows:
    table = Table(Path("t.csv"), columns.split(), [(number, list(row)) for number, row in enumerate(rows, start=2)])
    return read_rows([(table, find_columns(table, {}))], videos, "clips", answers_from)


def test_videos_are_known_with_their_extension_and_without():
    rows = rows_of("video caption", ("v1.mp4", "a"), ("v2", "b"), ("clips/v3.MKV", "c"))
    assert [item["video"] for item in rows.captions] == ["v1", "v2", "v3"]


def test_rows_that_cannot_be_used_are_counted_by_kind():
    rows = rows_of("video caption", ("v1", "a"), ("none", "b"), ("", "c"), ("v2", ""), ("gone", "d"))
    assert [item["video"] for item in rows.captions] == ["v1"]
    told = "\n".join(rows.report())
    assert "2 rows left out: the video is not there; the first: t.csv, line 3, 'none'" in told
    assert all(word in told for word in ("no video is named", "line 4", "the text is empty", "line 5"))


def test_no_row_can_be_used():
    with pytest.raises(DataError, match=r"t\.csv.*none of its 1 rows.*v99"):
        rows_of("video caption", ("v99", "a"))


def test_captions_of_numbers():
    with pytest.raises(DataError, match=r"t\.csv.*'caption'.*numbers.*--columns"):
        rows_of("video caption", ("v1", "1"), ("v2", "2.5"))
    assert rows_of("video caption", ("v1", "1"), ("v2", "two dogs")).captions


def test_several_captions_in_a_cell():
    rows = rows_of("video caption", ("v1", '["one", " two "]'), ("v2", "[music] plays"))
    assert [item["caption"] for item in rows.captions] == ["one", "two", "[music] plays"]
    rows = rows_of("video caption", ("v1", '["", null, "one", NaN]'), ("v2", "[None, 'two']"))
    assert [item["caption"] for item in rows.captions] == ["one", "two"]


@pytest.mark.parametrize(
    ("answers", "numbers"),
    [
        (["cat", "DOG", "bird"], [1, 0, 2]),
        (["0", "1", "2"], [0, 1, 2]),
        (["1", "2", "3"], [0, 1, 2]),
        (["A", "b.", "(c)"], [0, 1, 2]),
        (["0", "1", ""], [0, 1, None]),
    ],
)
def test_what_an_answer_means(answers: list[str], numbers: list[int | None]):
    rows = rows_of("video question a0 a1 a2 answer", *(("v1", "q", "dog", "cat", "bird", answer) for answer in answers))
    assert [item["answer"] for item in rows.choices] == numbers


def test_options_that_are_numbers():
    """The column says what its answers are: all of them are texts of options, or they count."""
    head = "video question a0 a1 a2 answer"
    by_text = rows_of(head, ("v1", "q", "3", "2", "1", "2"), ("v2", "q", "1", "2", "3", "3"))
    assert [item["answer"] for item in by_text.choices] == [1, 2]
    by_number = rows_of(head, ("v1", "q", "3", "2", "1", "0"), ("v2", "q", "1", "2", "3", "2"))
    assert [item["answer"] for item in by_number.choices] == [0, 2]


def test_numbers_that_may_count_from_0_or_1():
    head, row = "video question a0 a1 a2 answer", ("v1", "q", "dog", "cat", "bird", "1")
    with pytest.raises(DataError, match="--answers_from"):
        rows_of(head, row)
    assert rows_of(head, row, answers_from=0).choices[0]["answer"] == 1
    assert rows_of(head, row, answers_from=1).choices[0]["answer"] == 0
    with pytest.raises(DataError, match="from 0 to 3"):
        rows_of(head, (*row[:-1], "0"), (*row[:-1], "3"))
    with pytest.raises(DataError, match="from 1 to 3"):
        rows_of(head, (*row[:-1], "1"), (*row[:-1], "3"), answers_from=0)


def test_one_bad_row_does_not_change_the_reading():
    """Options are numbers, and so are answers: most of them are texts of options, so all are."""
    head = "video question a0 a1 a2 a3 answer"
    options = ("2", "3", "4", "5")
    rows = rows_of(head, *(("v1", "q", *options, answer) for answer in ("3", "4", "2", "4", "3", "7")))
    assert [item["answer"] for item in rows.choices] == [1, 2, 0, 2, 1]
    assert "line 7, '7'" in "\n".join(rows.report())
    assert "read as texts; '3' is '3'" in rows.notes[0]
    letters = rows_of(head, *(("v1", "q", *"CADB", answer) for answer in "ABD"))
    assert [item["answer"] for item in letters.choices] == [1, 3, 2]  # texts explain as many as letters do


def test_blank_options_keep_their_place():
    head = "video question a1 a2 a3 a4 answer"
    rows = rows_of(head, ("v1", "q", "red", "", "blue", "grey", "C"), ("v2", "q", "red", "", "blue", "grey", "B"))
    assert [(item["options"], item["answer"]) for item in rows.choices] == [(["red", "blue", "grey"], 1)]
    rows = rows_of(head, ("v1", "q", "red", "", "blue", "grey", "4"), ("v2", "q", "red", "", "blue", "grey", "1.0"))
    assert [item["answer"] for item in rows.choices] == [2, 0]


@pytest.mark.parametrize("blank", ['""', "null", '" "', "NaN"])
def test_blank_options_of_a_list_keep_their_place(blank: str):
    options = f'["red", {blank}, "blue", "grey"]'
    rows = rows_of("video question options answer", ("v1", "q", options, "2"), ("v2", "q", options, "0"))
    assert [item["options"] for item in rows.choices] == [["red", "blue", "grey"]] * 2
    assert [item["options"][item["answer"]] for item in rows.choices] == ["blue", "red"]


def test_a_video_that_could_be_two_is_told_with_its_line():
    with pytest.raises(DataError, match=r"t\.csv, line 3: clips: 'x' could be 'S1/x' or 'S2/x'"):
        rows_of("video caption", ("S1/x", "a"), ("x", "b"), videos=["S1/x", "S2/x"])


@pytest.mark.parametrize("cell", ['{"en": "x"}', '[["a"], "b"]', '[{"text": "a"}]', "half \ud83d"])
def test_cells_that_are_no_text(cell: str):
    rows = rows_of("video caption", ("v1", cell), ("v2", "good"))
    assert [item["video"] for item in rows.captions] == ["v2"]
    assert "1 rows left out" in rows.report()[0]


def test_lists_as_python_writes_them():
    rows = rows_of("video caption", ("v1", "['a man walks', 'a dog']"))
    assert [item["caption"] for item in rows.captions] == ["a man walks", "a dog"]


def test_several_answers_are_none():
    rows = rows_of("video question answer", ("v1", "q", '["yes", "no"]'), ("v2", "q", '["yes"]'))
    assert [item["answer_text"] for item in rows.questions] == ["yes"]


def test_videos_that_were_drawn_keep_their_split():
    first = rows_of("video caption", *((video, "a") for video in VIDEOS))
    drawn = share_out(first, SHARES, 42, {})
    more = [*VIDEOS, "w1", "w2", "a0"]
    second = rows_of("video caption", *((video, "a") for video in more), videos=more)
    again = share_out(second, SHARES, 42, drawn)
    assert drawn.items() <= again.items()
    assert set(again) == set(more)


def test_choices_that_do_not_fit_are_left_out():
    head = "video question options answer"
    rows = rows_of(head, ("v1", "q", '["a b", "c"]', "c"), ("v2", "q", '["a"]', "a"), ("v3", "q", '["x", "y"]', "z"))
    assert [item["video"] for item in rows.choices] == ["v1"]
    told = "\n".join(rows.report())
    assert all(word in told for word in ("fewer than 2 options", "line 3", "none of the options", "'z'"))


@pytest.mark.parametrize("name", ["validation", "Dev", " VAL "])
def test_names_of_splits(name: str):
    assert rows_of("video caption split", ("v1", "a", name)).captions[0]["split"] == "val"


def test_an_unknown_split():
    with pytest.raises(DataError, match=r"t\.csv, line 2.*'rest'"):
        rows_of("video caption split", ("v1", "a", "rest"))


def test_whole_videos_are_shared_out():
    pairs = [(video, text) for text in ("a", "b") for video in VIDEOS]
    rows, again, other = (rows_of("video caption", *pairs) for _ in range(3))
    for some, seed in ((rows, 1), (again, 1), (other, 2)):
        share_out(some, SHARES, seed, {})
    of = {item["video"]: item["split"] for item in rows.captions}
    assert all(of[item["video"]] == item["split"] for item in rows.captions)
    assert sorted(of.values()) == ["test"] + 8 * ["train"] + ["val"]
    assert rows.captions == again.captions != other.captions


@pytest.mark.parametrize(("videos", "splits"), [(1, {"train"}), (2, {"train", "val"}), (3, {"train", "val", "test"})])
def test_few_videos(videos: int, splits: set[str]):
    rows = rows_of("video caption", *((video, "a") for video in VIDEOS[:videos]))
    share_out(rows, SHARES, 42, {})
    assert {item["split"] for item in rows.captions} == splits


def test_a_split_that_is_given_holds_for_all_tables():
    captions = Table(Path("c.csv"), ["video", "caption", "split"], [(2, ["v1", "a", "test"])])
    questions = Table(Path("q.csv"), ["video", "question", "answer"], [(2, ["v1", "q", "x"]), (3, ["v2", "q", "y"])])
    rows = read_rows([(table, find_columns(table, {})) for table in (captions, questions)], VIDEOS, "clips")
    share_out(rows, SHARES, 42, {})
    assert [item["split"] for item in rows.questions] == ["test", "train"]


def test_a_video_of_two_splits():
    rows = rows_of("video caption split", ("v1", "a", "train"), ("v1", "b", "test"))
    with pytest.raises(DataError, match=r"'v1'.*train.*test"):
        share_out(rows, SHARES, 42, {})


def test_only_test_items_may_lack_an_answer():
    head = "video question answer split"
    rows = rows_of(head, ("v1", "q", "x", "train"), ("v2", "q", "", "train"), ("v3", "q", "", "test"))
    share_out(rows, SHARES, 42, {})
    leave_out_unanswered(rows)
    assert [item["video"] for item in rows.questions] == ["v1", "v3"]
    assert "line 3" in "\n".join(rows.report())


def test_one_split_alone():
    rows = rows_of("video caption split", ("v1", "a", "train"), ("v2", "a", "train"))
    with pytest.raises(DataError, match=r"train.*--columns split="):
        check_splits(rows)
    check_splits(rows_of("video caption split", ("v1", "a", "test")))
