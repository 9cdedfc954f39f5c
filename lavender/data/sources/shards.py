"""Frames and captions in WebDataset tars, as written by `video2dataset` and `img2dataset`, with random access."""

import json
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lavender.data.annotations import check_caption
from lavender.data.frames import MAX_PIXELS, decode_bytes
from lavender.data.sources.base import FrameSource, StoredVideo, fingerprint_of, joined, stamp
from lavender.data.sources.shard_index import IMAGE, JSON, VIDEO, ShardIndex, open_indices
from lavender.data.sources.shard_names import find_shards
from lavender.data.video import ClipBytes
from lavender.data.video_seek import read_frames
from lavender.runtime.errors import ConfigError, DataError
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import shown, shown_json

LOGGER = logging.getLogger("lavender.data")


class ShardSample(StoredVideo):
    """Sample of a tar: `count` evenly spread frames of its video, or its images. Opening it reads nothing.

    Args:
        tar: the file; files: (F, 3) position, size and kind of its video or images, see `ShardIndex`.
    """

    def __init__(self, video_id: str, where: str, tar: Path, files: np.ndarray, count: int, max_pixels: int):
        super().__init__(video_id, where)
        self.tar, self._files, self._count, self._max_pixels = tar, files.tolist(), count, max_pixels

    def __len__(self) -> int:
        return self._count if self._files[0][2] == VIDEO else len(self._files)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        if self.has_images:
            return [decode_bytes(self.data(number), self._place(number), self._max_pixels) for number in numbers]
        return read_frames(ClipBytes(self.data(0), self.where), self._count, numbers, self._max_pixels)

    @property
    def has_images(self) -> bool:
        """Whether the sample consists of images instead of a video."""
        return self._files[0][2] == IMAGE

    def data(self, number: int) -> bytes:
        """Content of its image `number`, or of its video (number 0). DataError if the tar cannot be read."""
        place, size, _ = self._files[number]
        return read_at(self.tar, place, size, self.where)

    def _place(self, number: int) -> str:
        return f"{self.where}, image {number}" if len(self._files) > 1 else self.where


class ShardSource(FrameSource):
    """Samples of tars, in the order of the tars and of their samples. An id is a sample's key.

    Samples without frames, from failed downloads of `video2dataset`, are skipped; the log counts them.

    Args:
        pattern: a folder, a tar, or a pattern with braces.
        stored_frames: frames per video; a sample of images has one frame per image.
        max_pixels: maximum pixels of a frame.
        tolerant: missing, truncated or invalid tars give a warning, and only their complete samples are used; otherwise
            they are an error.

    Raises:
        ConfigError: there are videos, but PyAV is not installed.
        DataError: there are no tars or no samples, or a tar is faulty.
    """

    def __init__(
        self, pattern: str | Path, stored_frames: int = 5, max_pixels: int = MAX_PIXELS, tolerant: bool = False
    ):
        self.path = Path(pattern)
        self._count, self._max_pixels = stored_frames, max_pixels
        tars = find_shards(str(pattern))
        self._tars: list[Path] = []
        indices: list[ShardIndex] = []
        for tar, index in zip(tars, open_indices(tars), strict=True):
            if isinstance(index, ShardIndex) and index.is_cut:
                fault = f"{tar} is cut after {len(index.ends)} whole samples, as by a stopped download; fetch it again"
            else:
                fault = str(index) if isinstance(index, DataError) else ""
            if fault and not tolerant:
                raise DataError(f"{fault}; --on_bad_sample zero skips what is missing")
            if fault:
                LOGGER.warning("%s", fault)
            if isinstance(index, ShardIndex):
                self._tars.append(tar)
                indices.append(index)
        self._join(indices)
        if not len(self):
            raise DataError(f"{self.path}: {len(tars)} shards, but no sample with a video or an image; check --shards")
        if (self._files[:, 2] == VIDEO).any() and find_spec("av") is None:
            raise ConfigError(f"{self.path} holds videos, which PyAV decodes: pip install av")

    def _join(self, indices: list[ShardIndex]) -> None:
        """Joins the arrays of all tars: worker processes share arrays."""
        empty = np.zeros(0, np.int64)
        lengths = [len(index.ends) for index in indices]
        self._tar_of = np.repeat(np.arange(len(indices)), lengths)  # (N,)
        self._keys = np.concatenate([np.zeros(0, np.uint8), *(index.keys for index in indices)])
        self._ends = _shifted([index.ends for index in indices], [len(index.keys) for index in indices])  # (N,)
        self._files = np.concatenate([empty.reshape(0, 3), *(index.files for index in indices)])  # (F, 3)
        self._file_ends = _shifted([index.file_ends for index in indices], [len(index.files) for index in indices])
        self._captions = np.concatenate([empty.reshape(0, 3), *(index.captions for index in indices)])  # (N, 3)
        self.has_captions = bool(self._captions[:, 2].any())
        failed, unfit = (sum(int(index.facts[place]) for index in indices) for place in (4, 5))
        left = f"; {failed} without frames (failed downloads)" if failed else ""
        left += f"; {unfit} files whose names cannot be ids" if unfit else ""
        LOGGER.info("%s: %d samples in %d shards%s", self.path, sum(lengths), len(indices), left)

    def __len__(self) -> int:
        return len(self._ends)

    def video_id(self, number: int) -> str:
        start = int(self._ends[number - 1]) if number else 0
        return self._keys[start : self._ends[number]].tobytes().decode(errors="surrogatepass")

    def where(self, number: int) -> str:
        return f"{self._tar(number)}, sample {shown(self.video_id(number))}"

    def video(self, number: int) -> ShardSample:
        start = int(self._file_ends[number - 1]) if number else 0
        files = self._files[start : self._file_ends[number]]
        facts = self._tar(number), files, self._count, self._max_pixels
        return ShardSample(self.video_id(number), self.where(number), *facts)

    def caption(self, number: int) -> str:
        place, size, kind = self._captions[number].tolist()
        where = self.where(number)
        if not kind:
            raise DataError(f"{where}: no caption (a .txt, or a .json) is there")
        data = read_at(self._tar(number), place, size, where)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: byte {error.start} of the caption is not UTF-8") from None
        return check_caption(_caption_of(text, where) if kind == JSON else text.strip(), where)

    def fingerprint(self, number: int) -> bytes:
        start = int(self._file_ends[number - 1]) if number else 0
        tar, where = self._tar(number), self.where(number)
        marks = []
        for place, size, _ in self._files[start : self._file_ends[number]].tolist():

            def read(position: int, length: int, place: int = place) -> bytes:
                return read_at(tar, place + position, length, where)

            marks.append(fingerprint_of(read, size))
        return joined(marks)

    def is_captioned(self, number: int) -> bool:
        """Whether a sample has a caption."""
        return bool(self._captions[number, 2])

    def check_ids(self) -> None:
        self._by_id()

    def stamps(self) -> list[tuple[str, int, int]]:
        return [("stored_frames", self._count, self._count), *map(stamp, self._tars)]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return self._by_id()

    def _by_id(self) -> dict[str, int]:
        """Key → number. Repeated keys, as in two downloads, are an error only when ids are looked up."""
        numbers: dict[str, int] = {}
        for number in range(len(self)):
            other = numbers.setdefault(self.video_id(number), number)
            if other != number:
                raise DataError(
                    f"{self.where(number)}: {self.where(other)} has the same key, so the key is ambiguous; "
                    "remove one of the two shards, or read those of one download alone"
                )
        return numbers

    def _tar(self, number: int) -> Path:
        return self._tars[self._tar_of[number]]


def read_at(tar: Path, place: int, size: int, where: str) -> bytes:
    """Reads bytes of a tar, opened for each read: there may be more tars than a process may have open.

    Raises:
        DataError: the tar cannot be read, or is shorter than when it was indexed.
    """
    pieces, left = [], size
    try:
        with open(tar, "rb", buffering=0) as file:
            # Network file systems may return fewer bytes.
            while left and (piece := os.pread(file.fileno(), left, place + size - left)):
                pieces.append(piece)
                left -= len(piece)
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}") from None
    if left:
        raise DataError(f"{where}: the tar has become shorter since it was indexed")
    return b"".join(pieces)


def _caption_of(text: str, where: str) -> str:
    """Caption in the JSON of a sample."""
    try:
        content = load_json(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: its .json is not valid ({error.msg}, line {error.lineno})") from None
    caption = content.get("caption") if isinstance(content, dict) else None
    if isinstance(caption, list) and caption:
        caption = caption[0]
    if not isinstance(caption, str):
        raise DataError(f'{where}: "caption" in its .json is {shown_json(caption)}, no text')
    return caption.strip()


def _shifted(ends: list[np.ndarray], lengths: list[int]) -> np.ndarray:
    """Ends within each of several arrays → ends in their concatenation."""
    starts = np.cumsum([0, *lengths])
    return np.concatenate([np.zeros(0, np.int64), *(one + start for one, start in zip(ends, starts, strict=False))])
