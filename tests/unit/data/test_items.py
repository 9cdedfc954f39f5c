import json
import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.data.items import Item, ItemDataset, ItemFile, open_frames, require_index, require_text
from lavender.data.loaders import evaluation_loader, training_loader
from lavender.data.samples import Failure, SampleKey
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.runtime.errors import ConfigError, DataError
from lavender.text.tokens import TextTokenizer


class Named(ItemDataset):
    """Items with nothing but a video and a `number`, which must be a number."""

    def check(self, item: Item, where: str) -> None:
        require_index(item, "number", 1000, "there are 1000", where)

    def text(self, index: int, stream: np.random.Generator, guard: Any) -> dict[str, Any]:
        return {key: self.items[index][key] for key in ("video", "number")}


def write_frames(folder: Path, videos: Iterable[str]) -> Path:
    """`img_d.tsv` with a made-up frame for each video."""
    folder.mkdir(parents=True, exist_ok=True)
    with TSVWriter(folder / "img_d.tsv") as writer:
        for video in videos:
            writer.write([video, "{}", f"/9j/{video}"])
    return folder / "img_d.tsv"


def write_texts(folder: Path, content: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "txt_t.json").write_text(json.dumps({} if content is None else content))
    return folder / "txt_t.json"


def options(folder: Path, **changes: Any) -> Config:
    return Config(data_dir=str(folder), dataset="d", task="t", **changes)


@pytest.fixture
def make(config: Config, kit: Path, tmp_path: Path) -> Callable[..., Named]:
    """A split over the kit's six videos, of the items given."""

    def build(items: list, split: str = "test", **changes: Any) -> Named:
        write_texts(tmp_path, {split: items})
        frames = {"img_tsv_dir": str(kit / "data"), "dataset": "toy"}
        changed = replace(config, **{"type": "", "task": "t", "data_dir": str(tmp_path), **frames, **changes})
        return Named(changed, TextTokenizer(kit / "bert_micro"), open_frames(changed), ItemFile(changed), split)

    return build


def numbered(*videos: str) -> list[Item]:
    return [{"video": video, "number": number} for number, video in enumerate(videos)]


# --- where files are looked for ---------------------------------------------------------------------------------------

FILES = pytest.mark.parametrize(
    ("read", "write", "option"), [(open_frames, write_frames, "img_tsv_dir"), (ItemFile, write_texts, "txt_dir")]
)


@FILES
@pytest.mark.parametrize(
    ("there", "given", "found"),
    [
        (["root/data"], "", "root/data"),
        (["root/data", "root"], "", "root/data"),
        (["root"], "", "root"),
        (["own", "root/data", "root"], "own", "own"),
        (["own", "root"], "", "root"),
    ],
)
def test_where_a_file_is_looked_for(read, write, option: str, tmp_path: Path, there: list, given: str, found: str):
    for folder in there:
        write(tmp_path / folder, ["vid0"] if read is open_frames else {"train": []})
    own = {option: str(tmp_path / given)} if given else {}
    file = read(options(tmp_path / "root" / "data", **own))
    assert file.path.parent == tmp_path / found


@FILES
@pytest.mark.parametrize("given", ["", "own"])
def test_a_file_that_is_nowhere_is_named(read, write, option: str, tmp_path: Path, given: str):
    """A folder that is given is believed: a file of the same name elsewhere may be another one."""
    other = "elsewhere" if not given else "root/data"
    write(tmp_path / other, ["vid0"] if read is open_frames else {"train": []})
    own = {option: str(tmp_path / given)} if given else {}
    with pytest.raises(DataError) as raised:
        read(options(tmp_path / "root" / "data", **own))
    name = "img_d.tsv" if read is open_frames else "txt_t.json"
    assert str(raised.value).startswith(f"{tmp_path / (given or 'root/data') / name}: there is no such file")
    assert f"--{option}" in str(raised.value)
    assert "--data_dir" in str(raised.value)


def test_a_folder_of_that_name_is_no_file(tmp_path: Path):
    (tmp_path / "data" / "txt_t.json").mkdir(parents=True)
    write_texts(tmp_path)
    assert ItemFile(options(tmp_path / "data")).path == tmp_path / "txt_t.json"


@pytest.mark.parametrize(("read", "key"), [(open_frames, "dataset"), (ItemFile, "task")])
def test_without_a_name_there_is_nothing_to_look_for(read, key: str, tmp_path: Path):
    nameless = options(tmp_path)
    setattr(nameless, key, "")
    with pytest.raises(ConfigError, match=rf'^"{key}" is empty: name the'):
        read(nameless)


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["vid7", "vid7.mp4", "clips/vid7.mp4"])
@pytest.mark.parametrize("asked", ["vid7", "vid7.mp4", "vid7.webm", "clips/vid7"])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_video_is_found_with_and_without_extension(tmp_path: Path, stored: str, asked: str, pickled: bool):
    path = write_frames(tmp_path, ["vid", stored, "vid70"])
    if pickled:
        offset = TSVReader(path).offsets[1]
        (tmp_path / "img_d.id2lineidx.pkl").write_bytes(pickle.dumps({"vid": 0, "vid7": int(offset)}))
    frames = open_frames(options(tmp_path))
    assert asked in frames
    video = frames.find(asked)
    assert (video.video_id, video.images, video.where) == (stored, [f"/9j/{stored}"], f"{path}, line 2")


def test_an_id_with_a_dot_of_its_own(tmp_path: Path):
    write_frames(tmp_path, ["a.b.mp4", "c.d"])
    frames = open_frames(options(tmp_path))
    assert [frames.find(video).video_id for video in ("a.b.mp4", "a.b", "c.d")] == ["a.b.mp4", "a.b.mp4", "c.d"]


def test_an_unknown_video(tmp_path: Path):
    path = write_frames(tmp_path, ["vid0"])
    frames = open_frames(options(tmp_path))
    assert "vid1" not in frames
    assert "" not in frames
    with pytest.raises(DataError, match=rf"{path} has no video 'vid1'"):
        frames.find("vid1")


def test_an_index_that_points_at_another_video_is_no_silent_swap(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lavender.data.index._ROWS_COMPARED", 0)
    path = write_frames(tmp_path, ["vid0", "vid1"])
    index = tmp_path / "img_d.id2lineidx.pkl"
    first, second = TSVReader(path).offsets.tolist()
    index.write_bytes(pickle.dumps({"vid0": second, "vid1": first}))
    with pytest.raises(DataError) as raised:
        open_frames(options(tmp_path)).find("vid0")
    assert str(raised.value).startswith(f"{path}, line 2: the row of 'vid1', where {index} says 'vid0'")
    assert "delete the index to have it rebuilt" in str(raised.value)
    index.unlink()
    assert open_frames(options(tmp_path)).find("vid0").video_id == "vid0"


@pytest.mark.parametrize("offset", [3, 10_000, -1])
def test_an_index_that_points_at_no_row(tmp_path: Path, offset: int, monkeypatch):
    monkeypatch.setattr("lavender.data.index._ROWS_COMPARED", 0)
    path = write_frames(tmp_path, ["vid0", "vid1"])
    (tmp_path / "img_d.id2lineidx.pkl").write_bytes(pickle.dumps({"vid0": offset}))
    with pytest.raises(DataError, match=rf"{path}.*rebuild the id index"):
        open_frames(options(tmp_path)).find("vid0")


def test_a_stale_index_stops_the_run_or_is_counted(make, config: Config, kit: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lavender.data.index._ROWS_COMPARED", 0)  # it lies outside the rows that are compared
    reader = TSVReader(kit / "data" / "img_toy.tsv")
    with TSVWriter(tmp_path / "img_toy.tsv") as writer:
        for number in range(3):
            writer.write(reader.row(number))
    (tmp_path / "img_toy.id2lineidx.pkl").write_bytes(pickle.dumps({"vid0": 0, "vid1": 0}))
    items = numbered("vid0", "vid1")
    failure = make(items, img_tsv_dir=str(tmp_path))[SampleKey(0, 1)]
    assert isinstance(failure, Failure)
    assert "img_toy.tsv, line 1: the row of 'vid0'" in failure.message
    (batch,) = evaluation_loader(make(items, img_tsv_dir=str(tmp_path), on_bad_sample="zero"))
    assert batch["present"].tolist() == [True, False]
    assert not batch["img"][1].any()
    assert batch["faults"] == [failure.message]


# --- items ------------------------------------------------------------------------------------------------------------


def test_the_items_of_a_split(tmp_path: Path):
    path = write_texts(tmp_path, {"train": numbered("a"), "val": [], "test": None, "other": 5})
    texts = ItemFile(options(tmp_path))
    assert texts.items("train") == [{"video": "a", "number": 0}]
    assert [texts.items(split) for split in ("val", "test", "validation")] == [[], [], []]
    assert texts.content["other"] == 5
    assert texts.where("val", 3) == f"{path}, val, item 3 (counted from 0)"


@pytest.mark.parametrize(("split", "kind"), [({"a": ["x"]}, "dict"), ("words", "str"), (7, "int"), (True, "bool")])
def test_a_split_of_another_shape(tmp_path: Path, split: object, kind: str):
    path = write_texts(tmp_path, {"val": split})
    with pytest.raises(DataError, match=rf'^{path}: "val" is a {kind}, not a list of items$'):
        ItemFile(options(tmp_path)).items("val")


@pytest.mark.parametrize("item", [{}, {"video": None}, {"video": ["a"]}, {"Video": "a"}, [], "a", None, 3], ids=repr)
def test_an_item_without_a_video(tmp_path: Path, item: object):
    path = write_texts(tmp_path, {"train": [{"video": "a"}, {"video": "b"}, item]})
    with pytest.raises(DataError) as raised:
        ItemFile(options(tmp_path)).items("train")
    assert str(raised.value) == f'{path}, train, item 2 (counted from 0): an object with a "video" (text) is expected'


@pytest.mark.parametrize("video", [7, 7.5, 1e5, True])
def test_an_id_that_is_no_text_is_to_be_quoted(tmp_path: Path, video: object):
    write_texts(tmp_path, {"train": [{"video": video}]})
    with pytest.raises(DataError, match=rf"train, item 0 .*{json.dumps(video)} in quotes".replace("+", r"\+")):
        ItemFile(options(tmp_path)).items("train")


def test_a_broken_text_file_says_where(tmp_path: Path):
    (tmp_path / "txt_t.json").write_text('{"train": [}')
    with pytest.raises(DataError, match=r"txt_t\.json, line 1, column 12: not valid JSON"):
        ItemFile(options(tmp_path))


def test_require_text():
    item = {"a": "words", "b": "", "c": 5, "d": None}
    assert (require_text(item, "a", "x"), require_text(item, "b", "x")) == ("words", "")
    for key, fault in (("c", "not text: 5"), ("d", "missing"), ("e", "missing")):
        with pytest.raises(DataError, match=rf'^x: "{key}" is {fault}$'):
            require_text(item, key, "x")


@pytest.mark.parametrize("value", [0, 4])
def test_require_index(value: int):
    assert require_index({"answer": value}, "answer", 5, "there are 5", "x") == value


@pytest.mark.parametrize("value", [True, False, 1.0, "1", [1], {}], ids=repr)
def test_what_is_no_whole_number(value: object):
    with pytest.raises(DataError, match=rf'^x: "answer" is no whole number: {re.escape(json.dumps(value))}$'):
        require_index({"answer": value}, "answer", 5, "there are 5", "x")


@pytest.mark.parametrize("value", [-1, 5, 10**20])
def test_an_index_outside(value: int):
    with pytest.raises(DataError, match=rf'^x: "answer" is {value}, but there are 5 \(0 to 4\)$'):
        require_index({"answer": value}, "answer", 5, "there are 5", "x")


def test_an_index_that_is_missing():
    for item in ({}, {"answer": None}):
        with pytest.raises(DataError, match=r'^x: "answer" is missing$'):
            require_index(item, "answer", 5, "there are 5", "x")


# --- a split ----------------------------------------------------------------------------------------------------------


def test_a_split_with_its_frames(make, kit: Path):
    dataset = make(numbered("vid3", "vid0.mp4", "vid3"))
    assert len(dataset) == 3
    path = kit / "data" / "img_toy.tsv"
    assert [dataset.video(number).where for number in range(3)] == [f"{path}, line {n}" for n in (4, 1, 4)]
    (batch,) = evaluation_loader(dataset)
    assert batch["video"] == ["vid3", "vid0.mp4", "vid3"], "as the file calls them"
    assert batch["number"].tolist() == batch["index"].tolist() == [0, 1, 2]
    assert batch["img"].shape == (3, 2, 3, 64, 64)
    assert (batch["img"][0] == batch["img"][2]).all()
    assert (batch["img"][0] != batch["img"][1]).any()


def test_every_item_is_checked_before_a_run(make, tmp_path: Path):
    items = numbered("vid0", "vid1", "vid2")
    items[2]["number"] = "two"
    with pytest.raises(DataError) as raised:
        make(items, "val")
    where = f"{tmp_path / 'txt_t.json'}, val, item 2 (counted from 0)"
    assert str(raised.value) == f'{where}: "number" is no whole number: "two"'


def test_an_unknown_video_stops_the_run_before_it_begins(make, tmp_path: Path, kit: Path):
    with pytest.raises(DataError) as raised:
        make(numbered("vid0", "nobody.mp4", "vid1", "noone"))
    message = str(raised.value)
    assert message.startswith(
        f"{tmp_path / 'txt_t.json'}, test, item 1 (counted from 0): video 'nobody.mp4' is not in "
        f"{kit / 'data' / 'img_toy.id2lineidx.pkl'} (delete it to have it rebuilt from img_toy.tsv) (2 of 4 items"
    )
    assert "--on_bad_sample zero" in message
    assert "\n" not in message


def test_or_it_is_replaced_by_zeros_and_counted(make, log):
    dataset = make(numbered("vid0", "nobody", "vid1"), on_bad_sample="zero")
    assert "test, item 1 (counted from 0): video 'nobody' is not in" in log.text
    assert "(1 of 3 items have no video): zeros are used" in log.text
    assert len(log.records) == 1
    (batch,) = evaluation_loader(dataset)
    assert batch["present"].tolist() == [True, False, True]
    assert batch["video"] == ["vid0", "nobody", "vid1"]
    assert not batch["img"][1].any()
    (fault,) = batch["faults"]
    assert "has no video 'nobody'" in fault


def test_known_videos_are_no_news(make, log):
    make(numbered("vid0", "vid1"), on_bad_sample="zero")
    assert log.text == ""


@pytest.mark.parametrize("training", [False, True])
def test_workers_change_nothing(make, training: bool):
    batches = []
    for workers in (0, 2):
        dataset = make(numbered("vid0", "vid1", "vid2", "vid5"), "train" if training else "val", n_workers=workers)
        loader = training_loader(dataset) if training else evaluation_loader(dataset)
        batches.append([(batch["video"], batch["img"]) for batch in loader])
    for (videos, frames), (others, other_frames) in zip(*batches, strict=True):
        assert videos == others
        assert (frames == other_frames).all()


# --- data_ratio -------------------------------------------------------------------------------------------------------

MANY = numbered(*(f"vid{number % 6}" for number in range(24)))  # four items a video, a round after another


def drawn(dataset: ItemDataset) -> list[Item]:
    return [dataset.items[number] for number in range(len(dataset))]


@pytest.mark.parametrize(("ratio", "videos"), [(1.0, 6), (0.5, 3), (0.34, 2), (0.01, 1), (2, 2), (3.0, 3), (100, 6)])
def test_a_share_of_the_videos_with_all_their_items(make, ratio: float, videos: int):
    kept = drawn(make(MANY, "train", data_ratio=ratio))
    names = {item["video"] for item in kept}
    assert len(names) == videos
    assert kept == [item for item in MANY if item["video"] in names], "all of a video's items, in the file's order"


def test_the_share_follows_the_seed(make):
    shares = {seed: drawn(make(MANY, "train", data_ratio=2, seed=seed)) for seed in range(8)}
    assert len({tuple(item["number"] for item in share) for share in shares.values()}) > 2
    assert drawn(make(MANY, "train", data_ratio=2, seed=3)) == shares[3]


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_keeps_every_item(make, split: str):
    assert drawn(make(MANY, split, data_ratio=0.1)) == MANY


def test_what_is_not_drawn_is_checked_as_well(make):
    """A run with a small share shows the faults of the whole file."""
    with pytest.raises(DataError, match="item 23"):
        make([*MANY[:-1], {"video": "vid0", "number": None}], "train", data_ratio=1e-3)


def test_an_id_with_and_without_extension_is_one_video(make):
    items = numbered("vid0", "vid0.mp4", "vid0.webm")
    assert drawn(make(items, "train", data_ratio=2)) == items


def test_a_video_that_only_the_index_does_not_know_is_found(make, tmp_path: Path):
    path = write_frames(tmp_path, ["vid0", "vid1"])
    (tmp_path / "img_d.id2lineidx.pkl").write_bytes(pickle.dumps({"vid0": 0}))
    dataset = make(numbered("vid0", "vid1"), img_tsv_dir=str(tmp_path), dataset="d")
    assert dataset.video(1).video_id == "vid1"
    assert dataset.frames.known_from == str(path)
