"""Index of the samples in a WebDataset tar: built once, and stored in a file beside the tar."""

import fcntl
import hashlib
import logging
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lavender.data.ids import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, unfit
from lavender.data.image_folders import natural_key
from lavender.runtime.distributed import rank, world_size
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, mistaken_file, refuse_special
from lavender.runtime.logging import Pace
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.data")

VIDEO, IMAGE = 0, 1  # kind of a sample's file
TEXT, JSON = 1, 2  # kind of its caption; 0: no caption
_VERSION = 2  # version of the index: layout, and what is rejected
_BLOCK = 512  # bytes; a tar ends with blocks of zeros
_SAMPLE_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)  # key and extension, split like WebDataset
_PACKED = {  # first bytes of a compressed tar → tool that unpacks it
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
# Errors of numpy for a file that is truncated or not an index, which is then rebuilt.
_NO_INDEX = (ValueError, LookupError, EOFError, AttributeError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class ShardIndex:
    """Samples of one tar, in the order of their first files.

    Attributes:
        facts: int64 (6,): version, size of the tar in bytes, its modification time in ns, whether it is truncated,
            samples without frames (failed downloads), files whose key cannot be an id.
        keys: uint8, all keys in UTF-8, concatenated; ends: int64 (N,), end of each key.
        files: int64 (F, 3): position and size in bytes, and `VIDEO` or `IMAGE`, of each file with frames.
        file_ends: int64 (N,): number of `files` of all samples up to this one.
        captions: int64 (N, 3): position, size and `TEXT` or `JSON` of each caption; 0: no caption.
    """

    facts: np.ndarray
    keys: np.ndarray
    ends: np.ndarray
    files: np.ndarray
    file_ends: np.ndarray
    captions: np.ndarray

    @property
    def is_cut(self) -> bool:
        """Whether the tar is truncated, as after an interrupted download."""
        return bool(self.facts[3])


def open_indices(tars: Sequence[Path]) -> Iterator[ShardIndex | DataError]:
    """Yields the index of each tar; missing and outdated indices are built.

    Processes that start together share the work: each begins at a different tar, and no two build the same index.

    Yields:
        in the order of `tars`: the index, or the fault of the tar.
    """
    found: dict[int, ShardIndex | DataError] = {}
    missing = []
    for number, tar in enumerate(tars):
        try:
            index = _stored(tar)
        except OSError as error:
            found[number] = DataError(f"{tar} cannot be read: {error.strerror or error}")
            continue
        if index is None:
            missing.append(number)
        else:
            found[number] = index
    if missing:
        LOGGER.info("%s: %d of %d shards are to be indexed, once", tars[missing[0]].parent, len(missing), len(tars))
    start = len(missing) * rank() // world_size()
    order = missing[start:] + missing[:start]
    unwritten, pace = 0, Pace(at_once=False)
    for wait in (False, True):  # tars that another process is indexing come last
        for number in order:
            if number not in found:
                if pace.due():
                    LOGGER.info("%s: %d of %d shards have an index", tars[number].parent, len(found), len(tars))
                with _claimed(tars[number], wait) as free:
                    if free:
                        try:
                            found[number], kept = _stored_or_built(tars[number])
                            unwritten += not kept
                        except DataError as fault:
                            found[number] = fault
    if unwritten:
        LOGGER.warning(
            "%s: the indices of %d shards can be written neither there nor to %s: each start builds them again",
            *(tars[0].parent, unwritten, _cache_folder()),
        )
    return (found[number] for number in range(len(tars)))


def _stored_or_built(tar: Path) -> tuple[ShardIndex, bool]:
    """Returns the index, and whether it is stored in a file."""
    try:
        if (stored := _stored(tar)) is not None:  # another process has built it in the meantime
            return stored, True
        index = build_index(tar)
    except OSError as error:
        raise DataError(f"{tar} cannot be read: {error.strerror or error}") from None
    for path in _places(tar):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as file:
                np.savez(file, **{item.name: getattr(index, item.name) for item in fields(ShardIndex)})
            return index, True
    return index, False


def build_index(tar: Path) -> ShardIndex:
    """Builds the index from the headers of a tar.

    Raises:
        DataError: the file is not a tar, is compressed, or has two videos of one id. OSError: it cannot be read.
    """
    facts = tar.stat()
    with open(tar, "rb") as file:
        head = file.read(_BLOCK)
        for beginning, command in _PACKED.items():
            if head.startswith(beginning):
                raise DataError(f"{tar} is compressed, so no sample can be read by its place: run `{command} {tar}`")
        if b"ustar" not in head[257:263] and (fault := mistaken_file(tar)):
            raise DataError(f"{tar}: {fault}")
        file.seek(0)
        try:
            members, is_cut = _members(file, facts.st_size)
        except tarfile.TarError as error:
            raise DataError(f"{tar} is no tar: {error}; download it again") from None
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    key, unfit_names = "", 0
    for name, place, size in members:
        if parts := _SAMPLE_NAME.fullmatch(name.removeprefix("./")):
            key, extension = parts[1], parts[2].lower()
            if unfit(key):
                unfit_names += 1
            else:
                samples.setdefault(key, {})[extension] = place, size
    if is_cut:  # the last sample may lack files
        samples.pop(key, None)
    for key, found in samples.items():
        _refuse_several_videos(tar, key, found)
    return _as_arrays(samples, [_VERSION, facts.st_size, facts.st_mtime_ns, is_cut, 0, unfit_names])


def _members(file: BinaryIO, size: int) -> tuple[list[tuple[str, int, int]], bool]:
    """Name, position and size of each complete file of a tar, and whether the tar is truncated."""
    found = []
    with tarfile.open(fileobj=file, mode="r:") as tar:
        try:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
                if member.isreg() and not member.issparse() and member.offset_data + member.size <= size:
                    found.append((member.name, member.offset_data, member.size))
        except tarfile.ReadError:
            return found, True
        file.seek(tar.offset)
        return found, file.read(_BLOCK) != bytes(_BLOCK)


def _as_arrays(samples: dict[str, dict[str, tuple[int, int]]], facts: list[int]) -> ShardIndex:
    keys, files, file_ends, captions = [], [], [], []
    for key, found in samples.items():
        frames = _frames_of(found)
        if not frames:
            facts[4] += 1
            continue
        keys.append(key.encode(errors="surrogatepass"))
        files += frames
        file_ends.append(len(files))
        kind = TEXT if "txt" in found else JSON if "json" in found else 0
        captions.append((*found["txt" if kind == TEXT else "json"], kind) if kind else (0, 0, 0))
    return ShardIndex(
        np.array(facts, np.int64),
        np.frombuffer(b"".join(keys), np.uint8),
        np.cumsum([len(key) for key in keys], dtype=np.int64),
        np.array(files, np.int64).reshape(-1, 3),
        np.array(file_ends, np.int64),
        np.array(captions, np.int64).reshape(-1, 3),
    )


def _refuse_several_videos(tar: Path, key: str, found: Iterable[str]) -> None:
    """Raises DataError if several videos share a key because their names contain dots, the first of which ends it."""
    videos = [extension for extension in found if extension.rpartition(".")[2] in VIDEO_EXTENSIONS]
    if len(videos) > 1 and all("." in extension for extension in videos):
        one, other = (shown(f"{key}.{extension}") for extension in videos[:2])
        raise DataError(
            f"{tar}: {one} and {other} would be one video, {shown(key)}: in a tar an id ends at the first dot; pack "
            "the files under names without other dots"
        )


def _frames_of(found: dict[str, tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Video of a sample, preferably an MP4; else its images, sorted naturally (2 before 10)."""
    kinds = {extension: extension.rpartition(".")[2] for extension in found}
    videos = sorted((kind != "mp4", extension) for extension, kind in kinds.items() if kind in VIDEO_EXTENSIONS)
    if videos:
        return [(*found[videos[0][1]], VIDEO)]
    images = sorted((extension for extension, kind in kinds.items() if kind in IMAGE_EXTENSIONS), key=natural_key)
    return [(*found[extension], IMAGE) for extension in images]


def _places(tar: Path) -> tuple[Path, Path]:
    """Paths for the index of a tar: beside it or, if that is not writable, in the user's cache."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(tar))).hexdigest()[:32]
    return tar.with_name(f"{tar.name}.index.npz"), _cache_folder() / f"{name}.npz"


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lavender", "shards")


def _stored(tar: Path) -> ShardIndex | None:
    """Stored index of a tar; None if there is none that fits. OSError if the tar is missing."""
    refuse_special(tar)
    facts = tar.stat()
    for path in _places(tar):
        with suppress(OSError, *_NO_INDEX), np.load(path) as stored:
            index = ShardIndex(**{item.name: stored[item.name] for item in fields(ShardIndex)})
            if index.facts[:3].tolist() == [_VERSION, facts.st_size, facts.st_mtime_ns] and _fits(index):
                return index
    return None


def _fits(index: ShardIndex) -> bool:
    """Whether the arrays are consistent and all positions are inside the tar."""
    count, size = len(index.ends), int(index.facts[1])
    last_key, last_file = (int(ends[-1]) if count else 0 for ends in (index.ends, index.file_ends))
    places = np.concatenate([index.files[:, :2], index.captions[:, :2]])
    return (
        len(index.file_ends) == len(index.captions) == count
        and (last_key, last_file) == (len(index.keys), len(index.files))
        and bool((places >= 0).all() and (places.sum(1) <= size).all())
    )


@contextmanager
def _claimed(tar: Path, wait: bool) -> Iterator[bool]:
    """Holds the lock for building the index of a tar; yields False if another process holds it."""
    try:
        file = open(tar, "rb")  # noqa: SIM115 (closed below)
    except OSError:  # the reader reports the reason
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError:  # without file locks the index may be built twice, which is harmless
            pass
        yield True
