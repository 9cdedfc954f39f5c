"""Byte offsets of videos in a frame TSV: read from `img_<dataset>.id2lineidx.pkl`, or built from the TSV."""

import logging
import pickle
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lavender.data.ids import VideoIds, without_extension
from lavender.data.tsv import TSVReader
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, looked_from, refuse_mistaken
from lavender.runtime.pickles import check_pickle
from lavender.runtime.quoting import one_line, shown

LOGGER = logging.getLogger("lavender.data")

_NO_OFFSET = 2**63  # larger than any file
_ROWS_COMPARED = 2000  # rows of an index that are checked against the TSV when it is opened

# Errors of pickle for bytes that are not a complete pickle.
_CUT_OR_MANGLED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler for builtin values only (dict, list, str, int, …); an object of any class is an error that names it."""

    path: Path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"{self.path} holds a {module}.{name}; only dicts, lists, strings and integers are loaded")

    def persistent_load(self, identifier: Any) -> NoReturn:
        raise DataError(f"{self.path} refers to data outside the file; only plain dicts are loaded")


def load_plain_pickle(path: str | Path) -> dict[Any, Any]:
    """Loads the dict in an untrusted pickle in safe mode: no code in the file can run.

    Raises:
        DataError: the file is missing or truncated, holds an object of a class (which is named), or is not a dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file{looked_from(path)}")
    refuse_mistaken(path, DataError)
    with open(path, "rb") as file:
        unpickler = _PlainUnpickler(file)
        unpickler.path = path
        try:
            check_pickle(file)
            file.seek(0)
            content = unpickler.load()
        except _CUT_OR_MANGLED as error:
            raise DataError(f"{path} is cut or is no pickle ({one_line(str(error)) or type(error).__name__})") from None
    if type(content) is not dict:
        raise DataError(f"{path} holds a {type(content).__name__}, not a dict")
    return content


def load_id2lineidx(path: str | Path) -> dict[str, int]:
    """Video key → byte offset, from a pickled dict of str to int. DataError for other contents."""
    offsets = load_plain_pickle(path)
    for key, offset in offsets.items():
        if type(key) is not str or type(offset) is not int:
            kinds = f"{type(key).__name__} → {type(offset).__name__}"
            raise DataError(f"{path}: entry {shown(key)} is {kinds}, not str → int (a byte offset)")
        if abs(offset) >= _NO_OFFSET:
            raise DataError(
                f"{path}: entry {shown(key)} is {shown(offset)}, which is not a byte offset; delete the index"
            )
    return offsets


def index_of(tsv: str | Path) -> dict[str, int]:
    """Builds video id → byte offset from the rows of a TSV.

    If an id is on several rows, the last row is used, as in the original tool's indices, and a warning is logged.
    """
    reader = TSVReader(tsv)
    rows = {reader.video_id(number): int(reader.offsets[number]) for number in range(len(reader))}
    if repeated := len(reader) - len(rows):
        LOGGER.warning("%s: %d rows repeat an earlier id; the last row of each id is used", tsv, repeated)
    return rows


def write_id2lineidx(tsv: str | Path, out: str | Path) -> int:
    """Writes the index of a TSV as a pickled dict and returns the number of its videos.

    Ids are written without media extension, unless this names another row, too.
    """
    offsets = index_of(tsv)
    bare = Counter(map(without_extension, offsets))
    shared = {name for name in offsets if without_extension(name) != name} | {n for n, c in bare.items() if c > 1}
    short = {name: name if without_extension(name) in shared else without_extension(name) for name in offsets}
    offsets = {short[name]: offset for name, offset in offsets.items()}
    with atomic_file(out) as file:
        pickle.dump(offsets, file)
    return len(offsets)


class VideoIndex:
    """Byte offset of each video of a frame TSV. Ids are looked up by the rules of `lavender.data.ids`.

    Args:
        tsv_path: the TSV; the index is built from it if there is no pickle, or one that does not fit (older than the
            TSV, or with ids cut at their dots). This is logged.
        pkl_path: pickled index; by default `X.id2lineidx.pkl` beside `X.tsv`. A given one is not compared with the
            TSV.

    Raises:
        DataError: the pickle holds anything but str → int, or the TSV cannot be read.
    """

    def __init__(self, tsv_path: str | Path, pkl_path: str | Path | None = None):
        self.path = Path(pkl_path) if pkl_path is not None else Path(tsv_path).with_suffix(".id2lineidx.pkl")
        fault = "is missing"
        if self.path.is_file():
            _refuse_too_large(self.path, Path(tsv_path))
            self._offsets = load_id2lineidx(self.path)
            fault = _misfit(self._offsets, TSVReader(tsv_path)) if pkl_path is None else ""
        if fault:
            LOGGER.info("%s %s: reading the ids from %s", self.path, fault, tsv_path)
            self.path = Path(tsv_path)
            self._offsets = index_of(tsv_path)
        self._ids = VideoIds(self._offsets, self.path)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, video_id: str) -> bool:
        return self._ids.find(video_id) is not None

    def offset(self, video_id: str) -> int:
        """Byte offset of the row of a video.

        Raises:
            DataError: the video is not in the index, or the id is ambiguous.
        """
        name = self._ids.find(video_id)
        if name is None:
            raise DataError(f"{self.path} has no video {shown(video_id)} among its {len(self)}{self.hint(video_id)}")
        return self._offsets[name]

    def hint(self, video_id: str) -> str:
        """See `VideoIds.hint`."""
        return self._ids.hint(video_id)


def _refuse_too_large(index: Path, tsv: Path) -> None:
    """Rejects an index larger than its TSV: each id occurs once in the index and begins a row of the TSV."""
    size, most = index.stat().st_size, 4 * tsv.stat().st_size + 2**20 if tsv.is_file() else 0
    if most and size > most:
        raise DataError(f"{index} has {size:,} bytes, too many for an index of {tsv}; delete it to have it rebuilt")


def _misfit(offsets: dict[str, int], reader: TSVReader) -> str:
    """Reason why an index does not fit a TSV; "" if its rows, or a sample of many rows, have the ids of the index."""
    entries = list(offsets.items())
    for place in _sample(len(entries)):
        name, offset = entries[place]
        row = int(np.searchsorted(reader.offsets, offset))
        if row == len(reader) or reader.offsets[row] != offset:
            return f"does not fit (no row starts at byte {offset}, where it has {shown(name)})"
        video_id = reader.video_id(row)
        if without_extension(video_id) != without_extension(name):
            return f"does not fit (it has {shown(name)} where the row is {shown(video_id)})"
    known = {without_extension(name) for name in offsets}
    unnamed = np.setdiff1d(reader.offsets, np.fromiter(offsets.values(), np.int64, len(offsets)))
    for place in _sample(len(unnamed)):
        video_id = reader.video_id(int(np.searchsorted(reader.offsets, unnamed[place])))
        if without_extension(video_id) not in known:
            return f"does not fit (it lacks {shown(video_id)})"
    return ""


def _sample(count: int) -> list[int]:
    """At most `_ROWS_COMPARED` evenly spread positions among `count`, including the first and last."""
    return np.unique(np.linspace(0, count - 1, min(count, _ROWS_COMPARED)).astype(int)).tolist()
