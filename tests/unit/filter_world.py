"""The files of made-up data sets, for the tests of the filter that keeps test videos out of training."""

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from lavender.data.caption_folder import CaptionFolder
from lavender.data.tsv import TSVWriter

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "_tools"))
tool = importlib.import_module("multi_task_vid_filter")
filter_training = tool.filter_training
TEXTS = {dataset: tasks for dataset, (tasks, _) in tool.TASKS.items()}
FOLDERS = {dataset: folder for dataset, (_, folder) in tool.TASKS.items() if folder}
YAMLS = TRAIN_YAML, VAL_YAML, TEST_YAML = [f"{split}_32frames.yaml" for split in ("train", "val", "test")]
LINE_LIST = "train_32frames.caption.linelist.tsv"
DEFAULT_COCO = "val_32frames_caption_coco_format.json"
VAL_FILES = "img: val.img.tsv\ncaption: val.caption.tsv\n"


def command(folder: Path, script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-B", str(script), *words]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300)


def write_texts(root: Path, task: str, **splits: Iterable[str]) -> None:
    items = {
        split: [{"video": video, "caption": f"{video}, {number}"} for number, video in enumerate(videos)]
        for split, videos in splits.items()
    }
    (root / f"txt_{task}.json").write_text(json.dumps(items))


def texts_of(folder: Path, task: str, split: str = "train") -> list[str]:
    return [item["video"] for item in json.loads((folder / f"txt_{task}.json").read_text())[split]]


def write_rows(path: Path, videos: Iterable[str]) -> None:
    """`<path>.img.tsv` and `<path>.caption.tsv`: a frame and two captions of each video."""
    path.parent.mkdir(exist_ok=True)
    with TSVWriter(f"{path}.img.tsv") as frames, TSVWriter(f"{path}.caption.tsv") as captions:
        for video in videos:
            frames.write([video, "{}", "/9j/x"])
            captions.write([video, json.dumps([{"caption": f"{video} {number}"} for number in range(2)])])


def write_split(folder: Path, split: str, videos: Iterable[str], lines: str = "", **facts: Any) -> Path:
    """A YAML with its files; `lines` are those of its line list."""
    write_rows(folder / split, videos)
    if lines:
        (folder / f"{split}.linelist.tsv").write_text(lines)
        facts["caption_linelist"] = f"{split}.linelist.tsv"
    path = folder / f"{split}_32frames.yaml"
    path.write_text(yaml.safe_dump({"img": f"{split}.img.tsv", "caption": f"{split}.caption.tsv", **facts}))
    return path


def write_coco(path: Path, videos: Iterable[Any], images: Iterable[Any] = ()) -> str:
    annotations = [{"image_id": video, "caption": "so it is", "id": number} for number, video in enumerate(videos)]
    path.write_text(json.dumps({"images": [{"id": video} for video in images], "annotations": annotations}))
    return path.name


def trained_on(path: Path) -> list[str]:
    """The training captions of a YAML, as a run reads them."""
    folder = CaptionFolder(path)
    return [folder.caption(*sample) for sample in folder.training_samples().tolist()]


def write_world(root: Path) -> dict[str, list[str]]:
    """All files of all data sets. Every task trains on all videos of its set and tests on some that no other does.

    Returns:
        data set → the videos that may stay.
    """
    stay = {}
    for dataset, tasks in TEXTS.items():
        videos = [f"{dataset}{letter}" for letter in "abcdefghijklmn"]
        rest = iter(videos)
        for task in tasks:
            splits = {"val": [f"clips/{next(rest)}.avi"], "test": [f"{next(rest)}.mp4"]}
            write_texts(root, task, **splits if task == "msrvtt-mc" else {"train": [*videos, *videos], **splits})
        if dataset in FOLDERS:
            folder = root / FOLDERS[dataset]
            write_split(folder, "train", [f"{video}.mp4" for video in videos])
            val, in_coco, test, in_default = (next(rest) for _ in range(4))
            write_split(folder, "val", [val], caption_coco_format=write_coco(folder / "refs.json", [val, in_coco]))
            write_split(folder, "test", [test])
            write_coco(folder / "test_32frames_caption_coco_format.json", [test, in_default])
        stay[dataset] = list(rest)
        assert len(stay[dataset]) >= 4
    return stay


def small_msvd(root: Path, train: Iterable[str] = "abc", tested: Iterable[str] = "z") -> None:
    """MSVD with `train` in all training splits; QA tests on `tested`, the other tasks on z."""
    write_texts(root, "msvd-retrieval", train=train, val="y", test="z")
    write_texts(root, "msvd-qa", train=train, val="y", test=tested)
    for split, videos in (("train", train), ("val", "y"), ("test", "z")):
        write_split(root / "MSVD", split, videos)


def snapshot(folder: Path) -> dict[str, str]:
    """File → digest, of all below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
