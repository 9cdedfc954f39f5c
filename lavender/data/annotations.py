"""Text files: JSON with errors that name the place, and caption tables that worker processes share."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lavender.data import official
from lavender.data.caption_arrays import CaptionArrays, CaptionBuilder, InMemory
from lavender.data.ids import file_name, has_folder, plain, without_extension
from lavender.data.sources.base import FrameSource
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from, read_text
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import shown, shown_json

LOGGER = logging.getLogger("lavender.data")

MAX_CAPTION_WORDS = 1000  # a longer text is a broken file, not a caption
_AT_ONCE = 1 << 14  # ids per lookup

SPLIT_NAMES = {  # split → its names in other programs
    "train": ("train", "training", "trainset", "train_set", "train_split"),
    "val": ("val", "validation", "valid", "validate", "dev", "eval", "evaluation", "val_set", "val_split"),
    "test": ("test", "testing", "tests", "testset", "test_set", "test_split"),
}


def read_json(path: Path, expected: str = "") -> dict[str, Any]:
    """Reads the object of a text JSON; of a repeated key the last value is used, with a warning in the log.

    Args:
        expected: key of `official.EXPECTED`, for advice if the file belongs to another project.

    Raises:
        DataError: the file is missing, not JSON (with line and column), not UTF-8, or not an object.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such text file{looked_from(path)}; check --data_dir (or --txt_dir) and the dataset's name"
        )
    repeated: list[str] = []

    def last_counts(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            times = Counter(key for key, _ in pairs)
            repeated.extend(key for key, count in times.items() if count > 1)
        return found

    try:
        text = read_text(path, DataError)
        content = load_json(text, object_pairs_hook=last_counts)
    except json.JSONDecodeError as error:
        if hint := official.table_advice(text, expected):
            raise DataError(f"{path}: {hint}") from None
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from error
    if not isinstance(content, dict):
        if hint := official.advice(content, expected):
            raise DataError(f"{path}: {hint}")
        raise DataError(
            f'{path}: a JSON object with "train", "val" and "test" is expected, not a {type(content).__name__}'
        )
    if repeated:
        warn_of_repeated(path, len(repeated), repeated[:5])
    return content


def warn_of_repeated(path: Path, count: int, first: Sequence[str]) -> None:
    """Logs that `count` keys of a file are repeated within one object, and names the first."""
    named = ", ".join(map(shown_json, first))
    LOGGER.warning("%s: %d keys are given twice in one object; the last value is used: %s", path, count, named)


def read_splits(path: Path, expected: str = "") -> dict[str, Any]:
    """Like `read_json`, for a file of splits; files of other projects give an error that says what to write instead."""
    content = read_json(path, expected)
    known = any(key.strip().lower() in names for key in content for names in SPLIT_NAMES.values())
    if not known and (hint := official.advice(content, expected)):
        raise DataError(f"{path}: {hint}")
    return content


def misnamed_split(content: Mapping[str, Any], split: str) -> str:
    """Sentence part with the probable name in the file of a split that it lacks; else ""."""
    if content.get(split):
        return ""
    found = next((key for key in content if key.strip().lower() in SPLIT_NAMES[split] and key != split), None)
    return f' (found {shown_json(found)}; rename it "{split}")' if found else ""


def check_caption(caption: Any, where: str) -> str:
    """Returns the caption; DataError if it is not a text, is empty, or is longer than `MAX_CAPTION_WORDS`."""
    if not isinstance(caption, str) or not caption.strip():
        fault = "empty" if isinstance(caption, str) else f"not text: {shown_json(caption)}"
        raise DataError(f"{where}: the caption is {fault}")
    return check_text(caption, "the caption", where)


def check_text(text: str, what: str, where: str) -> str:
    """Returns the text; DataError if it has invalid Unicode or more than `MAX_CAPTION_WORDS` words."""
    if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"{where}: {what} holds invalid Unicode (a lone surrogate): write it as UTF-8")
    words = len(text.split())
    if words > MAX_CAPTION_WORDS:
        raise DataError(f"{where}: {what} has {words:,} words; a caption has at most {MAX_CAPTION_WORDS:,}")
    return text


class ItemTable:
    """List of JSON objects as one byte array with offsets, shared by worker processes like `CaptionTable`."""

    def __init__(self, items: Iterable[Mapping[str, Any]]):
        self._bytes, self._ends = _join(json.dumps(item) for item in items)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return json.loads(_slice(self._bytes, self._ends, number))


class HasArrays(Protocol):
    """Captions in memory or in a file."""

    @property
    def arrays(self) -> CaptionArrays:
        """Arrays of the captions."""


class CaptionTable:
    """Video id → first caption, as a few arrays.

    Reference counts make each forked worker copy a dictionary of millions of strings; arrays stay shared.

    Args:
        captions: video id → list of captions, or one caption (pretraining's text format).
        where: file and split, for messages.
    """

    def __init__(self, captions: Mapping[str, Any], where: str):
        self.where = where
        texts = bytearray()
        builder = CaptionBuilder(texts.extend)
        for name, value in captions.items():
            builder.add(str(name), first_caption(value))
        self._source: HasArrays = InMemory(builder.arrays(np.frombuffer(texts, np.uint8)))

    @classmethod
    def of(cls, source: HasArrays, where: str) -> "CaptionTable":
        """Makes a table from existing arrays.

        Args:
            source: owner of the arrays; it is pickled in their place.
        """
        table = cls.__new__(cls)
        table.where, table._source = where, source
        return table

    @property
    def _arrays(self) -> CaptionArrays:
        return self._source.arrays

    def caption(self, video_id: str) -> str:
        """Returns the caption of a video.

        Raises:
            DataError: the id is unknown or ambiguous, or the caption is empty or too long.
        """
        row = self._row(video_id)
        if row is None:
            raise DataError(f"{self.where}: no caption for video {shown_json(video_id)}")
        text = self._arrays.text(row).decode(errors="surrogatepass")
        where = f"{self.where}, video {shown_json(video_id)}"
        if not text:  # or not a text, see `first_caption`
            raise DataError(f"{where}: the caption is empty or not text; a text or a list of texts is expected")
        return check_caption(text, where)

    def positions_of(self, video_ids: Sequence[str]) -> list[int]:
        """Positions of the ids that have a caption, whatever its value.

        Raises:
            DataError: an id is ambiguous, or two ids with folders share a caption by their file name.
        """
        arrays, places = self._arrays, []
        owners = np.full(0 if arrays.folders else len(arrays.name_ends), -1, np.int64)  # name → position of the video
        for start in range(0, len(video_ids), _AT_ONCE):
            ids = [video_ids[place] for place in range(start, min(start + _AT_ONCE, len(video_ids)))]
            exact = arrays.find_all([_bytes(video_id) for video_id in ids])
            for place, (video_id, row) in enumerate(zip(ids, exact, strict=True), start=start):
                if row is None or arrays.rivals_of(row):
                    row = self._row(video_id)
                if row is None:
                    continue
                places.append(place)
                if not arrays.folders and has_folder(video_id):
                    if owners[row] < 0:
                        owners[row] = place
                    other = video_ids[int(owners[row])]
                    if plain(other) != plain(video_id):
                        name = arrays.name(row).decode(errors="surrogatepass")
                        raise DataError(
                            f"{self.where}: the caption of {shown(name)} could be of {shown(plain(other))} or "
                            f"{shown(video_id)}; use the same ids in both files"
                        )
        return places

    def _row(self, video_id: str) -> int | None:
        """Row of the likeliest known spelling of an id."""
        shorteners = (str, without_extension, plain, *(() if self._arrays.folders else (file_name,)))
        for name in dict.fromkeys(shorten(video_id) for shorten in shorteners):
            row = self._arrays.find(_bytes(name))
            if row is not None:
                if rivals := self._arrays.rivals_of(row):
                    one, other = map(shown, rivals)
                    raise DataError(
                        f"{self.where}: {shown(video_id)} could be {one} or {other}; use the same ids in both files"
                    )
                return row
        return None

    def check_file_names(self, videos: FrameSource) -> None:
        """Rejects frames whose ids have folders if they would share captions by their file names.

        Raises:
            DataError: two different ids with folders have one file name, and the captions' ids have no folders.
        """
        arrays = self._arrays
        sample = range(0, len(videos), max(1, len(videos) // 64))
        if arrays.folders or not any(has_folder(videos.video_id(number)) for number in sample):
            return
        owners = np.full(len(arrays.name_ends), -1, np.int64)  # name → number of the video
        for number in range(len(videos)):
            video = plain(videos.video_id(number))
            if not has_folder(video) or arrays.find(video.encode()) is not None:
                continue
            row = arrays.find(file_name(video).encode())
            if row is None:
                continue
            if owners[row] < 0:
                owners[row] = number
            other = plain(videos.video_id(int(owners[row])))
            if other != video:
                raise DataError(
                    f"{videos.where(number)}: the caption of {shown(file_name(video))} in {self.where} could be of "
                    f"{shown(other)} or {shown(video)}; use the same ids in both files"
                )


def first_caption(value: Any) -> str:
    """Returns the caption, or the first of a list of captions; "" if it is not a text."""
    if isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogatepass")


def _join(texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [text.encode(errors="surrogatepass") for text in texts]  # lone surrogates are reported on reading
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def _slice(joined: np.ndarray, ends: np.ndarray, row: int) -> bytes:
    return joined[ends[row - 1] if row else 0 : ends[row]].tobytes()
