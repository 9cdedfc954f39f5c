"""What a data set knows of its frames: which videos there are, and the pixels of the frames stored of each."""

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

MARKED = 4096  # bytes of each end of a content that its fingerprint is of


class StoredVideo(ABC):
    """One video of a source. Opening it reads what its length needs; pixels are decoded by `frames`.

    Args:
        video_id: its id in the source; where: the place of it, as messages name it.
    """

    def __init__(self, video_id: str, where: str):
        self.video_id, self.where = video_id, where

    @abstractmethod
    def __len__(self) -> int:
        """How many frames are stored of it."""

    @abstractmethod
    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """The frames of these numbers, uint8 RGB (H, W, 3), in this order; a number may come twice.

        Raises:
            DataError: one cannot be decoded; the message names the place and the frame.
        """


class FrameSource(ABC):
    """Videos in a fixed order, found by number or by id (the rule of `lavender.data.ids`). It can be pickled.

    Attributes:
        path: the file or folder that holds them.
        has_captions: whether captions are stored beside the frames.
    """

    path: Path
    has_captions = False

    @abstractmethod
    def __len__(self) -> int:
        """How many videos it has."""

    @abstractmethod
    def video_id(self, number: int) -> str:
        """The id of video `number`, counted from 0; its frames are not read. DataError where it cannot be read."""

    @abstractmethod
    def where(self, number: int) -> str:
        """The place of video `number`, as messages name it."""

    @abstractmethod
    def video(self, number: int) -> StoredVideo:
        """Video `number`. DataError where it is not there or holds no frames."""

    @abstractmethod
    def fingerprint(self, number: int) -> bytes:
        """Alike where the contents of two videos are: 16 bytes, of the size and both ends. DataError as in `video`."""

    def caption(self, number: int) -> str:
        """The caption that is stored beside the frames of video `number`. DataError where there is none."""
        raise DataError(f"{self.where(number)}: no caption is stored with the frames")

    @abstractmethod
    def stamps(self) -> list[tuple[str, int, int]]:
        """What changes when the frames do: (name, size in bytes, time of change in ns) of each file."""

    def __contains__(self, video_id: str) -> bool:
        return self._ids.find(video_id) is not None

    def identity(self, video_id: str) -> int | str:
        """What two ids of one video share: its place in the source; of an unknown video the id."""
        name = self._ids.find(video_id)
        return video_id if name is None else self._numbers[name]

    def place(self, video_id: str) -> int | None:
        """The number of the video of an id; None where there is none. DataError where the id could be two."""
        name = self._ids.find(video_id)
        return None if name is None else self._numbers[name]

    def hint(self, video_id: str) -> str:
        """Which id is probably meant by one that is not there, as a part of a sentence; else ""."""
        return self._ids.hint(video_id)

    def find(self, video_id: str) -> StoredVideo:
        """The video of an id. DataError where there is none, or the id could be two."""
        name = self._ids.find(video_id)
        if name is None:
            raise DataError(f"{self.path} has no video {shown(video_id)} among its {len(self)}{self.hint(video_id)}")
        return self.video(self._numbers[name])

    def load_ids(self) -> None:
        """Reads the ids, which `find` needs. DataError where they cannot be read."""
        _ = self._ids

    def check_ids(self) -> None:
        """Raises DataError where an id does not tell which video is meant: two have it."""
        return None

    @property
    def known_from(self) -> str:
        """What says which videos there are, as messages name it."""
        return str(self.path)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.video_id(number): number for number in range(len(self))}

    @cached_property
    def _ids(self) -> VideoIds:
        return VideoIds(self._numbers, self.path)


def fingerprint_of_files(files: Sequence[Path]) -> bytes:
    """The fingerprint of a video that is one file or several. DataError where one cannot be read."""
    marks = []
    for path in files:
        try:
            with path.open("rb") as file:
                marks.append(fingerprint_of(partial(_read_at, file), path.stat().st_size))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return joined(marks)


def joined(marks: Sequence[bytes]) -> bytes:
    """The fingerprint of a video of several files."""
    return marks[0] if len(marks) == 1 else hashlib.blake2b(b"".join(marks), digest_size=16).digest()


def _read_at(file: BinaryIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def fingerprint_of(read: Callable[[int, int], bytes], size: int) -> bytes:
    """The fingerprint of `size` bytes, of which `read(position, length)` gives any."""
    first = read(0, min(size, MARKED))
    last = read(max(0, size - MARKED), min(size, MARKED))
    return hashlib.blake2b(b"%d:" % size + first + last, digest_size=16).digest()


def stamp(path: Path) -> tuple[str, int, int]:
    """Name, size and time of change of a file."""
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns
