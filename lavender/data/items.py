"""Downstream data: items of `txt_<task>.json`, with frames found by video id."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lavender.config.schema import Config
from lavender.data.annotations import ItemTable, check_text, misnamed_split, read_splits
from lavender.data.official import EXPECTED, item_advice
from lavender.data.samples import ClipDataset, draw_share, split_share
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.data.sources.choose import frame_source
from lavender.runtime.errors import ConfigError, DataError
from lavender.runtime.files import looked_from, mistaken_file
from lavender.runtime.quoting import shown, shown_json
from lavender.text.masking import IGNORED
from lavender.text.tokens import TextTokenizer

LOGGER = logging.getLogger("lavender.data")

Item = dict[str, Any]
OnFault = Callable[[int, DataError], None]


def open_frames(config: Config) -> FrameSource:
    """Opens the frames of `dataset`; a TSV is `img_<dataset>.tsv` in `img_tsv_dir`, else `data_dir`, else its parent.

    Raises:
        ConfigError: no data set is named. DataError: the frames are missing, or their ids cannot be read.
    """
    if not config.dataset:
        raise ConfigError('"dataset" is empty: name the data set whose frames are in img_<dataset>.tsv')
    name = f"img_{config.dataset}.tsv"
    source = frame_source(config, lambda: _look_up(config.img_tsv_dir, config, name, "--img_tsv_dir"))
    if not len(source):
        raise DataError(f"{source.path}: {mistaken_file(source.path) or 'it has no rows'}")
    source.load_ids()
    return source


class Items:
    """Items of each split; each is an object with at least a `video`.

    Args:
        path: their file, for messages; content: split → list of items, and the other keys of the file.

    Raises:
        DataError: raised on access: an item is malformed.
    """

    def __init__(self, path: Path, content: dict[str, Any]):
        self.path, self.content = path, content
        self._checked: set[str] = set()  # splits

    def items(self, split: str) -> list[Item]:
        """Items of a split; empty if the file lacks the split."""
        items = self.content.get(split) or []
        if split in self._checked:
            return items
        if not isinstance(items, list):
            raise DataError(f'{self.path}: "{split}" is a {type(items).__name__}, not a list of items')
        for number, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get("video"), str):
                hint = item_advice(item)
                if isinstance(item, dict) and isinstance(number_id := item.get("video"), int | float):
                    hint = f"; write the id {shown_json(number_id)} in quotes, as the frame file has it"
                raise DataError(f'{self.where(split, number)}: an object with a "video" (text) is expected{hint}')
            check_text(item["video"], '"video"', self.where(split, number))
        self._checked.add(split)
        return items

    def misnamed(self, split: str) -> str:
        """Sentence part with the probable name in the file of a split that it lacks; else ""."""
        return misnamed_split(self.content, split)

    def where(self, split: str, number: int) -> str:
        """Name of item `number` (from 0) of a split in messages."""
        return f"{self.path}, {split}, item {number} (counted from 0)"


class ItemFile(Items):
    """`txt_<task>.json`.

    Args:
        config: gives `task`, and the folder: `txt_dir`, else `data_dir`, else its parent.

    Raises:
        ConfigError: no task is named. DataError: the file is missing or not JSON.
    """

    def __init__(self, config: Config):
        if not config.task:
            raise ConfigError('"task" is empty: name the task whose text is in txt_<task>.json')
        path = _look_up(config.txt_dir, config, f"txt_{config.task}.json", "--txt_dir")
        super().__init__(path, read_splits(path, config.type if config.type in EXPECTED else ""))


class ItemDataset(ClipDataset):
    """One split of items with their frames. Subclasses check items and turn them into tokens.

    All items are checked before a run begins. In training, `data_ratio` draws a part of the videos, with all items of
    each.

    Args:
        frames, texts: frames and items, shared by the splits of a task.
        split: `train`, `val` or `test`.
        on_fault: receives number and fault of each malformed item, which is then skipped; without it, a malformed item
            is an error.

    Raises:
        DataError: a malformed item or, unless `on_bad_sample` is `zero`, an unknown video.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: TextTokenizer,
        frames: FrameSource,
        texts: Items,
        split: str,
        on_fault: OnFault | None = None,
    ):
        super().__init__(config, split == "train", config.size_frame)
        self.tokenizer, self.frames, self.split = tokenizer, frames, split
        items = []
        for number, item in enumerate(texts.items(split)):
            try:
                self.check(item, texts.where(split, number))
            except DataError as fault:
                if on_fault is None:
                    raise
                on_fault(number, fault)
            else:
                items.append(item)
        self._check_videos(items, texts, split)
        self.items = ItemTable(self.kept(items))

    def kept(self, items: list[Item]) -> list[Item]:
        """Items of the split that are used: all, or in training those of a part of the videos (`data_ratio`)."""
        if self.training and self.config.data_ratio != 1:
            return _share_of_videos(items, self.frames, self.config.data_ratio, self.config.seed)
        return items

    @abstractmethod
    def check(self, item: Item, where: str) -> None:
        """Raises DataError if an item is malformed; `where` names it."""

    def allow_blind(self, item: Item, where: str) -> None:
        """Raises DataError for an item without an answer, except in the `test` split."""
        if self.split != "test":
            value = item.get("answer")
            found = "missing" if value is None else shown_json(value)
            raise DataError(
                f'{where}: "answer" is {found}; only test items may have no answer, {self.split} items need one'
            )

    def __len__(self) -> int:
        return len(self.items)

    def video(self, index: int) -> StoredVideo:
        return self.frames.find(self.items[index]["video"])

    def video_ids(self) -> Iterable[str]:
        return (self.items[number]["video"] for number in range(len(self)))

    def _check_videos(self, items: Sequence[Item], texts: Items, split: str) -> None:
        unknown = [number for number, item in enumerate(items) if item["video"] not in self.frames]
        if not unknown:
            return
        first = unknown[0]
        fault = (
            f"{texts.where(split, first)}: video {shown(items[first]['video'])} is not in {self.frames.known_from}"
            f"{self.frames.hint(items[first]['video'])} ({len(unknown)} of {len(items)} items have no video)"
        )
        if self.config.on_bad_sample == "error":
            raise DataError(f"{fault}; --on_bad_sample zero replaces them by zeros and counts them")
        LOGGER.info("%s: zeros are used", fault)


def require_text(item: Item, key: str, where: str) -> str:
    """Text of a key, which may be empty. DataError if it is missing or invalid."""
    value = item.get(key)
    if not isinstance(value, str):
        raise DataError(f'{where}: "{key}" is {"missing" if value is None else f"not text: {shown_json(value)}"}')
    return check_text(value, f'"{key}"', where)


def require_index(item: Item, key: str, size: int, of: str, where: str) -> int:
    """Integer of a key, from 0 to `size` − 1. DataError otherwise; `of` says what it counts."""
    value = item.get(key)
    if type(value) is not int:
        found = "missing" if value is None else f"no whole number: {shown_json(value)}"
        raise DataError(f'{where}: "{key}" is {found}')
    if not 0 <= value < size:
        raise DataError(f'{where}: "{key}" is {shown(value)}, but {of} (0 to {size - 1})')
    return value


def is_missing(value: Any) -> bool:
    """Whether an answer is withheld, as in a blind test split: missing, blank, −1, or NaN."""
    return value is None or value == IGNORED or value != value or (isinstance(value, str) and not value.strip())


def _look_up(folder: str, config: Config, name: str, option: str) -> Path:
    """File in `folder`, else in `data_dir`, else in its parent (multi-task text has its own folder)."""
    folders = [Path(folder)] if folder else [Path(config.data_dir), Path(config.data_dir).parent]
    for place in folders:
        if (place / name).is_file():
            return place / name
    path = folders[0] / name
    fault = f"{path}: there is no such file{looked_from(path)}; check --data_dir (or {option}) and --dataset, --task"
    videos = "; --video_dir reads videos instead" if option == "--img_tsv_dir" and not config.video_dir else ""
    raise DataError(fault + videos)


def _share_of_videos(items: Sequence[Item], frames: FrameSource, ratio: float, seed: int) -> list[Item]:
    identities = [frames.identity(item["video"]) for item in items]
    videos = list(dict.fromkeys(identities))
    (wanted,) = split_share([len(videos)], ratio)
    kept = {videos[number] for number in draw_share(len(videos), wanted, seed)}
    return [item for item, identity in zip(items, identities, strict=True) if identity in kept]
