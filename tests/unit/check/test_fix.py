"""Repaired copies of captioning folders and of pretraining data sets: what is left can be trained on, as it was."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import lavender.check.doctor
import lavender.check.videos
from lavender.check.doctor import examine
from lavender.config.load import load_config
from lavender.data.caption_folder import CaptionFolder
from lavender.runtime.errors import DataError
from tests.conftest import MICRO, ROOT
from tests.unit.data.sources.shard_world import picture, png, write_shard

GOOD = ("v0", "v1", "v2")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, without picture and estimate."""
    monkeypatch.setattr(lavender.check.videos, "in_processes", lambda work, jobs, _: ((job, work(job)) for job in jobs))
    monkeypatch.setattr(lavender.check.doctor, "draw", lambda *_: False)
    monkeypatch.setattr(lavender.check.doctor, "costs", lambda *_: [])
    monkeypatch.chdir(ROOT)


def check(folder: Path, config: str, *options: object, fix: Path | None = None) -> int:
    words = ["--config", f"_args/args_{config}.json", *MICRO, "--size_img", "32", *map(str, options)]
    return examine(load_config(words), folder / "check", 0, fix, 125.0, 1)


def tsv(path: Path, *rows: tuple[str, bytes]) -> None:
    path.write_text("".join(f"{video}\t{base64.b64encode(image).decode()}\n" for video, image in rows))


def captions(path: Path, rows: dict[str, list[str]]) -> None:
    path.write_text("".join(f"{v}\t{json.dumps([{'caption': one} for one in each])}\n" for v, each in rows.items()))


def sound(*videos: str) -> list[tuple[str, bytes]]:
    return [(video, png(20 * int(video[1:]))) for video in videos]


class Captioning:
    """A captioning folder of three sound videos, one that is cut and one without frames."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        tsv(folder / "own.img.tsv", *sound("v0"), ("cut", png(1)[:60]), *sound("v1", "v2"))
        captions(
            folder / "train.caption.tsv", {"gone": ["none"], "v0": ["a", "b"], "cut": ["c"], "v1": ["d", "e"], "v2": []}
        )
        (folder / "train.linelist.tsv").write_text("0\t0\n1\t1\n2\t0\n3\t0\n3\t1\n3\t7\nno\n")
        self.yaml("train", caption_linelist="train.linelist.tsv")
        captions(folder / "test.caption.tsv", {"v2": ["y"], "cut": ["z"]})
        entries = [{"image_id": video, "caption": "y", "id": 0} for video in (5, "cut", "stranger")]
        images = [{"id": 5, "file_name": "v2.mp4"}, {"id": "cut"}]
        content = {"annotations": entries, "images": images, "info": "mine"}
        (folder / "refs.json").write_text(json.dumps(content))
        self.yaml("test", caption_coco_format="refs.json")

    def yaml(self, split: str, **more: str) -> None:
        facts = {"img": "own.img.tsv", "caption": f"{split}.caption.tsv", **more}
        (self.folder / f"{split}.yaml").write_text(yaml.safe_dump(facts))

    def options(self, folder: Path) -> list[str]:
        words = ["--data_dir", str(folder), "--task", "own", "--size_frame", "1"]
        return [*words, "--train_yaml", "train.yaml", "--val_yaml", "test.yaml", "--test_yaml", "test.yaml"]


def test_a_captioning_folder(tmp_path: Path):
    world = Captioning(tmp_path / "cap")
    before = {path: path.read_bytes() for path in world.folder.iterdir()}
    assert check(tmp_path, "msrvtt-cap", *world.options(world.folder), fix=tmp_path / "fix") == 1
    copy = tmp_path / "fix" / "own"
    train, test = CaptionFolder(copy / "train.yaml"), CaptionFolder(copy / "test.yaml", blind=True)
    assert train.videos == ["v0", "v1", "v2"]
    assert train.training_samples().tolist() == [[0, 1], [1, 0], [1, 1]]
    assert [train.caption(*pair) for pair in train.training_samples().tolist()] == ["b", "d", "e"]
    assert train.video(1).frames([0])[0][0, 0, 0] == 20
    assert (test.videos, test.references([0])) == (["v2"], [["y"]])
    coco = test.coco_path()
    assert coco is not None
    content = json.loads(coco.read_text())
    assert content["info"] == "mine"
    assert [entry["image_id"] for entry in content["annotations"]] == [5]
    assert content["images"] == [{"id": 5, "file_name": "v2.mp4"}]
    assert all(path.read_bytes() == content for path, content in before.items())
    code = check(tmp_path, "msrvtt-cap", *world.options(copy))
    found = json.loads((tmp_path / "check" / "check.json").read_text())["findings"]
    assert {one["kind"] for one in found} <= {"trained and evaluated on"}, "v2 is, as before"
    assert code == 1
    assert check(tmp_path, "msrvtt-cap", *world.options(copy), fix=tmp_path / "again") == 1
    assert CaptionFolder(tmp_path / "again" / "own" / "train.yaml").videos == train.videos


def test_a_composite_captioning_folder(tmp_path: Path):
    folder = tmp_path / "cap"
    folder.mkdir()
    tsv(folder / "0.img.tsv", ("cut", png(1)[:60]), *sound("v0"))
    tsv(folder / "1.img.tsv", *sound("v1", "v2"))
    captions(folder / "0.caption.tsv", {"cut": ["a"], "v0": ["b"]})
    captions(folder / "1.caption.tsv", {"v1": ["c"], "v2": ["d", "e"]})
    (folder / "lines.tsv").write_text("0\t0\t0\n0\t1\t0\n1\t0\t0\n1\t1\t1\n")
    facts: dict[str, Any] = {key: [f"{n}.{key}.tsv" for n in range(2)] for key in ("img", "caption")}
    (folder / "train.yaml").write_text(yaml.safe_dump({**facts, "composite": True, "caption_linelist": "lines.tsv"}))
    options = ["--task", "own", "--size_frame", "1", "--train_yaml", "train.yaml", "--val_yaml", "", "--test_yaml", ""]
    assert check(tmp_path, "msrvtt-cap", *options, "--data_dir", folder, fix=tmp_path / "fix") == 1
    copy = CaptionFolder(tmp_path / "fix" / "own" / "train.yaml")
    assert [(copy.videos[row], copy.caption(row, n)) for row, n in copy.training_samples().tolist()] == [
        ("v0", "b"),
        ("v1", "c"),
        ("v2", "e"),
    ]


def test_pretraining_tsv_files(tmp_path: Path):
    """The part with broken rows is copied without them; the other and the captions are links."""
    folder, fix = tmp_path / "data", tmp_path / "fix"
    folder.mkdir()
    tsv(folder / "own_train_0.tsv", *sound("v0"), ("cut", png(1)[:60]), *sound("v5", "v1"))
    tsv(folder / "own_train_1.tsv", *sound("v2"))
    tsv(folder / "own_val.tsv", *sound("v3"))
    texts = {"train": {v: ["a dog"] for v in (*GOOD, "cut")}, "val": {"v3": ["a cat"]}}
    (folder / "txt_own.json").write_text(json.dumps(texts))
    options = ["--dataset", "own", "--size_part", 2, "--size_frame", 1]
    assert check(tmp_path, "pretrain", *options, "--data_dir", folder, fix=fix) == 1
    rows = (folder / "own_train_0.tsv").read_text().splitlines(keepends=True)
    assert (fix / "own_train_0.tsv").read_text() == rows[0] + rows[3]
    assert (fix / "own_train_1.tsv").resolve() == folder / "own_train_1.tsv"
    assert check(tmp_path, "pretrain", *options, "--data_dir", fix) == 0
    assert check(tmp_path, "pretrain", *options, "--data_dir", folder, fix=fix) == 1, "it may be written again"
    with pytest.raises(DataError, match="originals"):
        check(tmp_path, "pretrain", *options, "--data_dir", folder, fix=folder)
    assert (folder / "own_train_0.tsv").read_text() == "".join(rows)


def test_pretraining_shards(tmp_path: Path):
    (tmp_path / "tars").mkdir()
    samples = {f"k{number}": picture(20 * number, f"dog {number}") for number in range(3)}
    samples |= {"k3": {"png": png(99)}, "k4": {"png": png(1)[:60], "txt": "a cut one"}}
    write_shard(tmp_path / "tars" / "0.tar", samples)
    options = ["--dataset", "own", "--shards", tmp_path / "tars", "--frame_source", "shards", "--size_frame", 1]
    fix = tmp_path / "fix"
    assert check(tmp_path, "pretrain", *options, "--data_dir", tmp_path, fix=fix) == 1
    kept = json.loads((fix / "txt_own.json").read_text())
    assert kept == {"train": {f"k{number}": [f"dog {number}"] for number in range(3)}}
    assert check(tmp_path, "pretrain", *options, "--data_dir", fix) == 0


def test_several_pretraining_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folders = {}
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        tsv(folder / f"{name}_train_0.tsv", *sound("v0", "v1"), (f"cut-{name}", png(1)[:60]))
        (folder / f"txt_{name}.json").write_text(json.dumps({"train": dict.fromkeys(("v0", "v1", f"cut-{name}"), "a")}))
        folders[name] = str(folder)
    options = ["--size_part", 1, "--size_frame", 1]
    assert check(tmp_path, "pretrain", *options, "--dataset", json.dumps(folders), fix=tmp_path / "fix") == 1
    said = capsys.readouterr().out
    fixed = {name: str(tmp_path / "fix" / name) for name in folders}
    assert all(json.dumps({name: path}) in said for name, path in fixed.items())
    check(tmp_path, "pretrain", *options, "--dataset", json.dumps(fixed))
    assert "cannot be decoded" not in (tmp_path / "check" / "check.json").read_text()


def test_nothing_would_be_left(tmp_path: Path):
    tsv(tmp_path / "own_train_0.tsv", ("cut", png(1)[:60]))
    (tmp_path / "txt_own.json").write_text(json.dumps({"train": {"cut": "a"}}))
    options = ["--dataset", "own", "--size_part", 1, "--size_frame", 1, "--data_dir", tmp_path]
    with pytest.raises(DataError, match="no video would be left"):
        check(tmp_path, "pretrain", *options, fix=tmp_path / "fix")
