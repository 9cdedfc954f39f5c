import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lavender.config.schema import Config
from lavender.data.pretrain_frames import CorpusFrames
from lavender.data.samples import SampleKey
from lavender.runtime.errors import DataError
from lavender.tasks.pretrain import PretrainTask
from tests.unit.data.sources.shard_world import Samples, picture, png, write_shard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`videos`: seven folders of one image each; `shards`: the same as samples with captions of their own."""
    samples: Samples = {f"clip{n}": picture(30 * n, f"stored caption {n}") for n in range(7)}
    for number in range(7):
        (tmp_path / "videos" / f"clip{number}").mkdir(parents=True)
        (tmp_path / "videos" / f"clip{number}" / "0.png").write_bytes(png(30 * number))
    (tmp_path / "shards").mkdir()
    for name, keys in (("0.tar", ["clip0", "clip1", "clip2", "clip3"]), ("1.tar", ["clip4", "clip5", "clip6"])):
        write_shard(tmp_path / "shards" / name, {key: samples[key] for key in keys})
    return tmp_path


@pytest.fixture
def options(config: Config, folder: Path) -> dict[str, Config]:
    base = replace(config, data_dir=str(folder), dataset=["d"], size_frame=1, img_transform=["img_center_crop"])
    return {
        "videos": replace(base, frame_source="videos", video_dir=str(folder / "videos")),
        "shards": replace(base, frame_source="shards", shards=str(folder / "shards")),
    }


def write_captions(folder: Path, name: str = "d") -> None:
    texts = {"train": {f"clip{n}.mp4": [f"caption {n}"] for n in range(5)}, "val": {"clip5": "caption 5"}}
    (folder / f"txt_{name}.json").write_text(json.dumps(texts))


def seen(task: PretrainTask) -> list[list[tuple[str, str, int]]]:
    """Video, caption and grey level of each sample of each part."""
    parts = []
    for part in task.training_parts():
        dataset = part.open()
        assert len(dataset) == part.samples
        samples = [dataset[SampleKey(1, index)] for index in range(len(dataset))]
        parts.append([(sample["video"], sample["caption"], int(sample["img"][0, 0, 0, 0])) for sample in samples])
    return parts


@pytest.mark.parametrize("source", ["videos", "shards"])
def test_a_split_has_the_videos_that_its_captions_name(folder: Path, options: dict[str, Config], source: str):
    write_captions(folder)
    task = PretrainTask(options[source])
    expected = [[(f"clip{n}", f"caption {n}", 30 * n) for n in numbers] for numbers in ((0, 2, 4), (1, 3))]
    assert seen(task) == expected
    (dataset,) = task.evaluation_sets().values()
    assert [dataset[SampleKey(0, index)]["video"] for index in range(len(dataset))] == ["clip5"]


def test_captions_of_the_shards_themselves(options: dict[str, Config]):
    task = PretrainTask(options["shards"])
    assert seen(task) == [
        [(f"clip{n}", f"stored caption {n}", 30 * n) for n in numbers] for numbers in ((0, 2, 4, 6), (1, 3, 5))
    ]
    assert task.evaluation_sets() == {}
    with pytest.raises(DataError, match=r"txt_d\.json"):
        PretrainTask(options["videos"]).training_parts()


def test_a_share_of_them(folder: Path, options: dict[str, Config]):
    write_captions(folder)
    parts = seen(PretrainTask(replace(options["shards"], data_ratio=0.6)))
    assert [len(part) for part in parts] == [2, 1]
    assert {video for video, _, _ in parts[0]} < {"clip0", "clip2", "clip4"}


def test_more_parts_than_videos(options: dict[str, Config]):
    task = PretrainTask(replace(options["shards"], size_part=20))
    assert [(part.number, part.samples) for part in task.training_parts()] == [(n, 1) for n in range(7)]


def test_captions_of_other_videos(folder: Path, options: dict[str, Config]):
    (folder / "txt_d.json").write_text(json.dumps({"train": {"stranger": "x"}}))
    for config in options.values():
        with pytest.raises(DataError, match=r"txt_d\.json, train.*7 videos.*clip0"):
            PretrainTask(config).training_parts()


def test_captions_by_key_need_unique_keys(folder: Path, options: dict[str, Config]):
    write_shard(folder / "shards" / "2.tar", {"clip0": picture(1, "the second clip0")})
    assert seen(PretrainTask(replace(options["shards"], size_part=1)))[0][-1] == ("clip0", "the second clip0", 1)
    write_captions(folder)
    with pytest.raises(DataError, match=r"2\.tar.*0\.tar.*'clip0'|'clip0'.*2\.tar"):
        PretrainTask(options["shards"]).training_parts()


def test_several_data_sets(folder: Path, options: dict[str, Config]):
    """Each has shards of its own, or captions that say which samples are its."""
    both = replace(options["shards"], dataset=["a", "b"], size_part=1)
    with pytest.raises(DataError, match=r"txt_a\.json"):
        PretrainTask(both).training_parts()
    own = replace(both, shards={"a": str(folder / "shards" / "0.tar"), "b": str(folder / "shards" / "1.tar")})
    parts = PretrainTask(own).training_parts()
    assert [(part.dataset, part.samples) for part in parts] == [("a", 4), ("b", 3)]


def test_auto_takes_the_tsv_files_where_they_are(folder: Path, kit: Path, config: Config):
    named = replace(config, video_dir=str(folder / "videos"))
    assert CorpusFrames(named, "toy", str(kit / "data")).source is None
    assert CorpusFrames(replace(config, video_dir=""), "d", str(folder)).source is None
    assert CorpusFrames(named, "d", str(folder)).source is not None
    assert CorpusFrames(replace(named, frame_source="videos"), "toy", str(kit / "data")).source is not None
    assert CorpusFrames(replace(named, frame_source="tsv"), "d", str(folder)).source is None


def test_a_table_knows_which_videos_have_captions(caption_table: Callable):
    table = caption_table({"a.mp4": ["x"], "b": []}, "t")
    assert table.positions_of(["c", "a", "b.mkv", "x/b"]) == [1, 2, 3], "an empty caption is reported when it is read"
    with pytest.raises(DataError, match=r"'a'.*a\.mkv.*a\.mp4|'a'.*a\.mp4.*a\.mkv"):
        caption_table({"a.mp4": ["x"], "a.mkv": ["y"]}, "t").positions_of(["a"])


def test_a_caption_that_could_be_of_two_folders_files(caption_table: Callable):
    table = caption_table({"x": "a text", "y": "another"}, "t.json, train")
    assert table.positions_of(["x", "one/y", "z", "one/y.mp4"]) == [0, 1, 3]
    with pytest.raises(DataError, match=r"t\.json, train.*'y'.*'one/y'.*'two/y'"):
        table.positions_of(["one/y", "two/y"])
    assert caption_table({"one/y": "a", "two/y": "b"}, "t").positions_of(["one/y", "two/y"]) == [0, 1]


@pytest.mark.parametrize(("name", "videos"), [("d", ["a", "b"]), ("cc3m", ["a/1", "a/2", "b/1"])])
def test_of_an_image_corpus_each_image_is_a_sample(options: dict[str, Config], tmp_path: Path, name: str, videos: list):
    folder = tmp_path / "images"
    for place in ("a/1", "a/2", "b/1"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.png").write_bytes(png(1))
    source = CorpusFrames(replace(options["videos"], video_dir=str(folder)), name, "").source
    assert source is not None
    assert [source.video_id(number) for number in range(len(source))] == videos
