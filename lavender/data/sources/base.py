"""Protocol of a frame source: the ids of its videos, and the pixels of their stored frames."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lavender.data.ids import VideoIds
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

MARKED = 4096  # bytes at each end of a file that enter its fingerprint


class StoredVideo(ABC):
    """One video of a source. Opening it reads only what its length requires; `frames` decodes pixels.

    Args:
        video_id: its id in the source; where: its location, for messages.
    """

    def __init__(self, video_id: str, where: str):
        self.video_id, self.where = video_id, where

    @abstractmethod
    def __len__(self) -> int:
        """Number of stored frames."""

    @abstractmethod
    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """Decodes the frames of these numbers, uint8 RGB (H, W, 3), in this order; numbers may repeat.

        Raises:
            DataError: a frame cannot be decoded; the message names file and frame.
        """


class FrameSource(ABC):
    """Videos in a fixed order, found by number or by id (rules of `lavender.data.ids`); can be pickled.

    Attributes:
        path: file or folder of the videos.
        has_captions: whether captions are stored beside the frames.
    """

    path: Path
    has_captions = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of videos."""

    @abstractmethod
    def video_id(self, number: int) -> str:
        """Id of video `number`, counted from 0; reads no frames. DataError if it cannot be read."""

    @abstractmethod
    def where(self, number: int) -> str:
        """Location of video `number`, for messages."""

    @abstractmethod
    def video(self, number: int) -> StoredVideo:
        """Video `number`. DataError if it is missing or has no frames."""

    @abstractmethod
    def fingerprint(self, number: int) -> bytes:
        """16-byte fingerprint of a video's size and both ends, equal for equal content. DataError as for `video`."""

    def caption(self, number: int) -> str:
        """Caption stored beside the frames of video `number`. DataError if there is none."""
        raise DataError(f"{self.where(number)}: no caption is stored with the frames")

    @abstractmethod
    def stamps(self) -> list[tuple[str, int, int]]:
        """(name, size in bytes, modification time in ns) of each file; changes when the frames change."""

    def __contains__(self, video_id: str) -> bool:
        return self._ids.find(video_id) is not None

    def identity(self, video_id: str) -> int | str:
        """Key shared by all ids of one video: its number in the source; for an unknown video the id itself."""
        name = self._ids.find(video_id)
        return video_id if name is None else self._numbers[name]

    def place(self, video_id: str) -> int | None:
        """Number of the video of an id; None if there is none. DataError if the id is ambiguous."""
        name = self._ids.find(video_id)
        return None if name is None else self._numbers[name]

    def hint(self, video_id: str) -> str:
        """Sentence part with the id that was probably meant by an unknown one; else ""."""
        return self._ids.hint(video_id)

    def find(self, video_id: str) -> StoredVideo:
        """Video of an id. DataError if there is none or the id is ambiguous."""
        name = self._ids.find(video_id)
        if name is None:
            raise DataError(f"{self.path} has no video {shown(video_id)} among its {len(self)}{self.hint(video_id)}")
        return self.video(self._numbers[name])

    def load_ids(self) -> None:
        """Reads the ids, which `find` needs. DataError if they cannot be read."""
        _ = self._ids

    def check_ids(self) -> None:
        """Raises DataError if two videos have the same id."""
        return None

    @property
    def known_from(self) -> str:
        """File or folder that lists the videos, for messages."""
        return str(self.path)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.video_id(number): number for number in range(len(self))}

    @cached_property
    def _ids(self) -> VideoIds:
        return VideoIds(self._numbers, self.path)


def fingerprint_of_files(files: Sequence[Path]) -> bytes:
    """Fingerprint of a video stored in one or several files. DataError if a file cannot be read."""
    marks = []
    for path in files:
        try:
            with path.open("rb") as file:
                marks.append(fingerprint_of(partial(_read_at, file), path.stat().st_size))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return joined(marks)


def joined(marks: Sequence[bytes]) -> bytes:
    """Combines the fingerprints of several files."""
    return marks[0] if len(marks) == 1 else hashlib.blake2b(b"".join(marks), digest_size=16).digest()


def _read_at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def fingerprint_of(read: Callable[[int, int], bytes], size: int) -> bytes:
    """Fingerprint of `size` bytes, which `read(position, length)` returns in pieces."""
    first = read(0, min(size, MARKED))
    last = read(max(0, size - MARKED), min(size, MARKED))
    return hashlib.blake2b(b"%d:" % size + first + last, digest_size=16).digest()


def stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and modification time of a file."""
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns
