import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavender.config.checks import validate
from lavender.config.schema import Config
from lavender.data.caption_folder import CaptionFolder
from lavender.data.items import ItemFile, open_frames
from lavender.data.retrieval import RetrievalDataset
from lavender.data.samples import SampleKey
from lavender.data.sources.choose import frame_source
from lavender.data.sources.tsv import TSVSource
from lavender.data.sources.video_files import VideoFile, VideoFolder
from lavender.data.tsv import TSVWriter
from lavender.data.video import extract_frames, sample_frames
from lavender.data.video_folders import find_videos
from lavender.runtime.errors import ConfigError, DataError
from lavender.text.tokens import TextTokenizer
from tests.unit.data.test_video import write_clip

pytest.importorskip("av")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with two clips and a folder of three images."""
    folder = tmp_path / "videos"
    (folder / "pictures").mkdir(parents=True)
    write_clip(folder / "a.1.mp4", 40)
    write_clip(folder / "b.mkv", 12)
    for number in (1, 2, 10):
        Image.new("RGB", (64, 48), (number * 20,) * 3).save(folder / "pictures" / f"{number}.png")
    return folder


def test_ids_and_lengths(videos: Path):
    source = pickle.loads(pickle.dumps(VideoFolder(videos, stored_frames=4)))
    assert [source.video_id(number) for number in range(len(source))] == ["a.1", "b", "pictures"]
    assert [len(source.video(number)) for number in range(3)] == [4, 4, 3]
    assert source.where(1) == str(videos / "b.mkv")
    assert source.find("a.1.mp4").video_id == source.find("clips/a.1").video_id == "a.1"
    assert source.identity("b.mp4") == source.identity("b")
    assert "c" not in source
    with pytest.raises(DataError, match="no video 'c'"):
        source.find("c")


def test_frames_are_those_that_the_tool_stores(videos: Path, tmp_path: Path):
    source = VideoFolder(videos, stored_frames=5)
    plain = sample_frames(videos / "a.1.mp4", 5)
    for found, number in zip(source.find("a.1").frames([4, 0, 4]), (4, 0, 4), strict=True):
        np.testing.assert_array_equal(found, plain[number])
    assert [int(frame[0, 0, 0]) for frame in source.find("pictures").frames([2, 0, 1])] == [200, 20, 40]


def test_a_run_on_videos_differs_from_one_on_their_tsv_by_jpeg(videos: Path, tmp_path: Path, config: Config, kit: Path):
    with TSVWriter(tmp_path / "img_d.tsv") as writer:
        for file in (videos / "a.1.mp4", videos / "b.mkv"):
            writer.write([file.stem, *extract_frames(file, 5)])
    items = [{"video": "a.1", "caption": "one"}, {"video": "b", "caption": "two"}]
    (tmp_path / "txt_t.json").write_text(json.dumps({"train": items}))
    config = replace(config, type="retrieval", task="t", dataset="d", data_dir=str(tmp_path), video_dir=str(videos))
    kinds = {}
    for kind in ("tsv", "videos"):
        options = replace(config, frame_source=kind)
        frames = open_frames(options)
        assert isinstance(frames, TSVSource if kind == "tsv" else VideoFolder)
        kinds[kind] = RetrievalDataset(options, TextTokenizer(kit / "bert_micro"), frames, ItemFile(options), "train")
    for epoch in (1, 2):
        for index in (0, 1):
            stored, direct = (kinds[kind][SampleKey(epoch, index)] for kind in ("tsv", "videos"))
            np.testing.assert_array_equal(stored["ids"], direct["ids"])
            difference = stored["img"].int() - direct["img"].int()
            assert difference.abs().max() <= 3, "the clip's frames are 5 grey levels apart"


def test_a_video_and_images_of_one_name(videos: Path):
    """An image beside the video is its thumbnail; a folder of images could be meant."""
    (videos / "b.jpg").write_bytes((videos / "b.mkv").read_bytes()[:10])
    assert isinstance(VideoFolder(videos).find("b"), VideoFile)
    (videos / "b").mkdir()
    (videos / "b" / "0.jpg").write_bytes(b"x")
    (videos / "b.jpg").unlink()
    with pytest.raises(DataError, match=r"b\.mkv and .*0\.jpg would both be video 'b'"):
        VideoFolder(videos)


def test_auto_takes_the_tsv_where_it_is_there(videos: Path, tmp_path: Path):
    with TSVWriter(tmp_path / "img_d.tsv") as writer:
        writer.write(["x", "/9j/1"])
    options = Config(dataset="d", data_dir=str(tmp_path), video_dir=str(videos))
    assert isinstance(open_frames(options), TSVSource)
    (tmp_path / "img_d.tsv").unlink()
    assert isinstance(open_frames(options), VideoFolder)
    for without in (replace(options, frame_source="tsv"), replace(options, video_dir="")):
        with pytest.raises(DataError, match=r"img_d\.tsv"):
            open_frames(without)
    with pytest.raises(DataError, match="--video_dir"):
        open_frames(replace(options, video_dir=""))


def test_options_that_do_not_go_together():
    with pytest.raises(ConfigError, match="video_dir"):
        validate(Config(frame_source="videos"), "x.json")
    with pytest.raises(ConfigError, match="shards"):
        validate(Config(frame_source="shards"), "x.json")
    with pytest.raises(ConfigError, match=r"video_dir.*shards.*frame_source"):
        validate(Config(video_dir="v", shards="s"), "x.json")
    with pytest.raises(ConfigError, match="shards does not name b"):
        validate(Config(frame_source="shards", type="pretrain", dataset=["a", "b"], shards={"a": "s"}), "x.json")
    validate(Config(type="pretrain", dataset=["a", "b"], shards={"a": "s"}), "x.json")


def test_a_captioning_folder_finds_its_frames_among_the_videos(videos: Path, tmp_path: Path):
    with TSVWriter(tmp_path / "c.tsv") as writer:
        writer.write(["b", '[{"caption": "two"}]'])
        writer.write(["a.1", '[{"caption": "one"}]'])
    (tmp_path / "x.yaml").write_text("caption: c.tsv\n")
    options = Config(video_dir=str(videos))
    folder = CaptionFolder(tmp_path / "x.yaml", open_source=lambda find: frame_source(options, find))
    assert [folder.video(row).where for row in (0, 1)] == [str(videos / "b.mkv"), str(videos / "a.1.mp4")]


def test_folders_that_are_refused(videos: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere.*--video_dir"):
        VideoFolder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty.*mp4.*--video_dir"):
        VideoFolder(tmp_path / "empty")
    (videos / "b.avi").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.mkv.*b\.avi.*'b'"):
        VideoFolder(videos)
    (videos / "b.avi").rename(videos / "pictures.avi")
    with pytest.raises(DataError, match=r"pictures\.avi.*pictures/1\.png.*'pictures'"):
        VideoFolder(videos)


@pytest.mark.parametrize("name", ["pictures/2.HEIC", "c.avif", "d.tiff"])
def test_images_that_are_not_read_are_counted(
    videos: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
):
    write_clip(videos / "moving.mp4", 3).rename(videos / "moving.gif")  # read as a video
    lengths = {source.video_id(n): len(source.video(n)) for source in [VideoFolder(videos)] for n in range(len(source))}
    assert not caplog.text
    (videos / name).write_bytes(b"whatever")
    source = VideoFolder(videos)
    assert {source.video_id(number): len(source.video(number)) for number in range(len(source))} == lengths
    assert f"1 images of other kinds, such as {videos / name}" in caplog.text
    alone = tmp_path / "alone"
    alone.mkdir()
    (videos / name).rename(alone / Path(name).name)
    with pytest.raises(DataError, match=rf"1 images of other kinds, such as .*{Path(name).name}"):
        VideoFolder(alone)


def test_what_a_listing_leaves_out_and_refuses(videos: Path):
    write_clip(videos / "._a.1.mp4", 3)
    (videos / ".trash").mkdir()
    write_clip(videos / ".trash" / "c.mp4", 3)
    (videos / "folder.mp4").mkdir()
    (videos / "link").symlink_to(videos)
    assert list(find_videos(videos)) == ["a.1", "b"]
    write_clip(videos / "folder.mp4" / "d.MP4", 3)
    assert "folder.mp4/d" in find_videos(videos)
    (videos / "a\tb.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="tab"):
        find_videos(videos)


def test_what_stands_in_a_files_place_is_told(videos: Path):
    page = b"<!DOCTYPE html><html><body>Sign in</body></html>"
    (videos / "b.mkv").write_bytes(page)
    (videos / "pictures" / "2.png").write_bytes(page)
    (videos / "pictures" / "10.png").unlink()
    os.mkfifo(videos / "pictures" / "10.png")
    os.mkfifo(videos / "pipe.mp4")
    source = VideoFolder(videos)
    for video_id, frame, words in (
        *(("b", 0, "HTML page"), ("pictures", 1, "HTML page")),
        *(("pictures", 2, "pipe"), ("pipe", 0, "pipe")),
    ):
        with pytest.raises(DataError, match=words):
            source.find(video_id).frames([frame])


def test_a_damaged_file_is_named(videos: Path):
    (videos / "b.mkv").write_bytes(b"no video")
    (videos / "pictures" / "2.png").write_bytes(b"no image")
    source = VideoFolder(videos)
    assert len(source.find("b")) == 5, "opening decodes nothing"
    with pytest.raises(DataError, match=r"b\.mkv"):
        source.find("b").frames([0])
    source.find("pictures").frames([0])
    with pytest.raises(DataError, match=r"pictures/2\.png"):
        source.find("pictures").frames([1])


def test_stamps_change_with_a_file_and_with_the_number_of_frames(videos: Path):
    before = VideoFolder(videos).stamps()
    assert VideoFolder(videos, stored_frames=6).stamps() != before
    write_clip(videos / "b.mkv", 13)
    assert VideoFolder(videos).stamps() != before
