"""python _tools/multi_task_vid_filter.py --dataset msrvtt

The tasks of a dataset were split independently: a test video of one task can be a training video of another. Removes
every video that any task validates or tests on from the training splits of all tasks of the dataset, and writes the
result for `_args/args_multi-task_*.json` to `_datasets/multi_task`: the filtered text files, and captioning folders
whose training YAML has a shorter line list and otherwise points to the original files.
"""

import argparse
import json
import logging
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from _root import run

from lavender.data.annotations import misnamed_split, read_splits
from lavender.data.caption_folder import CaptionFolder
from lavender.data.coco import coco_id, read_coco
from lavender.data.ids import HeldOut, without_extension
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, looked_from, refuse_overwriting
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.tools")

SPLITS = ("train", "val", "test")
DATASETS = Path(__file__).resolve().parent.parent / "_datasets"
FILE_KEYS = ("img", "caption", "label", "caption_linelist", "caption_coco_format")  # keys of files in a captioning YAML
TASKS = {  # data set → tasks with a txt_<task>.json; captioning folder
    "lsmdc": (("lsmdc-retrieval", "lsmdc-fib", "lsmdc-mc"), None),
    "msrvtt": (("msrvtt-retrieval", "msrvtt-qa", "msrvtt-mc"), "MSRVTT-v2"),
    "msvd": (("msvd-retrieval", "msvd-qa"), "MSVD"),
    "tgif": (("tgif-frame", "tgif-action", "tgif-transition"), None),
    "didemo": (("didemo-retrieval",), None),
}
OPTIONAL = {"txt_msrvtt-mc.json"}  # has only a test split: no multi-task run reads it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=TASKS, help="the data set whose tasks are filtered")
    parser.add_argument("--data_root", type=Path, default=DATASETS, help="folder of its files (default: ./_datasets)")
    parser.add_argument(
        "--output_folder", type=Path, default=DATASETS / "multi_task", help="folder of the filtered files"
    )
    parser.add_argument("--allow_missing", action="store_true", help="continue if files are missing")
    arguments = parser.parse_args()
    filter_training(arguments.dataset, arguments.data_root, arguments.output_folder, arguments.allow_missing)


def filter_training(dataset: str, data_root: Path, output_folder: Path, allow_missing: bool = False) -> None:
    """Reads all files of a data set and writes them without the training videos that are held out anywhere.

    Raises:
        DataError: a file is missing or broken, or would be overwritten by its own filtered copy; nothing is written.
    """
    sources = open_sources(dataset, data_root, output_folder, allow_missing)
    held_out = HeldOut(video for source in sources for video in source.held_out)
    outputs: dict[Path, bytes] = {}
    rows = []
    removed: set[str] = set()
    for source in sources:
        kept = [number for number, video in enumerate(source.training) if video not in held_out]
        outputs |= source.filtered(output_folder, kept)
        after = [source.training[number] for number in kept]
        removed |= set(source.training) - set(after)
        if source.trains:
            counts = (len(source.training), len(after), count_videos(source.training), count_videos(after))
            rows.append([source.name, *map(str, counts)])
        if source.training and not after:
            LOGGER.warning("%s: no training item is left", source.path)
    inputs = [path for source in sources for path in source.inputs]
    for path in outputs:
        refuse_overwriting(path, *inputs, error=DataError, option="--output_folder")
    for path, content in outputs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(content)

    print_table(["file", "items before", "after", "videos before", "after"], rows)
    print(f"{dataset}: {count_videos(removed)} videos removed from training; {output_folder}: {len(outputs)} files")


class TextFile:
    """`txt_<task>.json`: ids of its training videos, and of its validation and test videos."""

    trains = True

    def __init__(self, path: Path):
        self.path, self.name, self.inputs = path, path.name, [path]
        self._content = read_splits(path)
        self.training = self._videos("train")
        self.held_out = [*self._videos("val"), *self._videos("test")]

    def _videos(self, split: str) -> list[str]:
        items = self._content.get(split) or []
        if hint := misnamed_split(self._content, split):  # otherwise its videos would stay in training
            raise DataError(f'{self.path}: no "{split}" items{hint}')
        if not isinstance(items, list):
            raise DataError(f'{self.path}: "{split}" is a {type(items).__name__}, not a list of items')
        for number, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("video"), str):
                where = f"{self.path}, {split}, item {number} (counted from 0)"
                raise DataError(f'{where}: an object with a "video" (text) is expected')
        return [item["video"] for item in items]

    def filtered(self, folder: Path, kept: Sequence[int]) -> dict[Path, bytes]:
        """Content of the filtered file, with the training items `kept`."""
        content = dict(self._content)
        if content.get("train"):
            content["train"] = [content["train"][number] for number in kept]
        return {folder / self.name: json.dumps(content).encode()}


class CaptionSplit:
    """YAML of a captioning folder: ids of its training videos, or of its evaluated and reference videos."""

    def __init__(self, path: Path, split: str):
        self.path, self.name, self.trains = path, f"{path.parent.name}/{path.name}", split == "train"
        self._folder = CaptionFolder(path, tolerant=True, blind=not self.trains)  # a run reports missing frames
        self._facts = dict(self._folder.facts)
        beside = path.with_name(f"{path.stem}_caption_coco_format.json")
        if beside.is_file():  # found by name, which does not work from the new folder
            self._facts.setdefault("caption_coco_format", beside.name)
        self.inputs = [path, *(file for key in FILE_KEYS for file in self._files(key))]
        self._samples = self._folder.training_samples().tolist() if self.trains else []  # (row, caption number)
        self.training = [self._folder.videos[row] for row, _ in self._samples]
        self.held_out = [] if self.trains else self._evaluated()

    def _files(self, key: str) -> list[Path]:
        value = self._facts.get(key, [])
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) and name for name in names):
            raise DataError(f'{self.path}: "{key}" is {shown(value)}; give the name of a file')
        return [self.path.parent / name for name in names]

    def _evaluated(self) -> list[str]:
        videos = [self._folder.videos[row] for row in self._folder.evaluation_rows().tolist()]
        for path in self._files("caption_coco_format"):
            if not path.is_file():
                raise DataError(f'{self.path}: "caption_coco_format" names {path}, which is not there')
            videos += coco_videos(path)
        return videos

    def filtered(self, folder: Path, kept: Sequence[int]) -> dict[Path, bytes]:
        """Contents of the filtered YAML, and of its line list with the training samples `kept`."""
        path = folder / self.name
        facts = {
            key: moved(value, self.path.parent, path.parent) if key in FILE_KEYS else value
            for key, value in self._facts.items()
        }
        outputs = {}
        if self.trains:
            linelist = path.with_name(f"{path.stem}.caption.linelist.tsv")
            facts["caption_linelist"] = linelist.name
            outputs[linelist] = "".join(self._line(*self._samples[number]) for number in kept).encode()
        return outputs | {path: yaml.safe_dump(facts, sort_keys=False, allow_unicode=True).encode()}

    def _line(self, row: int, caption: int) -> str:
        """Line of the line list; in a composite split it begins with the number of the caption TSV."""
        firsts = self._folder.firsts.tolist()
        file = bisect_right(firsts, row) - 1
        numbers = (file, row - firsts[file], caption)
        return "\t".join(map(str, numbers[0 if self._folder.composite else 1 :])) + "\n"


Source = TextFile | CaptionSplit


def open_sources(dataset: str, data_root: Path, output_folder: Path, allow_missing: bool) -> list[Source]:
    """Opens and checks all files of a data set. DataError if a required file is missing, or none exists."""
    tasks, folder = TASKS[dataset]
    texts = {data_root / f"txt_{task}.json": "" for task in tasks}
    yamls = {data_root / folder / f"{split}_32frames.yaml": split for split in SPLITS} if folder else {}
    missing = [path for path in (*texts, *yamls) if not path.is_file()]
    needed = [path for path in missing if not allow_missing and path.name not in OPTIONAL]
    if needed or len(missing) == len(texts) + len(yamls):
        raise DataError(
            f"{', '.join(map(str, needed or missing))}: no such file{looked_from(*missing)}, "
            "so that its val and test videos could stay in "
            "training. Check --data_root; --allow_missing goes on without what is missing"
        )
    for path in missing:
        old = output_folder / path.relative_to(data_root)
        stays = f"; {old} of an earlier run stays as it is" if old.is_file() else ""
        LOGGER.warning("%s is missing and left out: its val and test videos are not removed%s", path, stays)
    present = {path: split for path, split in (texts | yamls).items() if path not in missing}
    return [CaptionSplit(path, split) if split else TextFile(path) for path, split in present.items()]


def coco_videos(path: Path) -> list[str]:
    """Videos of a COCO captions file: those with an annotation, and those listed as images."""
    content, annotations = read_coco(path)
    images = content.get("images")
    videos = [coco_id(entry, f"{path}, annotation {n} (counted from 0)") for n, entry in enumerate(annotations)]
    listed = [entry for entry in images if isinstance(entry, dict)] if isinstance(images, list) else []
    named = [entry.get(key) for entry in listed for key in ("id", "file_name")]
    return [*videos, *(str(name) for name in named if name is not None)]


def count_videos(videos: Iterable[str]) -> int:
    return len({without_extension(video) for video in videos})


def print_table(head: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for name, *numbers in (head, *rows):
        print(name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:]), sep="  ")


def moved(names: Any, old: Path, new: Path) -> Any:
    """File name, or list of names, relative to folder `new` instead of `old`."""
    if isinstance(names, list):
        return [moved(name, old, new) for name in names]
    # Unresolved, so that a run sees that it stays in the data folder. But ".." after a link leads to the parent of the
    # link's target: then links are resolved, except for the file itself, since its index is beside it.
    file = old / names
    written = os.path.relpath(file, new)
    if os.path.realpath(new / written) == os.path.realpath(file):
        return written
    return os.path.relpath(Path(os.path.realpath(file.parent)) / file.name, os.path.realpath(new))


if __name__ == "__main__":
    run(main)
