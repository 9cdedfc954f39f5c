"""Scripts on videos that are read directly, beside the same run on the frame TSV made of them."""

import base64
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lavender.data.tsv import TSVReader, TSVWriter, split_columns
from lavender.tasks.pretrain import PretrainTaskSpecificTask
from tests.integration.test_resume import at_step, check_same
from tests.unit.data.sources.shard_world import write_shard

LIVELY = ("--p_mask", 0.5, "--lr", 1e-3, "--size_part", 1)


def test_questions_on_image_folders(ask, questions: Path, tmp_path: Path):
    """The folders hold the very JPEGs of the TSV, so every loss and figure is the same."""
    words = ("main_qaoe_mlm.py", "msvd-qa", "--size_epoch", 1)
    reader, videos = TSVReader(questions / "img_toy.tsv"), tmp_path / "videos"
    for number in range(len(reader)):
        video_id, _, images = split_columns(reader.row(number), reader.where(number))
        (videos / video_id).mkdir(parents=True)
        for place, image in enumerate(images):
            (videos / video_id / f"{place}.jpg").write_bytes(base64.b64decode(image))
    stored = ask(*words, data=questions).check_passed()
    (questions / "img_toy.tsv").unlink()
    direct = ask(*words, "--video_dir", videos, data=questions).check_passed()
    assert direct.results == stored.results
    refused = ask(*words, data=questions)
    refused.check_refused("img_toy.tsv", "--video_dir")


def _rows(reader: TSVReader) -> list[list[str]]:
    return [reader.row(number) for number in range(len(reader))]


@pytest.fixture
def corpus(toy: Path, tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """The toy data with one training part, and its JPEGs as folders and in shards: source → its options."""
    readers = [TSVReader(toy / f"toy_{name}.tsv") for name in ("train_0", "train_1", "val")]
    train, val = ({row[0]: row for reader in some for row in _rows(reader)} for some in (readers[:2], readers[2:]))
    val = {f"val_{video_id}": [f"val_{video_id}", *row[1:]] for video_id, row in val.items()}
    for name, rows in (("train_0", train), ("val", val)):
        with TSVWriter(toy / f"toy_{name}.tsv") as writer:
            for video_id in sorted(rows):
                writer.write(rows[video_id])
    texts = json.loads((toy / "txt_toy.json").read_text())
    texts["val"] = {f"val_{video_id}": caption for video_id, caption in texts["val"].items()}
    (toy / "txt_toy.json").write_text(json.dumps(texts))
    samples: dict[str, dict[str, bytes | str]] = {}
    for video_id, row in [("stranger", train["vid0"]), *sorted({**train, **val}.items())]:
        samples[video_id] = {"txt": f"the caption of {video_id}"}
        _, _, images = split_columns(row, "")
        (tmp_path / "videos" / video_id).mkdir(parents=True)
        for place, image in enumerate(images):
            (tmp_path / "videos" / video_id / f"{place}.jpg").write_bytes(base64.b64decode(image))
            samples[video_id][f"{place}.jpg"] = base64.b64decode(image)
    (tmp_path / "shards").mkdir()
    names = list(samples)
    for number, keys in enumerate((names[:3], names[3:7], names[7:])):
        write_shard(tmp_path / "shards" / f"{number:05}.tar", {key: samples[key] for key in keys})
    return {
        "tsv": ("--frame_source", "tsv"),
        "videos": ("--frame_source", "videos", "--video_dir", tmp_path / "videos"),
        "shards": ("--frame_source", "shards", "--shards", f"{tmp_path}/shards/{{00000..00002}}.tar"),
    }


def test_pretraining_on_folders_and_on_shards(train_here, toy: Path, corpus: dict[str, tuple[object, ...]]):
    """The very JPEGs of the TSV in the same order, so every loss and figure is the same."""
    stored = train_here(*LIVELY, *corpus["tsv"], data=toy).check_passed()
    for source in ("videos", "shards"):
        direct = train_here(*LIVELY, *corpus[source], "--n_workers", 1, data=toy).check_passed()
        assert direct.results == stored.results
        assert direct.predictions("val") == stored.predictions("val")


def test_pretraining_on_shards_alone(train_here, toy: Path, corpus: dict[str, tuple[object, ...]]):
    """Captions, too, come from the shards: a data folder without a text file and without TSV files is enough."""
    for file in toy.iterdir():
        file.unlink()
    run = train_here(*LIVELY, *corpus["shards"], data=toy, task=PretrainTaskSpecificTask).check_passed()
    assert len(run.results["epochs"]) == 1
    assert run.results["epochs"][0].keys().isdisjoint({"val"})
    train_here(*LIVELY, *corpus["videos"], data=toy).check_refused("txt_toy.json")


@pytest.mark.slow
@pytest.mark.parametrize("source", ["videos", "shards"])
def test_two_processes(start: Callable, toy: Path, corpus: dict[str, tuple[object, ...]], source: str):
    words = ("main_pretrain_mlm.py", *LIVELY, "--size_batch", 2, "--deepspeed", "false", "--use_checkpoint", "false")
    runs = [start(*words, *corpus[kind], launcher="torchrun", data=toy).check_passed() for kind in ("tsv", source)]
    assert runs[0].results == runs[1].results


@pytest.mark.slow
@pytest.mark.parametrize("by", [None, "torchrun"])
def test_a_killed_run_on_shards_is_resumed(start, toy: Path, corpus: dict, tmp_path: Path, by: str | None):
    words = ("main_pretrain_mlm.py", *LIVELY, *corpus["shards"], "--size_batch", 1, "--size_epoch", 3)
    words = (*words, "--deepspeed", "false", "--use_checkpoint", "false", "--logging_steps", 1, "--save_steps", 2)

    def run(name: str, *options: object, **more: Any) -> Any:
        ground = ("--n_workers", 2, *options)
        return start(*words, *ground, launcher=by, data=toy, output=tmp_path / name, **more)

    whole = run("whole").check_passed()
    killed = run("killed", watch=at_step(tmp_path / "killed", 5, signal.SIGKILL))
    assert killed.code not in (0, 2), killed.stderr[-2000:]
    resumed = run("killed", "--resume", "auto").check_passed()
    assert "resumed from" in resumed.log
    check_same(whole, resumed)
