"""Captions of a pretraining set; a large file gets a cache beside it, which all processes map into memory.

`txt_<dataset>.captions.bin` holds the arrays of `CaptionArrays` for each split. It is plain bytes with offsets, as in
.npy files: numpy reads it in place, and no code in it can run.

    64 bytes: mark and version, position and size of the table of contents, size of the file, CRC-32 of the table
    the captions of each split, one after another
    the other arrays, each at a multiple of 64 bytes
    the table of contents, JSON
"""

import fcntl
import json
import logging
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lavender.data.annotations import SPLIT_NAMES, CaptionTable, misnamed_split, read_splits, warn_of_repeated
from lavender.data.caption_arrays import CaptionArrays, CaptionBuilder, InMemory
from lavender.data.caption_json import SPLITS, CaptionReader, UnusualError
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, refuse_special
from lavender.runtime.logging import Pace

LOGGER = logging.getLogger("lavender.data")

SMALLEST = 20_000_000  # bytes of the smallest text file with a cache; smaller ones are read in a second
_MARK = b"LAVENDER captions 1\n"  # includes the version of the layout; another version is rebuilt
_HEADER = struct.Struct("<20s3QI")
_ALIGNMENT = 64  # bytes; also the size of the header
_BETWEEN_LINES = 1 << 16  # captions between two checks of the clock
_ARRAYS = [item.name for item in fields(CaptionArrays) if item.name not in ("texts", "folders")]


@dataclass(frozen=True)
class Captions:
    """Contents of a text file: a table for each split that has captions.

    Attributes:
        tables: split → its captions.
        misnamed: split → its probable name in the file, see `misnamed_split`.
    """

    tables: dict[str, CaptionTable]
    misnamed: dict[str, str]


def open_captions(path: Path) -> Captions:
    """Opens the captions of `txt_<dataset>.json`.

    The first process that opens a large file builds its cache, while the others wait. If the cache cannot be
    written, each process keeps the captions in memory.

    Raises:
        DataError: as for `read_splits`, or a split is not an object.
    """
    if not path.is_file() or path.stat().st_size < SMALLEST:
        return _read_whole(path)
    cache = path.with_suffix(".captions.bin")
    try:
        if (kept := _open(cache, path)) is None:
            with _build_lock(path):
                kept = _open(cache, path, quiet=True) or _build(cache, path)
        if kept is not None:
            return kept
    except OSError as error:
        LOGGER.warning("%s cannot be written (%s): the captions stay in memory", cache, error.strerror or error)
    except UnusualError as fault:
        LOGGER.debug("%s: %s", path, fault)
        captions = _read_whole(path)  # raises an error that names the fault
        LOGGER.info("%s holds more than captions: it is read as a whole, without a cache", path)
        return captions
    return _read_in_memory(path)  # also if the text has changed meanwhile


def no_captions(path: Path, split: str, hint: str = "") -> DataError:
    """Returns the error for a file without captions of a split."""
    return DataError(f'{path}: no "{split}" captions{hint} (an object, video id → list of captions)')


def _read_whole(path: Path) -> Captions:
    content = read_splits(path, "pretrain")
    tables = {}
    for split, captions in content.items():
        if split in SPLITS and captions:
            if not isinstance(captions, dict):
                raise no_captions(path, split)
            tables[split] = CaptionTable(captions, f"{path}, {split}")
    return Captions(tables, {split: misnamed_split(content, split) for split in SPLITS})


# --- reading ----------------------------------------------------------------------------------------------------------


class _UnfitError(Exception):
    """The cache cannot be used; the message is a part of a sentence."""


class CaptionFile:
    """Memory-mapped cache. Pickling sends its path; the other process maps it at first use.

    It is always replaced as a whole, so processes that have mapped an old cache still see its content.

    Args:
        path: the cache; source: size and modification time (ns) that its text file must have.
    """

    def __init__(self, path: Path, source: list[int]):
        self.path, self._source = path, source
        self._open_as = ""  # path of its own open descriptor, valid after a rename or removal

    @cached_property
    def contents(self) -> dict[str, Any]:
        """Maps the file and returns its table of contents.

        Raises:
            _UnfitError: it belongs to another text, is truncated, or is not a cache. OSError: it is missing.
        """
        if not self._open_as:
            contents = self._map(self.path)
            self._open_as = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
            return contents
        try:
            return self._map(self.path)
        except (OSError, _UnfitError):
            return self._map(Path(self._open_as))

    def captions(self, split: str) -> CaptionArrays:
        """Views of the mapped arrays. DataError if a new process finds a different file."""
        try:
            entry = self.contents["splits"][split]
        except (OSError, _UnfitError) as error:
            said = (error.strerror or error) if isinstance(error, OSError) else f"it {error}"
            raise DataError(f"{self.path}: {said}: the captions have changed since the run began; resume it") from None
        arrays = {
            name: np.frombuffer(self._bytes, kind, int(np.prod(shape)), start).reshape(shape)
            for name, (start, kind, shape) in entry["arrays"].items()
        }
        return CaptionArrays(**arrays, folders=entry["folders"])

    def _map(self, path: Path) -> dict[str, Any]:
        refuse_special(path)
        file = open(path, "rb")  # noqa: SIM115 (stays open as long as the arrays)
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MARK[:-2]):
            raise _UnfitError("is no cache of captions")
        mark, start, length, size, check = _HEADER.unpack(head)
        if mark != _MARK:
            raise _UnfitError("is of another version")
        if os.fstat(file.fileno()).st_size != size:
            raise _UnfitError("is cut, or longer than it was")
        file.seek(start)
        table = file.read(length)
        if zlib.crc32(table) != check:
            raise _UnfitError("is damaged")
        contents = json.loads(table)
        if contents["source"] != self._source:
            raise _UnfitError("was built from an earlier state of the text file")
        self._file, self._bytes = file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return contents

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_source": self._source, "_open_as": self._open_as}


class _OfSplit:
    """Captions of one split of a cache; see `CaptionTable.of`."""

    def __init__(self, file: CaptionFile, split: str):
        self.file, self.split = file, split

    @cached_property
    def arrays(self) -> CaptionArrays:
        return self.file.captions(self.split)

    def __getstate__(self) -> dict[str, Any]:
        return {"file": self.file, "split": self.split}


def _open(cache: Path, path: Path, quiet: bool = False) -> Captions | None:
    """Opens the cache of `path`; None if it is missing or unfit. Logs the reason unless `quiet`."""
    file, size = CaptionFile(cache, _source(path)), path.stat().st_size
    try:
        contents = file.contents
    except (FileNotFoundError, _UnfitError) as error:
        if not quiet:
            fault = error if isinstance(error, _UnfitError) else "is missing"
            LOGGER.info("%s %s: building it from %s (%.1f GB)", cache, fault, path.name, size / 1e9)
        return None
    if contents["repeated"]:
        warn_of_repeated(path, *contents["repeated"])
    tables = {split: CaptionTable.of(_OfSplit(file, split), f"{path}, {split}") for split in contents["splits"]}
    return Captions(tables, contents["misnamed"])


def _source(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]


# --- building ---------------------------------------------------------------------------------------------------------


@contextmanager
def _build_lock(path: Path) -> Iterator[None]:
    """Locks a text file, after waiting for the process that holds the lock. The system frees a dead process's lock."""
    with open(path, "rb") as file:
        with suppress(OSError):  # without file locks the cache is built several times, which is harmless
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(cache: Path, path: Path) -> Captions | None:
    """Writes the cache and opens it; None if the text has changed meanwhile.

    Raises:
        OSError: the cache cannot be written. UnusualError: as for `CaptionReader`.
    """
    source, began = _source(path), time.monotonic()
    with atomic_file(cache) as file:
        file.write(bytes(_ALIGNMENT))
        texts: dict[str, int] = {}  # split → start of its captions

        def texts_of(split: str) -> Callable[[bytes], object]:
            texts[split] = file.tell()
            return file.write

        reader, builders = _read(path, texts_of)
        splits, repeated = {}, []
        for split, builder in builders.items():
            arrays = builder.arrays(np.zeros(0, np.uint8))
            repeated += builder.repeated
            places = {name: _append(file, getattr(arrays, name)) for name in _ARRAYS}
            places["texts"] = texts[split], "|u1", [builder.text_size]
            splits[split] = {"folders": arrays.folders, "arrays": places}
        table = {
            "source": source,
            "repeated": [len(repeated), repeated[:5]] if repeated else [],
            "misnamed": {split: misnamed_split(reader.keys, split) for split in SPLITS},
            "splits": splits,
        }
        content = json.dumps(table).encode()
        start = file.tell()
        file.write(content)
        size = file.tell()
        file.seek(0)
        file.write(_HEADER.pack(_MARK, start, len(content), size, zlib.crc32(content)))
    count = sum(len(builder) for builder in builders.values())
    LOGGER.info("%s: %d captions, written in %.0f s", cache, count, time.monotonic() - began)
    return _open(cache, path)


def _append(file: BinaryIO, array: np.ndarray) -> tuple[int, str, list[int]]:
    """Writes an array; returns its position, dtype and shape."""
    file.write(bytes(-file.tell() % _ALIGNMENT))
    start = file.tell()
    file.write(array.data)
    return start, array.dtype.str, list(array.shape)


def _read_in_memory(path: Path) -> Captions:
    """Reads the captions without a cache."""
    texts = {split: bytearray() for split in SPLITS}
    try:
        reader, builders = _read(path, lambda split: texts[split].extend)
    except (OSError, UnusualError):
        return _read_whole(path)
    tables, repeated = {}, []
    for split, builder in builders.items():
        arrays = builder.arrays(np.frombuffer(texts[split], np.uint8))
        tables[split] = CaptionTable.of(InMemory(arrays), f"{path}, {split}")
        repeated += builder.repeated
    if repeated:
        warn_of_repeated(path, len(repeated), repeated[:5])
    return Captions(tables, {split: misnamed_split(reader.keys, split) for split in SPLITS})


def _read(
    path: Path, texts_of: Callable[[str], Callable[[bytes], object]]
) -> tuple[CaptionReader, dict[str, CaptionBuilder]]:
    """Reads a text file.

    Args:
        texts_of: returns the receiver of a split's captions; called when the split begins.
    """
    builders: dict[str, CaptionBuilder] = {}
    pace, count = Pace(at_once=False), 0
    with open(path, "rb") as file:
        reader = CaptionReader(file)
        for split, name, text in reader.captions():
            if split not in builders:
                builders[split] = CaptionBuilder(texts_of(split))
            builders[split].add(name, text)
            count += 1
            if count % _BETWEEN_LINES == 0 and pace.due():
                LOGGER.info("%s: %d captions read", path, count)
    if not any(key.strip().lower() in names for key in reader.keys for names in SPLIT_NAMES.values()):
        raise UnusualError("no split is known")  # it may be a file of another project
    return reader, builders
