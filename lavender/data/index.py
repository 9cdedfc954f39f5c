"""Which byte of a frame TSV a video starts at: `img_<dataset>.id2lineidx.pkl`, or the same built from the TSV."""

import logging
import pickle
from pathlib import Path, PurePath
from typing import Any, NoReturn

from lavender.data.tsv import TSVReader
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file

logger = logging.getLogger("lavender.data")


# What pickle raises for bytes that are no whole pickle.
_CUT_OR_MANGLED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _PlainUnpickler(pickle.Unpickler):
    """Admits what pickle has opcodes for (dict, list, str, int, …); an object of any class is refused by its name."""

    path: Path

    def find_class(self, module: str, name: str) -> NoReturn:
        raise DataError(f"{self.path} holds a {module}.{name}; only dicts, lists, strings and integers are loaded")

    def persistent_load(self, identifier: Any) -> NoReturn:
        raise DataError(f"{self.path} refers to data outside the file; only plain dicts are loaded")


def load_plain_pickle(path: str | Path) -> dict[Any, Any]:
    """The dict in a pickle that comes from strangers; nothing in the file can run code.

    Raises:
        DataError: the file is missing or cut, holds an object of a class (named), or is not a dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file")
    with open(path, "rb") as file:
        unpickler = _PlainUnpickler(file)
        unpickler.path = path
        try:
            content = unpickler.load()
        except _CUT_OR_MANGLED as error:
            raise DataError(f"{path} is cut or is no pickle ({str(error) or type(error).__name__})") from None
    if type(content) is not dict:
        raise DataError(f"{path} holds a {type(content).__name__}, not a dict")
    return content


def load_id2lineidx(path: str | Path) -> dict[str, int]:
    """Video key → byte offset, from a pickled dict of str to int; all else is refused by its name (DataError)."""
    offsets = load_plain_pickle(path)
    for key, offset in offsets.items():
        if type(key) is not str or type(offset) is not int:
            kinds = f"{type(key).__name__} → {type(offset).__name__}"
            raise DataError(f"{path}: entry {str(key)[:80]!r} is {kinds}, not str → int (a byte offset)")
    return offsets


def video_key(video_id: str) -> str:
    """The name by which an index knows a video: `video7010.mp4`, `clips/video7010.mp4` and `video7010` are one."""
    return PurePath(video_id).stem


def index_of(tsv: str | Path) -> dict[str, int]:
    """Video key → byte offset, from the rows of a TSV.

    Where an id stands on several rows the last one counts, as in the original tool's indices, and the log says so.

    Raises:
        DataError: two different ids have the same key, so that one would be shown the other's frames.
    """
    reader = TSVReader(tsv)
    rows: dict[str, tuple[str, int]] = {}
    repeated = 0
    for number in range(len(reader)):
        video_id = reader.video_id(number)
        key = video_key(video_id)
        if key in rows:
            repeated += 1
            if rows[key][0] != video_id:
                raise DataError(f"{reader.where(number)}: {video_id!r} and {rows[key][0]!r} have one key, {key!r}")
        rows[key] = (video_id, int(reader.offsets[number]))
    if repeated:
        logger.warning("%s: %d rows repeat the id of a row before them; the last row of an id counts", tsv, repeated)
    return {key: offset for key, (_, offset) in rows.items()}


def write_id2lineidx(tsv: str | Path, out: str | Path) -> int:
    """Writes the index of a TSV as a pickled dict and returns the number of its videos. Errors as `index_of`."""
    offsets = index_of(tsv)
    with atomic_file(out) as file:
        pickle.dump(offsets, file)
    return len(offsets)


class VideoIndex:
    """Byte offset of each video of a frame TSV, under its id with or without folder and extension.

    Args:
        tsv_path: the TSV; the index is built from it where there is no pickle, and the log says so.
        pkl_path: the pickled index; by default `X.id2lineidx.pkl` beside `X.tsv`.

    Raises:
        DataError: the pickle holds anything but str → int, or the TSV cannot be read.
    """

    def __init__(self, tsv_path: str | Path, pkl_path: str | Path | None = None):
        self.path = Path(pkl_path) if pkl_path is not None else Path(tsv_path).with_suffix(".id2lineidx.pkl")
        if self.path.is_file():
            self._offsets = load_id2lineidx(self.path)
        else:
            logger.info("%s is missing: reading the ids from %s", self.path, tsv_path)
            self.path = Path(tsv_path)
            self._offsets = index_of(tsv_path)

    def __len__(self) -> int:
        return len(self._offsets)

    def __contains__(self, video_id: str) -> bool:
        return self._key(video_id) in self._offsets

    def offset(self, video_id: str) -> int:
        """Byte at which the row of a video starts.

        Raises:
            DataError: the index has no such video.
        """
        try:
            return self._offsets[self._key(video_id)]
        except KeyError:
            raise DataError(f"{self.path} has no video {video_id!r} among its {len(self)}") from None

    def _key(self, video_id: str) -> str:
        # An id with a dot of its own, "a.b.mp4", has the key "a.b", which must not be cut again.
        return video_id if video_id in self._offsets else video_key(video_id)
