"""Captions that stand beside a checkpoint: used again only where they would come out the same."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lavender.config.schema import Config
from lavender.data.caption import write_predictions
from lavender.runtime.errors import ConfigError
from lavender.tasks.base import Record
from lavender.tasks.caption import CaptionTask

Make = Callable[..., CaptionTask]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A split of two videos, which a test may spoil."""
    folder = tmp_path / "data" / "MINE"
    folder.mkdir(parents=True)
    for video in ("a", "b"):
        with open(folder / "val.img.tsv", "a") as frames, open(folder / "val.caption.tsv", "a") as captions:
            frames.write(f"{video}\t/9j/\n")
            captions.write(f'{video}\t[{{"caption": "a star"}}]\n')
    (folder / "val.yaml").write_text("img: val.img.tsv\ncaption: val.caption.tsv\n")
    return folder


@pytest.fixture
def make(config: Config, data: Path) -> Make:
    ground = {"type": "captioning", "task": "cap", "dataset": "", "size_epoch": 0, "val_yaml": "MINE/val.yaml"}
    return lambda **options: CaptionTask(replace(config, **{**ground, "data_dir": str(data.parent), **options}))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights" / "ckpt_3.pt"


def records() -> list[Record]:
    each = [("a", "a star", 0.1 + 0.2), ("b", "", 1e-30)]
    captions = [[{"caption": text, "conf": conf}, {"caption": "the second", "conf": 0.0}] for _, text, conf in each]
    return [
        {"index": n, "video": video, **captions[n][0], "captions": captions[n]} for n, (video, *_) in enumerate(each)
    ]


def publish(task: CaptionTask, checkpoint: Path, weights: str = "w", **metrics: float) -> None:
    task.publish("val", checkpoint, lambda: weights, records(), {"CIDEr": 1.5, **metrics})


def earlier(task: CaptionTask, checkpoint: Path, weights: str = "w") -> list[Record] | None:
    return task.earlier_records("val", checkpoint, lambda: weights)


def test_they_come_back_as_they_were(make: Make, checkpoint: Path):
    publish(make(), checkpoint)
    assert earlier(make(), checkpoint) == records()


CHANGES: list[dict[str, Any]] = [
    *({"size_frame": 1}, {"size_img": 32}, {"img_transform": ["pad_resize"]}, {"repeat_frames": True}),
    *({"on_bad_sample": "zero"}, {"enable_prompt": True}, {"enable_task_token": True}, {"task_token": "vtm"}),
    *({"length_penalty": 0.5}, {"repetition_penalty": 1.1}, {"precision": "bf16"}, {"device": "cuda"}),
]
IN_THE_NAME = [{"max_gen_length": 9}, {"num_beams": 2}, {"num_beams": 2, "num_keep_best": 2}, {"do_sample": True}]
CHANGES_OF_DRAWS = [{"seed": 5}, {"gen_temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_of_another_option_they_are_made_again(make: Make, checkpoint: Path, log, change: dict[str, Any]):
    publish(make(), checkpoint)
    assert earlier(make(**change), checkpoint) is None
    assert "is of other weights, frames or options: captions are made again" in log.text
    assert earlier(make(), checkpoint) is not None


@pytest.mark.parametrize("change", IN_THE_NAME, ids=str)
def test_ways_of_decoding_stand_beside_one_another(make: Make, checkpoint: Path, change: dict[str, Any]):
    publish(make(), checkpoint)
    assert earlier(make(**change), checkpoint) is None
    publish(make(**change), checkpoint)
    assert earlier(make(**change), checkpoint) == earlier(make(), checkpoint) == records()
    assert len(list(checkpoint.parent.glob("*.tsv"))) == 2


def test_one_caption_of_beams_and_several_stand_beside_one_another(make: Make, checkpoint: Path):
    names = {make(num_beams=2, num_keep_best=kept).prediction_file("val", checkpoint).name for kept in (1, 2)}
    assert names == {f"ckpt_3.pred.MINE.val.beam2.max20{more}.tsv" for more in ("", ".best2")}


@pytest.mark.parametrize("change", CHANGES_OF_DRAWS, ids=str)
def test_how_words_are_drawn_matters_only_where_they_are(make: Make, checkpoint: Path, change: dict[str, Any]):
    for options, reused in (({}, True), ({"do_sample": True}, False)):
        publish(make(**options), checkpoint)
        assert (earlier(make(**options, **change), checkpoint) is not None) == reused


def test_options_that_change_no_caption_do_not_matter(make: Make, checkpoint: Path):
    publish(make(), checkpoint)
    assert earlier(make(size_batch=9, n_workers=2, lr=1.0, p_mask=0.5, label_smoothing=0.1), checkpoint) is not None


def test_of_other_weights_or_another_checkpoint_they_are_made_again(make: Make, checkpoint: Path):
    publish(make(), checkpoint)
    assert earlier(make(), checkpoint, "other") is None
    assert earlier(make(), checkpoint.with_name("ckpt_4.pt")) is None


def test_of_other_frames_they_are_made_again(make: Make, checkpoint: Path, data: Path):
    publish(make(), checkpoint)
    stat = (data / "val.img.tsv").stat()
    os.utime(data / "val.img.tsv", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert earlier(make(), checkpoint) is None


def test_of_other_videos_they_are_made_again(make: Make, checkpoint: Path, data: Path):
    publish(make(), checkpoint)
    captions = data / "val.caption.tsv"
    captions.write_text("".join(reversed(captions.read_text().splitlines(keepends=True))))
    assert make().datasets["val"].video_ids() == ["b", "a"]
    assert earlier(make(), checkpoint) is None


def test_other_references_are_no_reason(make: Make, checkpoint: Path, data: Path):
    publish(make(), checkpoint)
    captions = data / "val.caption.tsv"
    captions.write_text(captions.read_text().replace("star", "ring"))
    assert make().references == {"val": [["a ring"], ["a ring"]]}
    assert earlier(make(), checkpoint) is not None


def test_a_folder_of_the_same_name_elsewhere(make: Make, checkpoint: Path, data: Path, tmp_path: Path):
    publish(make(), checkpoint)
    (tmp_path / "elsewhere").mkdir()
    data.rename(tmp_path / "elsewhere" / "MINE")
    assert earlier(make(data_dir=str(tmp_path / "elsewhere")), checkpoint) is None


# --- damaged files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        *("", "a", "a\t\n", "a\t[{\nb\t[]\n", "\t[]\n", 'a\t{"caption": "x", "conf": 1}\n', "a\t[5]\nb\t[5]\n"),
        "a\t[]\nb\t[]\n",
    ],
)
@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
def test_a_damaged_prediction_file_is_said_and_made_again(make: Make, checkpoint: Path, log, content: str, index: bool):
    publish(make(), checkpoint)
    (path,) = checkpoint.parent.glob("*.tsv")
    path.write_text(content)
    if not index or content.count("\n") == 2:
        path.with_suffix(".lineidx").unlink()
    assert earlier(make(), checkpoint) is None
    assert f"{path} is not used again: " in log.text or f"{path} is of other weights, frames or options" in log.text


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "{}", "\0"])
def test_damaged_facts_are_said_and_captions_made_again(make: Make, checkpoint: Path, log, content: str):
    publish(make(), checkpoint)
    (path,) = checkpoint.parent.glob("*.from.json")
    path.write_text(content)
    assert earlier(make(), checkpoint) is None
    assert "is not used again: " in log.text or "is of other weights, frames or options" in log.text


@pytest.mark.parametrize("lost", ["*.tsv", "*.from.json"])
def test_half_the_files_are_none(make: Make, checkpoint: Path, lost: str):
    publish(make(), checkpoint)
    for path in checkpoint.parent.glob(lost):
        path.unlink()
    assert earlier(make(), checkpoint) is None


# --- writing ----------------------------------------------------------------------------------------------------------


def test_files_beside_a_checkpoint(make: Make, checkpoint: Path):
    publish(make(), checkpoint)
    name = "ckpt_3.pred.MINE.val.beam1.max20"
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == [
        *(f"{name}.eval.json", f"{name}.from.json", f"{name}.lineidx", f"{name}.tsv")
    ]
    rows = (checkpoint.parent / f"{name}.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["a", "b"]
    assert json.loads(rows[0].split("\t")[1]) == records()[0]["captions"]
    assert json.loads((checkpoint.parent / f"{name}.eval.json").read_text()) == {"CIDEr": 1.5}


def test_the_weights_are_named_only_where_their_name_is_needed(make: Make, checkpoint: Path):
    """It takes a read of all of them."""

    def weights() -> str:
        raise AssertionError("not needed")

    assert make().earlier_records("val", checkpoint, weights) is None
    make().publish("val", checkpoint, weights, records(), {"bad_samples": 2.0})


def test_captions_of_bad_samples_take_the_place_of_good_ones(make: Make, checkpoint: Path):
    publish(make(), checkpoint)
    publish(make(), checkpoint, bad_samples=1.0)
    assert earlier(make(), checkpoint) is None


@pytest.mark.parametrize("cut", ["write_predictions", "atomic_file"])
def test_a_write_that_is_stopped_leaves_no_captions_to_use(
    make: Make, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, log, cut: str
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    publish(make(), checkpoint)
    monkeypatch.setattr(f"lavender.tasks.caption.{cut}", full)
    publish(make(), checkpoint, "later")
    assert "No space left on device); the captions are in the run's predictions" in log.text
    for weights in ("w", "later"):
        assert earlier(make(), checkpoint, weights) is None


def test_a_checkpoint_in_no_folder(make: Make, tmp_path: Path, log):
    (tmp_path / "file").write_text("")
    publish(make(), tmp_path / "file" / "ckpt_3.pt")
    assert "could not be written" in log.text
    assert earlier(make(), tmp_path / "file" / "ckpt_3.pt") is None


def test_predictions_of_another_program_are_not_touched_or_used(make: Make, checkpoint: Path):
    """The released code wrote files of such names, without saying what they were made from."""
    path = make().prediction_file("val", checkpoint)
    write_predictions(path, [("a", [{"caption": "x", "conf": 1.0}]), ("b", [{"caption": "y", "conf": 1.0}])])
    assert earlier(make(), checkpoint) is None
    assert path.is_file()


def test_another_tasks_configuration_is_refused(make: Make):
    for options in ({"type": "qamc"}, {"dataset_type": "fib"}):
        with pytest.raises(ConfigError, match="captioning"):
            make(**options)
