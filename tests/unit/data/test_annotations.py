import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.data.annotations import MAX_CAPTION_WORDS, CaptionTable, ItemTable, check_caption, read_json
from lavender.runtime.errors import DataError

WHERE = "txt_toy.json, train"


@pytest.fixture(scope="session")
def table(caption_table: Callable) -> Callable[[dict], CaptionTable]:
    return lambda captions: caption_table(captions, WHERE)


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_an_object_is_read(tmp_path: Path):
    path = tmp_path / "txt_toy.json"
    path.write_text('{"train": {"a": ["größer 红 🙂"]}, "val": {}}', encoding="utf-8")
    assert read_json(path) == {"train": {"a": ["größer 红 🙂"]}, "val": {}}


def test_a_byte_order_mark_is_passed_over(tmp_path: Path):
    (tmp_path / "txt_toy.json").write_text('{"train": []}', encoding="utf-8-sig")
    assert read_json(tmp_path / "txt_toy.json") == {"train": []}


def test_a_key_that_stands_twice_is_told(tmp_path: Path, log: pytest.LogCaptureFixture):
    """Python's reader drops the first one without a word, and a clip's captions with it."""
    path = tmp_path / "txt_toy.json"
    path.write_text('{"train": {"a": ["one"], "b": ["two"], "a": ["three"]}, "val": {"a": ["four"]}}')
    assert read_json(path) == {"train": {"a": ["three"], "b": ["two"]}, "val": {"a": ["four"]}}
    (record,) = log.records
    told = record.getMessage()
    assert record.levelname == "WARNING"
    assert all(part in told for part in (str(path), "1 key", '"a"'))
    assert '"b"' not in told


def test_keys_that_differ_are_no_news(tmp_path: Path, log: pytest.LogCaptureFixture):
    path = tmp_path / "txt_toy.json"
    path.write_text('{"train": [{"video": "a", "question": "?"}, {"video": "a", "question": "?"}], "val": {"a": {}}}')
    read_json(path)
    assert log.records == []


def test_a_missing_file_says_which_options_to_look_at(tmp_path: Path):
    with pytest.raises(DataError, match=r"txt_x\.json: no such text file; check --data_dir"):
        read_json(tmp_path / "txt_x.json")


@pytest.mark.parametrize(
    ("content", "line", "column"),
    [
        ('{"train": {},\n "val": [1, 2,,]}', 2, 15),
        ('{\n\n  "train": oops\n}', 3, 12),
        ("\n", 2, 1),
        ('{"train": {}', 1, 13),
        ('{"train": {}} x', 1, 15),
    ],
)
def test_broken_json_says_where(tmp_path: Path, content: str, line: int, column: int):
    path = tmp_path / "txt_x.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"^{path}, line {line}, column {column}: not valid JSON") as raised:
        read_json(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"train": "\xff\xfe"}', "byte 11 is not UTF-8 text"),
        (b"[1, 2]", "a JSON object .* is expected, not a list"),
        (b'"text"', "a JSON object .* is expected, not a str"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"train": ' + b"1" * 5000 + b"}", ""),
    ],
    ids=["bytes", "list", "str", "deep", "long number"],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, says: str):
    path = tmp_path / "txt_x.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{path}.*{says}"):
        read_json(path)


# --- captions ---------------------------------------------------------------------------------------------------------


def test_the_first_caption_of_a_video(table: Callable):
    captions = table({"b": ["second video", "again"], "a": ["first video"], "c": "a single one"})
    assert [captions.caption(name) for name in "abc"] == ["first video", "second video", "a single one"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(exclude_characters="./", exclude_categories=["Cs"]), min_size=1),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip),
        max_size=30,
    )
)
def test_any_text_under_any_name(table: Callable, captions: dict[str, str]):
    found = table(captions)
    for name, caption in captions.items():
        assert found.caption(name) == caption


@pytest.mark.parametrize("stored", ["video7010", "video7010.mp4"])
@pytest.mark.parametrize("asked", ["video7010", "video7010.mp4", "clips/video7010.webm"])
def test_ids_match_with_and_without_extension(table: Callable, stored: str, asked: str):
    assert table({stored: ["a dog"], "video701": ["a cat"]}).caption(asked) == "a dog"


def test_the_exact_name_wins(table: Callable):
    for order in (["v", "v.mp4"], ["v.mp4", "v"]):
        captions = table({name: [name] for name in order})
        assert [captions.caption(name) for name in ("v", "v.mp4", "v.avi")] == ["v", "v.mp4", "v"]
    dotted = table({"a.b.mp4": ["dotted"]})
    assert dotted.caption("a.b") == dotted.caption("a.b.mp4") == "dotted"


@pytest.mark.parametrize("captions", [{}, {"a": ["x"], "c": ["z"]}])
@pytest.mark.parametrize("asked", ["b", "", "zz", "0"])
def test_an_unknown_video_is_named(table: Callable, captions: dict, asked: str):
    with pytest.raises(DataError, match=rf'^{WHERE}: no caption for video "{asked}"$'):
        table(captions).caption(asked)


@pytest.mark.parametrize("value", [[], "", [""], "  \n", [None], 5, None, [["nested"]], {"caption": "x"}], ids=repr)
def test_what_is_no_caption_is_a_fault_of_its_video_alone(table: Callable, value: object):
    captions = table({"a": value, "b": ["fine"]})
    with pytest.raises(
        DataError,
        match=rf'^{WHERE}, video "a": the caption is empty( or not text; a text or a list of texts is expected)?$',
    ):
        captions.caption("a")
    assert captions.caption("b") == "fine"


def test_half_a_character_is_a_fault_of_its_video_alone(table: Callable, tmp_path: Path):
    """JSON's escapes can write one half of a surrogate pair, which is no character and has no UTF-8."""
    path = tmp_path / "txt_x.json"
    path.write_text('{"train": {"a": ["cut emoji \\ud83d"], "b": ["fine"]}}')
    captions = table(read_json(path)["train"])
    assert captions.caption("b") == "fine"
    with pytest.raises(DataError, match='video "a"'):
        captions.caption("a")


def test_an_endless_caption_is_refused(table: Callable):
    captions = table({"a": ["word " * 10_000], "b": ["word " * MAX_CAPTION_WORDS]})
    with pytest.raises(DataError, match=r'video "a": the caption has 10,000 words.*1,000'):
        captions.caption("a")
    assert len(captions.caption("b").split()) == MAX_CAPTION_WORDS


def test_check_caption():
    assert check_caption(" as it is ", "x") == " as it is "
    with pytest.raises(DataError, match=r"^x: the caption is not text: null$"):
        check_caption(None, "x")


def test_a_worker_gets_a_whole_table(table: Callable):
    captions = pickle.loads(pickle.dumps(table({"a": ["one"], "ü": ["zwei"]})))
    assert (captions.caption("a"), captions.caption("ü")) == ("one", "zwei")


def test_a_table_is_arrays_that_processes_share_and_not_objects(table: Callable):
    arrays = vars(table({f"video{number}": [f"caption of number {number}"] for number in range(500)})._arrays)
    found = [value for value in arrays.values() if not isinstance(value, bool)]
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in found)
    assert sum(value.nbytes for value in found) < 500 * 70


# --- items ------------------------------------------------------------------------------------------------------------

ITEMS: list[dict] = [
    {"video": "vid0", "question": "größer 红 🙂?", "answer": 3},
    {},
    {"options": ["a", {"deep": [1.5, None, True]}], "": ""},
    {"half a character": "\ud83d", "lines": "one\ntwo\t\x00"},
]


def test_items_come_back_as_they_were_and_in_their_order():
    items = ItemTable(ITEMS)
    assert len(items) == 4
    assert [items[number] for number in range(4)] == ITEMS
    assert [items[number] for number in (3, 0, 3)] == [ITEMS[3], ITEMS[0], ITEMS[3]]


def test_no_items():
    assert len(ItemTable([])) == 0
    assert len(ItemTable(iter(ITEMS))) == 4, "an iterator is read once"


@pytest.mark.parametrize("items", [[], ITEMS])
def test_there_is_no_item_past_the_end(items: list):
    with pytest.raises(IndexError):
        ItemTable(items)[len(items)]


def test_a_changed_item_does_not_change_the_table():
    items = ItemTable(ITEMS)
    items[0]["video"] = "other"
    assert items[0] == ITEMS[0]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(), JSON_VALUES, max_size=4), max_size=5))
def test_any_items(items: list[dict]):
    table = ItemTable(items)
    assert [table[number] for number in range(len(table))] == items


def test_items_are_arrays_that_processes_share_and_not_objects():
    items = ItemTable({"video": f"vid{number}", "answer": number} for number in range(500))
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in vars(items).values())
    assert sum(value.nbytes for value in vars(items).values()) < 500 * 50
    assert pickle.loads(pickle.dumps(items))[321] == {"video": "vid321", "answer": 321}


@pytest.mark.parametrize("text", ["a\nb\x1b[2J", "v" * 10_000_000, "v " * 5_000_000])
def test_ids_and_texts_are_quoted_in_short_and_in_one_line(caption_table: Callable, text: str):
    table = caption_table({"b": ["x"], f"1/{text}/c": ["x"], f"2/{text}/c": ["x"]}, "txt.json, train")
    faults = []
    for ask in (lambda: table.caption(text), lambda: table.caption("c"), lambda: check_caption([text], "txt.json")):
        with pytest.raises(DataError) as raised:
            ask()
        faults.append(str(raised.value))
    assert all(fault.isprintable() and len(fault) < 500 and fault.startswith("txt.json") for fault in faults)
