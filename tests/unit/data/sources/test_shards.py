import json
import logging
import os
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.data.items import open_frames
from lavender.data.sources import shard_index
from lavender.data.sources.shards import ShardSource
from lavender.data.video import sample_frames
from lavender.runtime.errors import DataError
from tests.unit.data.sources.shard_world import add, failed, picture, png, write_shard
from tests.unit.data.test_video import write_clip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lavender" / "shards"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of `img2dataset`, of three and two samples."""
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shard(folder / "00000.tar", {f"00000{n}": picture(20 * n, f"picture {n}") for n in (2, 0, 1)})
    write_shard(folder / "00001.tar", {f"00001{n}": picture(100 + 20 * n, f"photo {n}") for n in (0, 1)})
    return folder


def ids(source: ShardSource) -> list[str]:
    return [source.video_id(number) for number in range(len(source))]


def grey(source: ShardSource, number: int) -> int:
    (frame,) = source.video(number).frames([0])
    return int(frame[0, 0, 0])


def test_samples_are_in_the_order_of_the_shards(folder: Path):
    source = pickle.loads(pickle.dumps(ShardSource(folder)))
    assert ids(source) == ["000002", "000000", "000001", "000010", "000011"]
    assert [grey(source, number) for number in range(5)] == [40, 0, 20, 100, 120]
    assert [source.caption(number) for number in (0, 4)] == ["picture 2", "photo 1"]
    assert source.has_captions
    assert source.where(3) == f"{folder / '00001.tar'}, sample '000010'"
    assert source.find("000011.jpg").video_id == "000011"
    assert source.find("000011").frames([0])[0][0, 0, 0] == 120


def test_videos_with_what_video2dataset_writes(tmp_path: Path):
    pytest.importorskip("av")
    clip = write_clip(tmp_path / "a.mp4", 30)
    facts = json.dumps({"caption": "from json", "status": "success", "duration": 1.2})
    source = ShardSource(
        write_shard(
            tmp_path / "00000.tar",
            {
                "00000_0": {"mp4": clip.read_bytes(), "json": facts, "txt": "from txt", "jpg": b"a thumbnail"},
                "00000_1": failed("gone"),
                "00000_2": {"mp4": clip.read_bytes(), "json": facts, "m4a": b"sound"},
            },
        ),
        stored_frames=3,
    )
    assert ids(source) == ["00000_0", "00000_2"]
    assert [source.caption(number) for number in (0, 1)] == ["from txt", "from json"]
    plain = sample_frames(clip, 3)
    assert len(source.video(0)) == 3
    for found, number in zip(source.video(1).frames([2, 0, 2]), (2, 0, 2), strict=True):
        np.testing.assert_array_equal(found, plain[number])


def test_failed_downloads_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    source = ShardSource(write_shard(tmp_path / "a.tar", {"1": failed("x"), "2": picture(9, "y"), "3": failed("z")}))
    assert ids(source) == ["2"]
    assert "2 without frames" in caplog.text
    with pytest.raises(DataError, match=r"b\.tar.*no sample"):
        ShardSource(write_shard(tmp_path / "b.tar", {"1": failed("x")}))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_all_tar_formats(tmp_path: Path, form: int):
    long = "a/" + "/".join(["very_long_folder_name"] * 6) if form != tarfile.USTAR_FORMAT else "a/b"
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
        directory = tarfile.TarInfo("folder.jpg")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        add(tar, f"{long}/x.1.b.png", png(7))
        add(tar, "._y.png", b"what macOS adds")
        add(tar, "sub/._y.png", b"what macOS adds")
        add(tar, "./y.PNG", png(8))
        add(tar, "noextension", b"")
        add(tar, ".hidden.png", b"")
        if form != tarfile.USTAR_FORMAT:
            add(tar, "é" * 80 + ".png", png(9))
    source = ShardSource(tmp_path / "a.tar")
    assert ids(source)[:2] == [f"{long}/x", "y"]
    assert [grey(source, number) for number in range(len(source))] == [7, 8, 9][: len(source)]
    assert len(source) == (2 if form == tarfile.USTAR_FORMAT else 3)


def test_several_images_are_the_frames_of_one_video(tmp_path: Path):
    frames: dict[str, bytes | str] = {f"{number}.png": png(number) for number in (10, 9, 1)}
    source = ShardSource(write_shard(tmp_path / "a.tar", {"clip": frames}))
    assert len(source.video(0)) == 3
    assert [int(frame[0, 0, 0]) for frame in source.video(0).frames([0, 1, 2])] == [1, 9, 10]


@pytest.mark.parametrize("kind", ["mp4", "MKV"])
def test_a_dot_within_a_name_never_makes_one_video_of_two(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture):
    """A key ends at the first dot: both would be `film_00`, and one of them would be gone."""
    pytest.importorskip("av")
    clip = write_clip(tmp_path / "a.mp4", 10).read_bytes()
    two = write_shard(tmp_path / "a.tar", {"film_00": {f"10.5.{kind}": clip, f"30.5.{kind}": clip}, "x": {"mp4": clip}})
    with pytest.raises(DataError, match=rf"a\.tar: 'film_00\.10\.5\.{kind.lower()}' and 'film_00\.30\.5"):
        ShardSource(two)
    write_shard(tmp_path / "b.tar", {"y.1": {"mp4": clip}, "z": {"mp4": clip, "webm": clip, "thumb.mp4": clip}})
    assert ids(ShardSource(tmp_path / "b.tar")) == ["y", "z"]
    assert ids(ShardSource(str(tmp_path / "{a,b}.tar"), tolerant=True)) == ["y", "z"]
    assert "film_00" in caplog.text


# --- captions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ("no caption",)),
        ({"txt": ""}, ("caption", "empty")),
        ({"txt": b"\xff\xfe"}, ("UTF-8",)),
        ({"json": "{"}, (".json", "line 1")),
        ({"json": '{"caption": null}'}, ("caption", "null")),
        ({"json": "[]"}, ("caption",)),
    ],
)
def test_captions_that_are_none(tmp_path: Path, files: dict, words: tuple[str, ...]):
    source = ShardSource(write_shard(tmp_path / "a.tar", {"x": {"png": png(1), **files}}))
    with pytest.raises(DataError) as raised:
        source.caption(0)
    assert f"{tmp_path / 'a.tar'}, sample 'x'" in str(raised.value)
    assert all(word in str(raised.value) for word in words)
    assert source.has_captions == bool(files)


def test_a_list_of_captions_gives_the_first(tmp_path: Path):
    source = ShardSource(write_shard(tmp_path / "a.tar", {"x": {"png": png(1), "json": '{"caption": ["a", "b"]}'}}))
    assert source.caption(0) == "a"


# --- the index --------------------------------------------------------------------------------------------------------


def test_the_index_is_built_once_and_again_when_the_tar_changes(folder: Path, monkeypatch: pytest.MonkeyPatch):
    built = []
    plain = shard_index.build_index
    monkeypatch.setattr(shard_index, "build_index", lambda tar: built.append(tar.name) or plain(tar))
    first = ShardSource(folder)
    assert sorted(built) == ["00000.tar", "00001.tar"]
    assert sorted(file.name for file in folder.iterdir()) == [
        *("00000.tar", "00000.tar.index.npz", "00001.tar", "00001.tar.index.npz"),
    ]
    assert ids(ShardSource(folder)) == ids(first)
    assert len(built) == 2
    before = first.stamps()
    write_shard(folder / "00001.tar", {"new": picture(3, "n")})
    assert ids(ShardSource(folder)) == [*ids(first)[:3], "new"]
    assert built[2:] == ["00001.tar"]
    assert ShardSource(folder).stamps() != before
    os.utime(folder / "00000.tar", ns=(1, 1))
    ShardSource(folder)
    assert built[3:] == ["00000.tar"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x93NUMPY\x01", b"text", None])
def test_a_broken_index_is_built_again(folder: Path, content: bytes | None):
    expected = ids(ShardSource(folder))
    index = folder / "00000.tar.index.npz"
    index.write_bytes(index.read_bytes()[:-100] if content is None else content)
    assert ids(ShardSource(folder)) == expected


def test_an_index_that_points_outside_the_tar_is_built_again(folder: Path):
    source = ShardSource(folder)
    index = folder / "00000.tar.index.npz"
    with np.load(index) as stored:
        arrays = dict(stored)
    arrays["files"][:, 0] += 10**9
    np.savez(index, **arrays)
    assert grey(ShardSource(folder), 0) == grey(source, 0)


def test_where_the_folder_is_read_only_the_index_is_in_the_cache(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    plain = shard_index.atomic_file

    def refuse(path: Path):
        if path.parent == folder:
            raise PermissionError(13, "read-only", str(path))
        return plain(path)

    monkeypatch.setattr(shard_index, "atomic_file", refuse)
    expected = ids(ShardSource(folder))
    assert len(list(folder.iterdir())) == 2
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(shard_index, "build_index", lambda tar: pytest.fail("it is built twice"))
    assert ids(ShardSource(folder)) == expected
    assert "indices" not in caplog.text


def test_where_no_index_can_be_kept_it_is_in_memory(folder: Path, cache: Path, monkeypatch, caplog):
    def refuse(path: Path):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr(shard_index, "atomic_file", refuse)
    assert len(ShardSource(folder)) == 5
    assert "2 shards" in caplog.text
    assert str(cache) in caplog.text


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_processes_begin_at_other_shards_and_see_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch, rank: int):
    built = []
    plain = shard_index.build_index
    monkeypatch.setattr(shard_index, "build_index", lambda tar: built.append(tar.name) or plain(tar))
    monkeypatch.setattr(shard_index, "rank", lambda: rank)
    monkeypatch.setattr(shard_index, "world_size", lambda: 3)
    assert ids(ShardSource(folder)) == ["000002", "000000", "000001", "000010", "000011"]
    assert built[0] == ("00001.tar" if rank == 2 else "00000.tar")


def test_a_shard_that_another_process_is_indexing_is_waited_for(folder: Path):
    """A second process holds the lock of the first shard for a while; its index is then the one that is used."""
    import fcntl
    import threading

    built = threading.Event()
    with open(folder / "00000.tar", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def other_process() -> None:
            while not (folder / "00001.tar.index.npz").exists():  # the second shard is not waited for
                built.wait(0.01)
            assert not (folder / "00000.tar.index.npz").exists()
            fcntl.flock(held, fcntl.LOCK_UN)
            built.set()

        thread = threading.Thread(target=other_process)
        thread.start()
        assert len(ShardSource(folder)) == 5
        thread.join()
    assert built.is_set()


# --- what is not as it should be --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "whole"),
    [(18, 2), (14.5, 2), (12, 1), (6.3, 0), (1.5, 0)],  # a sample has 6 blocks of 512 bytes, its picture the first 2
)
def test_a_cut_shard(folder: Path, blocks: float, whole: int, caplog: pytest.LogCaptureFixture):
    """The last sample may lack files, so it is left out, too."""
    content = (folder / "00000.tar").read_bytes()
    assert content[6 * 512 :].startswith(b"000000.png"), "the second sample begins there"
    (folder / "00000.tar").write_bytes(content[: int(blocks * 512)])
    with pytest.raises(DataError, match=rf"00000\.tar is cut after {whole} .*--on_bad_sample zero"):
        ShardSource(folder)
    source = ShardSource(folder, tolerant=True)
    assert ids(source) == [*("000002", "000000")[:whole], "000010", "000011"]
    assert "00000.tar is cut" in caplog.text


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133466304\n", "git lfs pull"),
        (b"", "empty"),
        (b"\x1f\x8b\x08" + bytes(600), "gunzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "unzstd"),
        (b"no tar at all" * 100, "no tar"),
        (b"short", "no tar"),
    ],
)
def test_what_is_no_tar(folder: Path, content: bytes, word: str, caplog: pytest.LogCaptureFixture):
    (folder / "00000.tar").write_bytes(content)
    with pytest.raises(DataError) as raised:
        ShardSource(folder)
    assert str(folder / "00000.tar") in str(raised.value)
    assert word in str(raised.value)
    assert ids(ShardSource(folder, tolerant=True)) == ["000010", "000011"]
    assert word in caplog.text


def test_a_pipe_is_not_waited_for(folder: Path):
    os.mkfifo(folder / "00002.tar")
    with pytest.raises(DataError, match=r"00002\.tar.*pipe"):
        ShardSource(folder)


def test_a_shard_that_is_missing(folder: Path):
    with pytest.raises(DataError, match=r"00002\.tar"):
        ShardSource(folder / "{00000..00002}.tar")
    assert len(ShardSource(folder / "{00000..00002}.tar", tolerant=True)) == 5


def test_keys_of_two_shards(folder: Path):
    write_shard(folder / "00002.tar", {"000001": picture(200, "another one")})
    source = ShardSource(folder)
    assert (grey(source, 2), grey(source, 5)) == (20, 200), "sampled by their numbers, they do no harm"
    with pytest.raises(DataError, match=r"00002\.tar.*00000\.tar.*"):
        source.find("000000")
    with pytest.raises(DataError, match=r"00002\.tar"):
        source.check_ids()


def test_a_video_that_cannot_be_decoded_and_a_tar_that_shrinks(tmp_path: Path):
    pytest.importorskip("av")
    tar = write_shard(tmp_path / "a.tar", {"x": {"mp4": b"no video"}, "y": {"png": b"no image"}, "z": {"mp4": b""}})
    source = ShardSource(tar)
    for number, key in enumerate("xyz"):
        with pytest.raises(DataError, match=rf"a\.tar, sample '{key}'"):
            source.video(number).frames([0])
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(DataError, match=r"a\.tar, sample 'y'.*shorter"):
        source.video(1).frames([0])
    tar.unlink()
    with pytest.raises(DataError, match=r"a\.tar, sample 'y'.*No such file"):
        source.video(1).frames([0])


def test_downstream_tasks_find_samples_by_their_keys(folder: Path, tmp_path: Path):
    options = Config(dataset="d", data_dir=str(tmp_path), frame_source="shards", shards=str(folder))
    assert open_frames(options).find("000011").video_id == "000011"
    assert isinstance(open_frames(replace(options, frame_source="auto")), ShardSource)
    assert isinstance(open_frames(replace(options, shards={"d": str(folder)})), ShardSource)
