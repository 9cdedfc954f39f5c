"""Outputs made from published annotations: item files, captioning folders and pretraining captions."""

import json
import random
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavender.data.ids import VideoIds
from lavender.prepare.configs import SCRIPTS
from lavender.prepare.rows import SPLITS
from lavender.prepare.texts import by_split, number_answers, number_options, write_caption_split, write_json
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file
from lavender.runtime.quoting import shown
from lavender.text.masking import IGNORED

Item = dict[str, Any]
_NAMED = 5  # number of missing videos named in a report
_WORD = re.compile(r"\w+")


class Presence:
    """Which annotated videos exist.

    Args:
        ids: existing videos; None: not looked up, all count as existing.
        drop: leave out items of missing videos.
    """

    def __init__(self, ids: VideoIds | None, drop: bool = False):
        self._ids, self._drop = ids, drop
        self._seen: dict[str, bool] = {}
        self._items: Counter[str] = Counter()  # split → number of items without their video

    @property
    def missing(self) -> list[str]:
        """Missing videos, in the order of the annotations."""
        return [name for name, there in self._seen.items() if not there]

    def keep(self, video: str, split: str) -> bool:
        """Records a video; returns whether its item is written."""
        if self._ids is None:
            return True
        if video not in self._seen:
            self._seen[video] = self._ids.find(video) is not None
        self._items[split] += not self._seen[video]
        return self._seen[video] or not self._drop

    def report(self) -> list[str]:
        """Result, one line per fact."""
        if self._ids is None:
            return []
        missing = self.missing
        if not missing:
            return [f"{self._ids.where}: all {len(self._seen):,} videos are there"]
        named = ", ".join(map(shown, missing[:_NAMED])) + (", …" if len(missing) > _NAMED else "")
        items = ", ".join(f"{self._items[split]:,} {split}" for split in SPLITS if self._items[split])
        done = "left out" if self._drop else "kept; --drop_missing leaves them out"
        every = " (are --videos or --frames those of this data set?)" if len(missing) == len(self._seen) else ""
        return [
            f"{self._ids.where}: {len(missing):,} of {len(self._seen):,} videos are missing: {named}"
            f"{self._ids.hint(missing[0])}{every}",
            f"items without their video: {items} ({done})",
        ]


@dataclass
class Output:
    """Output for a task.

    Attributes:
        task: its name in the configurations, `args_<task>.json`.
        script: its training script.
    """

    task: str

    @property
    @abstractmethod
    def script(self) -> str:
        """Training script of the task."""

    @abstractmethod
    def paths(self, folder: Path) -> list[Path]:
        """Files in a folder that are passed to a run."""

    def files(self, folder: Path) -> list[Path]:
        """All files that `write` creates there, except indices."""
        return self.paths(folder)

    @abstractmethod
    def write(self, folder: Path, presence: Presence) -> list[str]:
        """Writes the files. Returns report lines that begin with the number of items per split."""

    @property
    def command(self) -> list[str]:
        """Training script and its options, without `--data_dir` and those of the frames."""
        return [self.script, "--config", f"_args/args_{self.task}.json"]


@dataclass
class Items(Output):
    """`txt_<task>.json`.

    Args:
        items: objects with `video`, `split` and the keys of their kind: `caption`; `question` and `answer_text`;
            `question`, `options` and `answer` (None: withheld).
        size_vocab: for QA, the number of classes of the task-specific head.
    """

    items: list[Item]
    size_vocab: int = 0

    def paths(self, folder: Path) -> list[Path]:
        return [folder / f"txt_{self.task}.json"]

    def write(self, folder: Path, presence: Presence) -> list[str]:
        splits = present(self.items, presence, self.task)
        report = [counted(splits, "items")]
        report += self.finish(splits)
        write_json(self.paths(folder)[0], splits)
        return report

    def finish(self, splits: dict[str, Any]) -> list[str]:
        """Converts the items of all splits to their final form; returns report lines."""
        return []


class Retrieval(Items):
    """Videos and captions; a caption is a text, or a list of sentences."""

    script = SCRIPTS["retrieval"][0]

    def finish(self, splits: dict[str, Any]) -> list[str]:
        videos = {split: {item["video"] for item in splits[split]} for split in SPLITS}
        return [counted(videos, "videos")]


class Questions(Items):
    """Questions with one-word answers."""

    @property
    def script(self) -> str:
        return "main_qaoe_mlm_lsmdc_fib.py" if self.task == "lsmdc-fib" else SCRIPTS["qaoe"][0]

    def finish(self, splits: dict[str, Any]) -> list[str]:
        items = {split: splits[split] for split in SPLITS}
        several = {split: [item for item in items[split] if not _is_word(item["answer_text"])] for split in SPLITS}
        classes = number_answers(items, self.size_vocab)
        if splits["train"] and not classes:
            raise DataError(f"{self.task}: the questions to train on have no answers")
        splits["ans2label"] = classes
        without = {split: [item for item in items[split] if item.get("answer") == IGNORED] for split in SPLITS}
        blind = {split: [item for item in items[split] if "answer_text" not in item] for split in SPLITS}
        lines = [counted(several, "answers that are not one word, and are never right with the MLM head")]
        lines += [counted(without, f"answers outside the {len(classes):,} classes of the task-specific head")]
        return lines + ([counted(blind, "questions without an answer")] if any(blind.values()) else [])


class Choices(Items):
    """Questions with options."""

    @property
    def script(self) -> str:
        return "main_retmc_mlm_head.py" if self.task.endswith("-mc") else SCRIPTS["qamc"][0]

    def finish(self, splits: dict[str, Any]) -> list[str]:
        number_options(splits)
        blind = {split: [item for item in splits[split] if "answer" not in item] for split in SPLITS}
        return [counted(blind, "questions without an answer")] if any(blind.values()) else []


@dataclass
class Captions(Output):
    """Captioning folder with `<split>_32frames.yaml`, named as in the released configurations.

    Args:
        folder: its name; dataset: name of the frame file `img_<dataset>.tsv` beside the folder.
        items: objects with `video`, `caption`, `split`.
    """

    folder: str
    dataset: str
    items: list[Item]
    script = SCRIPTS["captioning"][0]

    def paths(self, folder: Path) -> list[Path]:
        splits = {item["split"] for item in self.items}
        return [folder / self.folder / f"{split}_32frames.yaml" for split in SPLITS if split in splits]

    def files(self, folder: Path) -> list[Path]:
        ends = (".yaml", ".caption.tsv", ".caption.linelist.tsv", ".caption_coco_format.json")
        return [path.with_name(path.stem + end) for path in self.paths(folder) for end in ends]

    @property
    def command(self) -> list[str]:
        splits = {item["split"] for item in self.items}
        return super().command + [word for split in SPLITS if split not in splits for word in (f"--{split}_yaml", "")]

    def write(self, folder: Path, presence: Presence) -> list[str]:
        splits = present(self.items, presence, self.task)
        (folder / self.folder).mkdir(parents=True, exist_ok=True)
        texts: dict[str, dict[str, list[str]]] = {split: {} for split in SPLITS}
        for split in SPLITS:
            for item in splits[split]:
                texts[split].setdefault(item["video"], []).append(item["caption"])
            if texts[split]:
                write_caption_split(
                    folder / self.folder, f"{split}_32frames", f"../img_{self.dataset}.tsv", texts[split]
                )
        return [counted(texts, "videos"), counted(splits, "captions")]


@dataclass
class Pretraining(Output):
    """`txt_<dataset>.json`, written while it is read: a corpus can have ten million captions.

    Args:
        task: the corpus; config, options: training configuration, and additional options.
        splits: split → function that begins a new pass over its pairs of id and caption.
    """

    config: str
    options: list[str]
    splits: Mapping[str, Callable[[], Iterator[tuple[str, str]]]]
    script = "main_pretrain_mlm.py"

    @property
    def command(self) -> list[str]:
        return [self.script, "--config", f"_args/{self.config}", *self.options]

    def paths(self, folder: Path) -> list[Path]:
        return [folder / f"txt_{self.task}.json"]

    def write(self, folder: Path, presence: Presence) -> list[str]:
        counts: dict[str, int] = {}
        repeated: Counter[str] = Counter()
        known: set[str] = set()
        with atomic_file(self.paths(folder)[0]) as file:
            for split, pairs in self.splits.items():
                file.write(f'{", " if counts else "{"}"{split}": {{'.encode())
                counts[split] = 0
                for video, caption in pairs():
                    if video in known:
                        repeated[split] += 1
                    elif presence.keep(video, split):
                        comma = ", " if counts[split] else ""
                        file.write(f"{comma}{json.dumps(video)}: [{json.dumps(caption, ensure_ascii=False)}]".encode())
                        counts[split] += 1
                    known.add(video)
                if not counts[split]:
                    raise DataError(f"{self.task}: no captions for {split}; {self.paths(folder)[0]} is not written")
                file.write(b"}")
            file.write(b"}\n")
        report = [", ".join(f"{count:,} {split}" for split, count in counts.items()) + " captions"]
        if repeated:
            again = ", ".join(f"{count:,} {split}" for split, count in repeated.items())
            report.append(f"{again} captions of ids that came before are left out")
        return report


def hold_out(items: Iterable[Item], share: float, seed: int) -> None:
    """Moves a fraction `share` of the training videos to `val`, at random, reproducible for a seed."""
    training = [item for item in items if item["split"] == "train"]
    videos = sorted({item["video"] for item in training})
    drawn = set(random.Random(seed).sample(videos, round(share * len(videos))))
    for item in training:
        if item["video"] in drawn:
            item["split"] = "val"


def present(items: Iterable[Item], presence: Presence, task: str) -> dict[str, list[Item]]:
    """Items of each split to write. DataError if there are none."""
    splits = by_split(item for item in items if presence.keep(item["video"], item["split"]))
    if not any(splits.values()):
        raise DataError(f"{task}: no items are left; " + "; ".join(presence.report() or ["the files have none"]))
    return splits


def counted(splits: Mapping[str, Any], what: str) -> str:
    """`1,000 train, 100 val, 0 test items`."""
    return ", ".join(f"{len(splits[split]):,} {split}" for split in SPLITS) + f" {what}"


def _is_word(answer: str) -> bool:
    return not answer or _WORD.fullmatch(answer) is not None
