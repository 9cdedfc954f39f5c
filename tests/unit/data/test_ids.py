from collections.abc import Callable

import pytest

from lavender.data.ids import HeldOut, VideoIds, file_name, may_be_same, without_extension
from lavender.data.sources.tsv import TSVSource
from lavender.data.tsv import TSVWriter
from lavender.runtime.errors import DataError


@pytest.mark.parametrize(
    ("video_id", "bare"),
    [
        ("a/clip.1.MP4", "a/clip.1"),
        ("clip.1", "clip.1"),
        ("film_00.10.5", "film_00.10.5"),
        ("x.webm", "x"),
        ("photo.JPEG", "photo"),
        (".mp4", ".mp4"),
        ("a/.mp4", "a/.mp4"),
        ("a.mp4/b", "a.mp4/b"),
        ("", ""),
    ],
)
def test_only_known_extensions_are_dropped(video_id: str, bare: str):
    assert without_extension(video_id) == bare


def test_file_names():
    assert [file_name(name) for name in ("a/b/c.mp4", r"a\b\c.1", "c")] == ["c", "c.1", "c"]


@pytest.mark.parametrize(
    ("names", "video_id", "found"),
    [
        (["a", "a.mp4"], "a.mp4", "a.mp4"),
        (["a", "a.mp4"], "a.avi", "a"),
        (["a.mp4"], "a", "a.mp4"),
        (["a.MOV"], "a.mp4", "a.MOV"),
        (["clip.1", "clip.2"], "clip.3", None),
        (["clip.1", "clip.2"], "clip", None),
        (["talk_1.0_2.5"], "talk_1.0_2.7", None),
        (["a"], "videos/a.mp4", "a"),
        (["videos/a.mp4"], "a", "videos/a.mp4"),
        (["one/a"], "two/a", None),
        (["one/b", "a"], "two/a", None),  # both sides have folders
    ],
)
def test_lookup(names: list[str], video_id: str, found: str | None):
    assert VideoIds(names, "x.tsv").find(video_id) == found


@pytest.mark.parametrize(
    ("names", "video_id"), [(["one/a", "two/a"], "a"), (["a.mp4", "a.avi"], "a"), (["a.mp4", "a.avi"], "a.mkv")]
)
def test_what_could_be_two_videos_is_an_error_that_names_both(names: list[str], video_id: str):
    with pytest.raises(DataError) as raised:
        VideoIds(names, "x.tsv").find(video_id)
    assert all(f"{name!r}" in str(raised.value) for name in (*names, video_id))
    assert "x.tsv" in str(raised.value)


def test_two_videos_never_share_one_by_its_file_name():
    ids = VideoIds(["clip_00"], "x.tsv")
    assert [ids.find("S01E01/clip_00"), ids.find("S01E01/clip_00.mp4"), ids.find("clip_00")] == ["clip_00"] * 3
    with pytest.raises(DataError, match=r"S01E01/clip_00.*S01E02/clip_00"):
        ids.find("S01E02/clip_00")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "x/a.mp4", True),
        ("x/a", "y/a", False),
        ("a.1", "a.2", False),
        ("a.mp4", "a.webm", True),
        ("a", "b", False),
    ],
)
def test_pairs(one: str, other: str, same: bool):
    assert may_be_same(one, other) is may_be_same(other, one) is same


def test_held_out_videos():
    held_out = HeldOut(["film.9", "x/a.mp4", "b"])
    assert all(name in held_out for name in ("film.9.mp4", "x/a", "a", "a.avi", "y/b", "b.mp4"))
    assert not any(name in held_out for name in ("film.1", "film", "y/a", "c"))


def test_a_caption_is_never_anothers(caption_table: Callable):
    captions = caption_table({"clip.1": ["one"], "x.mp4": ["two"], "y.mp4": ["3"], "y.avi": ["4"]}, "txt.json, train")
    assert (captions.caption("clip.1.mp4"), captions.caption("x"), captions.caption("d/x.avi")) == ("one", "two", "two")
    for unknown in ("clip.2", "clip", "z"):
        with pytest.raises(DataError, match="no caption"):
            captions.caption(unknown)
    with pytest.raises(DataError, match=r"'y' could be 'y\.mp4' or 'y\.avi'"):
        captions.caption("y")


def test_captions_whose_ids_have_folders(caption_table: Callable):
    captions = caption_table({"S1/a": "one", "S2/a.mp4": "two", "S1/b": "three"}, "txt.json, train")
    assert (captions.caption("S2/a"), captions.caption("b.mp4")) == ("two", "three")
    with pytest.raises(DataError, match="no caption"):
        captions.caption("S3/b")
    with pytest.raises(DataError, match=r"could be 'S1/a' or 'S2/a\.mp4'"):
        captions.caption("a")


def test_frames_whose_file_names_share_a_caption_are_refused(caption_table: Callable, tmp_path):
    with TSVWriter(tmp_path / "x.tsv") as writer:
        for name in ("S1/a", "S2/a", "S2/b"):
            writer.write([name, "/9j/"])
    frames = TSVSource(tmp_path / "x.tsv")
    caption_table({"b": "one", "S1/a": "two", "S2/a": "3"}, "t").check_file_names(frames)
    with pytest.raises(DataError, match=r"x\.tsv, line 2.*'a'.*'S1/a'.*'S2/a'"):
        caption_table({"a": "one", "b": "two"}, "t").check_file_names(frames)
