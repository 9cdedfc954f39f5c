"""Clips of people's folders, and the frames that are stored of them."""

import base64
import io
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lavender.prepare.frames
from lavender.data.frames import MAX_PIXELS
from lavender.data.tsv import TSVReader
from lavender.data.video import extract_frames
from lavender.prepare.clips import Clip, Clips
from lavender.prepare.frames import write_frames
from lavender.runtime.errors import DataError
from tests.unit.data.sources.shard_world import picture, png, write_shard
from tests.unit.prepare.clip_world import write_images, write_video

OPTIONS = {"max_pixels": MAX_PIXELS}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Clip]:
    """Clips are decoded in this process; those that were."""
    worked: list[Clip] = []

    def work_off(work: Any, jobs: Any, workers: int) -> Any:
        for job in jobs:
            worked.append(job.clip)
            try:
                yield job, work(job)
            except DataError as fault:
                yield job, fault

    monkeypatch.setattr(lavender.prepare.frames, "in_processes", work_off)
    return worked


def rows_of(path: Path) -> dict[str, list[str]]:
    reader = TSVReader(path)
    return {row[0]: row[1:] for row in (reader.row(number) for number in range(len(reader)))}


def grey_of(image: str) -> int:
    return round(float(np.array(Image.open(io.BytesIO(base64.b64decode(image)))).mean()))


def store(folder: Path, path: Path, used: list[str] | None = None, count: int = 3) -> list[str]:
    clips = Clips(str(folder))
    return write_frames(clips, used or list(clips), path, count, 1, **OPTIONS)


def test_videos_and_image_folders(tmp_path: Path, here: list[Clip]):
    video = write_video(tmp_path / "clips" / "deep" / "a.mp4")
    write_images(tmp_path / "clips" / "b", 50, 100)
    held = store(tmp_path / "clips", tmp_path / "img.tsv")
    assert held == ["b", "deep/a"]
    rows = rows_of(tmp_path / "img.tsv")
    assert rows["deep/a"] == extract_frames(video, 3, threads=1)
    assert list(map(grey_of, rows["b"])) == [50, 100]
    assert (tmp_path / "img.id2lineidx.pkl").exists()
    assert not (tmp_path / "img.tsv.part").exists()


def test_processes_store_the_same(tmp_path: Path):
    video = write_video(tmp_path / "clips" / "a.mp4")
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no video" * 100)
    clips, before = Clips(str(tmp_path / "clips")), multiprocessing.active_children()
    assert write_frames(clips, list(clips), tmp_path / "img.tsv", 3, 2, **OPTIONS) == ["a"]
    assert rows_of(tmp_path / "img.tsv")["a"] == extract_frames(video, 3, threads=1)
    assert list(clips.faults) == ["broken"]
    assert [process for process in multiprocessing.active_children() if process not in before] == []


def test_what_was_extracted_before_is_kept(tmp_path: Path, here: list[Clip], capsys: pytest.CaptureFixture[str]):
    folder, path = tmp_path / "clips", tmp_path / "img.tsv"
    for number, name in enumerate("abc"):
        write_images(folder / name, 10 * number)
    store(folder, path, ["a", "b"])
    here.clear()
    before = path.stat().st_mtime_ns
    store(folder, path, ["a", "b"])
    assert (here, path.stat().st_mtime_ns) == ([], before)
    store(folder, path)
    assert list(map(str, here)) == [str(folder / "c" / "0.png")]
    assert "2 clips were extracted before, 1 are left" in capsys.readouterr().err
    here.clear()
    (folder / "b" / "0.png").write_bytes(png(200))
    store(folder, path)
    assert list(map(str, here)) == [str(folder / "b" / "0.png")]
    assert {name: grey_of(row[0]) for name, row in rows_of(path).items()} == {"a": 0, "b": 200, "c": 20}
    here.clear()
    store(folder, path, count=4)
    assert len(here) == 3


def test_a_command_that_was_stopped_goes_on(tmp_path: Path, here: list[Clip], monkeypatch: pytest.MonkeyPatch):
    """Stopped within the third clip, and while a row was written."""
    folder, path = tmp_path / "clips", tmp_path / "img.tsv"
    for name in "abcd":
        write_images(folder / name, ord(name))

    class Stopped(BaseException):
        pass

    stored = lavender.prepare.clips.ImagesClip.stored

    def stop(self: Any, *words: Any, **options: Any) -> list[str]:
        if "c" in str(self.images[0].parent.name):
            raise Stopped
        return stored(self, *words, **options)

    with monkeypatch.context() as patch:
        patch.setattr(lavender.prepare.clips.ImagesClip, "stored", stop)
        with pytest.raises(Stopped):
            store(folder, path)
    assert not path.exists()
    part = path.with_name("img.tsv.part")
    part.write_bytes(part.read_bytes()[:-5])
    here.clear()
    assert store(folder, path) == ["a", "b", "c", "d"]
    assert [clip.files()[0].parent.name for clip in here] == ["b", "c", "d"]
    assert {name: grey_of(row[0]) for name, row in rows_of(path).items()} == {name: ord(name) for name in "abcd"}


def test_a_stopped_command_is_not_continued_with_other_options(tmp_path: Path, here: list[Clip]):
    write_images(tmp_path / "clips" / "a", 1)
    part = tmp_path / "img.tsv.part"
    part.write_bytes(b'{"count": 9}\na\tstamp\tframe\n')
    with pytest.raises(DataError, match=r'img\.tsv\.part.*"count": 9'):
        store(tmp_path / "clips", tmp_path / "img.tsv")
    assert b"frame" in part.read_bytes()
    part.write_bytes(b'{"count": 9}\n')
    assert store(tmp_path / "clips", tmp_path / "img.tsv") == ["a"], "nothing is lost"


def test_clips_of_another_command_stay(tmp_path: Path, here: list[Clip]):
    for name in "abc":
        write_images(tmp_path / "clips" / name, ord(name))
    store(tmp_path / "clips", tmp_path / "img.tsv", ["a", "b"])
    assert store(tmp_path / "clips", tmp_path / "img.tsv", ["c"]) == ["c", "a", "b"]
    assert {name: grey_of(row[0]) for name, row in rows_of(tmp_path / "img.tsv").items()} == {n: ord(n) for n in "abc"}


def test_a_thumbnail_beside_its_video(tmp_path: Path):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "a.png").write_bytes(png(1))
    clips = Clips(str(tmp_path))
    assert [str(clips[name]) for name in clips] == [str(tmp_path / "a.mp4")]


def test_two_commands_at_once(tmp_path: Path, here: list[Clip]):
    write_images(tmp_path / "clips" / "a", 1)
    clips = Clips(str(tmp_path / "clips"))
    with (
        lavender.prepare.frames._PartialTSV(tmp_path / "img.tsv", {}),
        pytest.raises(DataError, match=r"img\.tsv.*another process"),
    ):
        write_frames(clips, ["a"], tmp_path / "img.tsv", 3, 1, **OPTIONS)


def test_no_clip_can_be_decoded(tmp_path: Path, here: list[Clip]):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match="none of its 1 clips"):
        store(tmp_path / "clips", tmp_path / "img.tsv")
    assert not (tmp_path / "img.tsv").exists()


def test_tars(tmp_path: Path, here: list[Clip]):
    video = write_video(tmp_path / "a.mp4")
    (tmp_path / "tars").mkdir()
    write_shard(
        tmp_path / "tars" / "0.tar", {"k1": {"mp4": video.read_bytes(), "txt": "a clip"}, "k2": picture(77, "b")}
    )
    clips = Clips(str(tmp_path / "tars"))
    assert clips.kind == "shards"
    assert clips.captions() == [("k1", "a clip"), ("k2", "b")]
    assert [clips[name].length(3) for name in clips] == [3, 1]
    write_frames(clips, list(clips), tmp_path / "img.tsv", 3, 1, **OPTIONS)
    rows = rows_of(tmp_path / "img.tsv")
    assert rows["k1"] == extract_frames(video, 3, threads=1)
    assert list(map(grey_of, rows["k2"])) == [77]


def test_tars_beside_other_clips(tmp_path: Path):
    write_images(tmp_path / "a", 1)
    write_shard(tmp_path / "0.tar", {"k": picture(1, "b")})
    with pytest.raises(DataError, match=r"0\.tar"):
        Clips(str(tmp_path))


@pytest.mark.parametrize("kind", ["missing", "empty", "a file"])
def test_no_clips(tmp_path: Path, kind: str):
    folder = tmp_path / "clips"
    if kind == "empty":
        folder.mkdir()
    elif kind == "a file":
        folder.write_text("x")
    with pytest.raises(DataError, match=r"clips.*--videos"):
        Clips(str(folder))
