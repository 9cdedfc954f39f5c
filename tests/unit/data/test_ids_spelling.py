"""One id in several spellings is one video; ids that are merely alike are not."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from lavender.data.ids import HeldOut, VideoIds, may_be_same, plain, unfit
from lavender.data.index import VideoIndex, write_id2lineidx
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import DataError
from tests.unit.data.caption_world import TWO, annotations, fault, frames, lay_in

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
SPELLINGS = [  # the file's id, and how another file spells it
    (DECOMPOSED, COMPOSED),
    (COMPOSED, DECOMPOSED),
    (f"d/{DECOMPOSED}.mp4", COMPOSED),
    (COMPOSED, f"d/{DECOMPOSED}.MP4"),
    ("x.mp4.mp4", "x.mp4"),
    ("x.mp4.mp4", "x"),
    ("x.mp4", "x.mp4.MP4"),
    ("x", "x.mp4.mp4"),
    (r"d\x", "d/x.mp4"),
    ("d/x", "./d//x"),
    ("x", "./x.mp4"),
    ("./x", "x"),
    ("x.dv", "x"),
    ("x", "x.HEVC"),
]


@pytest.mark.parametrize(("name", "asked"), SPELLINGS)
def test_spellings_of_one_id(caption_table: Callable, tmp_path: Path, name: str, asked: str):
    ids = [name, "other"]
    assert VideoIds(ids, "x.tsv").find(asked) == name
    assert may_be_same(name, asked)
    assert may_be_same(asked, name)
    assert asked in HeldOut([name])
    assert caption_table({name: ["its own"], "other": ["another's"]}, "t").caption(asked) == "its own"
    with TSVWriter(tmp_path / "x.tsv") as writer:
        for number, video in enumerate(ids):
            writer.write([video, str(number)])
    reader = TSVReader(tmp_path / "x.tsv")
    for _ in ("built from the TSV", "read from the pickle"):
        assert reader.row_at(VideoIndex(tmp_path / "x.tsv").offset(asked)) == [name, "0"]
        write_id2lineidx(tmp_path / "x.tsv", tmp_path / "x.id2lineidx.pkl")


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["Clip1"], "clip1"),
        (["7"], "007"),
        (["7"], "7.0"),
        (["x "], "x"),
        (["a/b/x"], "b/x"),
        (["clip.10"], "clip.1"),
        (["x.mp4v"], "x"),
        (["1e5"], "100000"),
    ],
)
def test_what_is_merely_alike_is_not_used(caption_table: Callable, names: list[str], asked: str):
    assert VideoIds(names, "x.tsv").find(asked) is None
    assert not may_be_same(names[0], asked)
    with pytest.raises(DataError, match="no caption"):
        caption_table({names[0]: ["one"]}, "t").caption(asked)


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        ([COMPOSED, DECOMPOSED], DECOMPOSED, DECOMPOSED),
        (["x", "x.mp4", "x.mp4.mp4"], "x.mp4.mp4", "x.mp4.mp4"),
        (["x.mp4", "x.mp4.mp4"], "x", "x.mp4"),
        (["x.avi", "x.mp4.mp4"], "x.mp4", None),
        ([f"a/{COMPOSED}", f"b/{DECOMPOSED}"], COMPOSED, None),
    ],
)
def test_the_exact_id_first_and_never_one_of_two(names: list[str], asked: str, found: str | None):
    if found is not None:
        assert VideoIds(names, "x.tsv").find(asked) == found
        return
    with pytest.raises(DataError) as raised:
        VideoIds(names, "x.tsv").find(asked)
    assert all(repr(name) in str(raised.value) for name in names)


def test_an_index_never_names_one_row_by_the_id_of_another(tmp_path: Path):
    with TSVWriter(tmp_path / "x.tsv") as writer:
        for video in ("x.mp4.mp4", "x.mp4", "y.mp4"):
            writer.write([video, video])
    assert write_id2lineidx(tmp_path / "x.tsv", tmp_path / "x.id2lineidx.pkl") == 3
    assert sorted(pickle.loads((tmp_path / "x.id2lineidx.pkl").read_bytes())) == ["x", "x.mp4.mp4", "y"]
    index, reader = VideoIndex(tmp_path / "x.tsv"), TSVReader(tmp_path / "x.tsv")
    assert all(reader.row_at(index.offset(video))[0] == video for video in ("x.mp4.mp4", "x.mp4", "y.mp4"))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("Video0", "video0"),
        ("x", "x "),
        ("x\u200b", "x"),
        ("x", "\ufeffx"),
        ("007", "7"),
        ("clip_007", "clip_7"),
        ("7", "7.0"),
        ("d/x", "/data/d/x.mp4"),
        ("x.mp4", "x.mp4?t=1"),
    ],
)
def test_the_id_that_is_probably_meant_is_named(tmp_path: Path, name: str, asked: str):
    assert repr(name) in VideoIds([name, "other"], "x.tsv").hint(asked)
    with TSVWriter(tmp_path / "x.tsv") as writer:
        writer.write([name, "/9j/"])
    with pytest.raises(DataError) as raised:
        VideoIndex(tmp_path / "x.tsv").offset(asked)
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize("asked", ["video1", "video", "", " ", "/"])
def test_no_id_is_named_without_reason(asked: str):
    assert VideoIds(["video0", "video00x"], "x.tsv").hint(asked) == ""


def test_captioning_names_the_id_that_is_probably_meant(tmp_path: Path):
    path = lay_in(tmp_path)(x_img_tsv=frames("Vid0", "other", "vid1"))
    assert "'vid0'" in fault(path)
    assert "'Vid0'" in fault(path)


def test_captioning_matches_decomposed_names(tmp_path: Path):
    from lavender.data.caption_folder import CaptionFolder

    captions = {COMPOSED: TWO["vid0"], "vid1": TWO["vid1"]}
    path = lay_in(tmp_path)(x_img_tsv=frames("vid1", DECOMPOSED), x_caption_tsv=annotations(captions))
    assert CaptionFolder(path).frame_rows.tolist() == [[0, 1], [0, 0]]


def test_plain_is_stable():
    for name in ("a/b.1.mp4", r".\a\b", DECOMPOSED, "x.mp4.mp4", ".mp4", "a.mp4/b", ""):
        assert plain(plain(name)) == plain(name)


@pytest.mark.parametrize(
    "video", ["", " ", "\u3000", "a\tb", "a\nb", "a\r", "a\0", "\udcff.mp4", json.loads('"\\ud83d"')]
)
def test_what_no_row_can_begin_with(tmp_path: Path, video: str):
    assert unfit(video)
    with TSVWriter(tmp_path / "x.tsv") as writer, pytest.raises(DataError, match=r"x\.tsv.*video id"):
        writer.write([video, "b"])


@pytest.mark.parametrize("video", ["-", "a b ", '"', "é", "1e5", "null", "a,b;c", "😀", "مرحبا"])
def test_what_a_row_can_begin_with(tmp_path: Path, video: str):
    with TSVWriter(tmp_path / "x.tsv") as writer:
        writer.write([video, "b"])
    assert TSVReader(tmp_path / "x.tsv").row(0) == [video, "b"]
    assert video in VideoIndex(tmp_path / "x.tsv")
