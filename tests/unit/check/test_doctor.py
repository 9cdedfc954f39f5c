"""Each kind of fault, planted in a small data set, is found by the doctor; a sound one has none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lavender.check.doctor
import lavender.check.videos
from lavender.check.doctor import examine
from lavender.config.load import load_config
from lavender.data.video_processes import in_processes
from lavender.prepare.dataset import make_dataset
from lavender.runtime.errors import DataError
from tests.conftest import MICRO, ROOT
from tests.unit.data.sources.shard_world import picture, png, write_shard
from tests.unit.prepare.clip_world import write_images

OPTIONS = {f"option_{number}": "a dog" for number in range(5)}
Found = dict[tuple[str, str], dict[str, Any]]  # kind and place → finding


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are decoded in this process: a process of its own takes seconds to start."""

    def work_off(work: Callable[[Any], Any], jobs: Any, workers: int) -> Any:
        for job in jobs:
            yield job, work(job)

    monkeypatch.setattr(lavender.check.videos, "in_processes", work_off)
    monkeypatch.chdir(ROOT)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without picture and estimate, which take a second."""
    monkeypatch.setattr(lavender.check.doctor, "draw", lambda *_: False)
    monkeypatch.setattr(lavender.check.doctor, "costs", lambda *_: [])


class World:
    """A folder with videos `v0` … `v9` of five images each, and the texts of one task."""

    def __init__(self, folder: Path):
        self.folder = folder
        for number in range(10):
            write_images(folder / "videos" / f"v{number}", *(20 * number + frame for frame in range(5)))

    def texts(self, **splits: list[dict[str, Any]]) -> None:
        (self.folder / "txt_own.json").write_text(json.dumps(splits))

    def examine(self, config: str, *options: object, fix: Path | None = None) -> tuple[int, Found]:
        config, *more = config.split()
        words = [
            "--config",
            f"_args/args_{config}.json",
            *more,
            *MICRO,
            "--data_dir",
            str(self.folder),
            "--size_img",
            "32",
        ]
        words += ["--task", "own", "--dataset", "own", "--video_dir", str(self.folder / "videos")]
        output = self.folder / "check"
        code = examine(load_config([*words, *map(str, options)]), output, 0, fix, 125.0, 1)
        content = json.loads((output / "check.json").read_text())
        assert content["ok"] == (code == 0)
        return code, {(one["kind"], one["where"]): one for one in content["findings"]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def question(video: str, words: str = "what is it", answer: str = "dog", **more: Any) -> dict[str, Any]:
    return {"video": video, "question": words, "answer": 0, "answer_text": answer, **more}


def sound() -> dict[str, list[dict[str, Any]]]:
    return {"train": [question("v0"), question("v1")], "val": [question("v2")], "test": [question("v3")]}


def test_a_sound_data_set(world: World, capsys: pytest.CaptureFixture[str]):
    world.texts(**sound())
    assert world.examine("msvd-qa") == (0, {})
    said = capsys.readouterr().out
    assert "nothing is wrong" in said
    assert "4 of 4 videos were decoded" in said
    assert (world.folder / "check" / "check.png").stat().st_size > 10_000


@pytest.mark.usefixtures("quick")
def test_videos_that_are_missing(world: World):
    texts = sound()
    texts["train"] += [question("gone"), question("gone", "who"), question("V1")]
    world.texts(**texts)
    code, found = world.examine("msvd-qa")
    finding = found["video missing", "own train"]
    assert (code, finding["count"], finding["total"]) == (1, 3, 5)
    assert "2 videos" in finding["advice"]
    assert "v1" in finding["examples"][1]


@pytest.mark.usefixtures("quick")
def test_a_video_that_cannot_be_decoded(world: World):
    (world.folder / "videos" / "v1" / "2.png").write_bytes(png(1)[:60])
    world.texts(**sound())
    code, found = world.examine("msvd-qa")
    finding = found["cannot be decoded", "own train"]
    assert (code, finding["count"], finding["total"]) == (1, 1, 2)
    assert "2.png" in finding["examples"][0]


@pytest.mark.usefixtures("quick")
def test_answers(world: World):
    texts = sound()
    texts["train"] += [question("v1", "who", "red car"), question("v1", "why", "zzyzx")]
    texts["test"] = [question("v3", "who", "red car"), question("v4", "why", "zzyzx")]
    world.texts(**texts)
    code, found = world.examine("msvd-qa")
    assert code == 0
    train, test = found["unanswerable", "own train"], found["unanswerable", "own test"]
    assert (train["level"], train["count"], train["share"]) == ("note", 2, 0.5)
    assert (test["level"], test["count"]) == ("warning", 2)


@pytest.mark.usefixtures("quick")
def test_answers_outside_the_closed_vocabulary(world: World):
    texts = sound()
    texts["test"] = [question("v3"), question("v4", answer="cat") | {"answer": -1}]
    (world.folder / "txt_own.json").write_text(json.dumps({**texts, "ans2label": {"dog": 0}}))
    texts["train"] += [{"video": "v1"}]
    (world.folder / "txt_own.json").write_text(json.dumps({**texts, "ans2label": {"dog": 0}}))
    _, found = world.examine("msvd-qa")
    assert found["outside the vocabulary", "own test"]["count"] == 1
    assert ("outside the vocabulary", "own train") not in found


@pytest.mark.usefixtures("quick")
def test_malformed_and_repeated_items_and_a_repaired_copy(world: World, tmp_path: Path):
    texts = sound()
    texts["train"] += [{"video": "v1"}, {"question": "whose"}, question("v0"), question("gone"), question("v1", "who")]
    world.texts(**texts)
    code, found = world.examine("msvd-qa", fix=tmp_path / "mended")
    assert code == 1
    assert found["malformed", "own train"]["count"] == 2
    assert ["item 2" in one or "item 3" in one for one in found["malformed", "own train"]["examples"]] == [True, True]
    assert found["repeated", "own train"]["examples"] == ["item 4 (counted from 0)"]
    mended = json.loads((tmp_path / "mended" / "txt_own.json").read_text())
    assert mended == {**texts, "train": [texts["train"][number] for number in (0, 1, 6)]}
    assert json.loads((tmp_path / "txt_own.json").read_text()) == texts
    assert world.examine("msvd-qa", "--txt_dir", tmp_path / "mended") == (0, {})


@pytest.mark.usefixtures("quick")
def test_a_copy_never_replaces_its_original(world: World):
    world.texts(**sound())
    with pytest.raises(DataError, match=r"originals.*--fix"):
        world.examine("msvd-qa", fix=world.folder)


@pytest.mark.usefixtures("quick")
def test_texts_that_are_cut(world: World):
    texts = sound()
    texts["val"] = [question("v2", "what " * 60)]
    world.texts(**texts)
    _, found = world.examine("msvd-qa")
    finding = found["truncated", "own val"]
    assert (finding["level"], finding["count"]) == ("warning", 1)
    assert "size_txt" in finding["advice"]
    assert ("truncated", "own train") not in found
    assert ("truncated", "own val") not in world.examine("msvd-qa", "--size_txt", 100)[1]


@pytest.mark.usefixtures("quick")
def test_a_video_that_is_trained_and_tested_on(world: World):
    """Under the same id, and under another one with the same content."""
    write_images(world.folder / "videos" / "twin", *(20 * 1 + frame for frame in range(5)))
    texts = sound()
    texts["test"] += [question("v0"), question("twin")]
    world.texts(**texts)
    code, found = world.examine("msvd-qa")
    finding = found["trained and evaluated on", "own train, own test"]
    assert (code, finding["count"], finding["total"]) == (1, 2, 3)
    assert finding["examples"] == ["twin = v1", "v0"]


@pytest.mark.usefixtures("quick")
def test_one_id_in_training_and_test_without_its_video(world: World):
    texts = sound()
    texts["train"] += [question("gone")]
    texts["test"] += [question("gone")]
    world.texts(**texts)
    _, found = world.examine("msvd-qa")
    finding = found["one id in training and evaluation", "own train, own test"]
    assert (finding["level"], finding["examples"]) == ("error", ["gone"])


@pytest.mark.usefixtures("quick")
def test_two_ids_of_one_content(world: World):
    write_images(world.folder / "videos" / "twin", *range(5))
    texts = sound()
    texts["train"] += [question("twin")]
    world.texts(**texts)
    code, found = world.examine("msvd-qa")
    assert code == 0
    assert found["same content", "own train"]["examples"] == ["twin = v0"]


@pytest.mark.usefixtures("quick")
def test_many_ids_of_one_content(world: World):
    for number in range(20):
        write_images(world.folder / "videos" / f"twin{number:02d}", *range(5))
    texts = sound()
    texts["train"] += [question(f"twin{number:02d}") for number in range(20)]
    world.texts(**texts)
    (example,) = world.examine("msvd-qa")[1]["same content", "own train"]["examples"]
    assert example.startswith("twin00 = twin01")
    assert example.endswith("(21 ids)")
    assert len(example) < 100


@pytest.mark.usefixtures("quick")
def test_few_and_small_frames(world: World):
    write_images(world.folder / "videos" / "short", 1, 2)
    texts = sound()
    texts["val"] += [question("short")]
    world.texts(**texts)
    code, found = world.examine("msvd-qa", "--size_frame", 5)
    assert (code, found["too few frames", "own val"]["count"]) == (1, 1)
    assert "short" in found["too few frames", "own val"]["examples"][0]
    code, found = world.examine("msvd-qa", "--size_frame", 5, "--repeat_frames", "true", "--size_img", 64)
    assert code == 0
    assert found["too few frames", "own val"]["level"] == "note"
    assert found["small frames", "own train"]["count"] == 2


@pytest.mark.parametrize(
    ("config", "item"),
    [
        ("msrvtt-retrieval", {"caption": "a dog"}),
        ("tgif-action", {"question": "what", "answer": 0, **{f"option_{number}": "a dog" for number in range(5)}}),
        (
            "msrvtt-mc --dataset_type retmc",
            {"question": "", "answer": 0, **{f"option_{number}": "a dog" for number in range(5)}},
        ),
        ("lsmdc-fib", {"question": "a [MASK] runs", "answer_text": "dog", "answer": 0}),
    ],
)
def test_every_kind_of_item(world: World, config: str, item: dict[str, Any], monkeypatch, capsys):
    monkeypatch.setattr(lavender.check.doctor, "draw", lambda *_: False)
    world.texts(train=[{"video": "v0", **item}], val=[{"video": "v1", **item}], test=[{"video": "v2", **item}])
    assert world.examine(config) == (0, {})
    assert "no estimate" not in capsys.readouterr().out
    monkeypatch.setattr(lavender.check.doctor, "costs", lambda *_: [])
    world.texts(train=[{"video": "v0", **item}], val=[{"video": "v1"}], test=[{"video": "v0", **item}])
    code, found = world.examine(config)
    assert code == 1
    assert set(found) == {("malformed", "own val"), ("trained and evaluated on", "own train, own test")}


@pytest.mark.usefixtures("quick")
def test_pretraining_shards(tmp_path: Path):
    (tmp_path / "tars").mkdir()
    samples = {f"k{number}": picture(20 * number, "a dog") for number in range(4)}
    samples["k4"] = {"png": png(99)}
    write_shard(tmp_path / "tars" / "0.tar", samples)
    words = ["--config", "_args/args_pretrain.json", *MICRO, "--dataset", "own", "--data_dir", str(tmp_path)]
    words += ["--shards", str(tmp_path / "tars"), "--frame_source", "shards", "--size_img", "32"]
    assert examine(load_config(words), tmp_path / "check", 0, None, 125.0, 1) == 1
    content = json.loads((tmp_path / "check" / "check.json").read_text())
    assert [(one["kind"], one["count"]) for one in content["findings"]] == [("malformed", 1)]
    assert content["splits"][0]["samples"] == 4


@pytest.mark.usefixtures("quick")
def test_captions_and_several_tasks(tmp_path: Path):
    """A data set that was just made is sound, and is not once a task trains on what another one tests on."""
    for number in range(4):
        write_images(tmp_path / "videos" / f"v{number}", *(20 * number + frame for frame in range(5)))
    table = tmp_path / "t.csv"
    splits = ("train", "train", "val", "test")
    table.write_text("video,caption,split\n" + "".join(f"v{n},a dog,{split}\n" for n, split in enumerate(splits)))
    data = tmp_path / "data"
    make_dataset("own", [table], str(tmp_path / "videos"), data, frame_source="videos")
    words = [*MICRO, "--size_img", "32"]
    config = load_config(["--config", str(data / "_args" / "args_own-cap.json"), *words])
    assert examine(config, tmp_path / "check", 0, None, 125.0, 1) == 0
    entries = [json.loads((data / "_args" / f"args_own-{task}.json").read_text()) for task in ("cap", "retrieval")]
    both = tmp_path / "both.json"
    both.write_text(json.dumps({"type": "multi-task", "datasets": entries}))
    assert examine(load_config(["--config", str(both), *words]), tmp_path / "check", 0, None, 125.0, 1) == 0
    texts = json.loads((data / "txt_own-retrieval.json").read_text())
    texts["train"] += texts["test"]
    texts["test"] = texts["val"]
    (data / "txt_own-retrieval.json").write_text(json.dumps(texts))
    assert examine(load_config(["--config", str(both), *words]), tmp_path / "check", 0, None, 125.0, 1) == 1
    content = json.loads((tmp_path / "check" / "check.json").read_text())
    leaks = {one["where"]: one["examples"] for one in content["findings"] if one["kind"] == "trained and evaluated on"}
    assert leaks == {"own-retrieval train, own-cap test": ["v3"]}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_processes_of_their_own(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lavender.check.videos, "in_processes", in_processes)
    monkeypatch.setattr(lavender.check.videos, "_CHUNK", 2)
    world.texts(**sound())
    assert world.examine("msvd-qa") == (0, {})
