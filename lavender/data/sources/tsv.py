"""Frames in a TSV file: one video per line, frames as base64 images."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lavender.data.frames import MAX_PIXELS, decode_image
from lavender.data.ids import may_be_same
from lavender.data.index import VideoIndex
from lavender.data.sources.base import FrameSource, StoredVideo, fingerprint_of, stamp
from lavender.data.tsv import TSVReader, split_columns
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown


class TSVVideo(StoredVideo):
    """Row of a frame TSV.

    Args:
        fields: id, optional metadata, and frames in base64; where: their file and line.
        max_pixels: maximum pixels of a frame.

    Raises:
        DataError: the row has no frames.
    """

    def __init__(self, fields: Sequence[str], where: str, max_pixels: int = MAX_PIXELS):
        super().__init__(fields[0], where)
        _, _, self.images = split_columns(fields, where)
        self._max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.images)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return [decode_image(self.images[n], f"{self.where}, frame {n}", self._max_pixels) for n in numbers]


class TSVSource(FrameSource):
    """Rows of a frame TSV.

    Args:
        path: the file; its line index is built if missing, its id index at the first lookup of an id.
        max_pixels: maximum pixels of a frame.

    Raises:
        DataError: the file is missing, or its line index does not fit.
    """

    def __init__(self, path: str | Path, max_pixels: int = MAX_PIXELS):
        self.path = Path(path)
        self._reader, self._max_pixels = TSVReader(path), max_pixels

    def __len__(self) -> int:
        return len(self._reader)

    def video_id(self, number: int) -> str:
        return self._reader.video_id(number)

    def where(self, number: int) -> str:
        return self._reader.where(number)

    def video(self, number: int) -> TSVVideo:
        return TSVVideo(self._reader.row(number), self.where(number), self._max_pixels)

    def fingerprint(self, number: int) -> bytes:
        start = len(self.video_id(number).encode(errors="surrogatepass")) + 1
        size = self._reader.size(number) - start
        return fingerprint_of(lambda position, length: self._reader.piece(number, start + position, length), size)

    def stamps(self) -> list[tuple[str, int, int]]:
        return [stamp(self.path)]

    def __contains__(self, video_id: str) -> bool:
        return video_id in self.index

    def identity(self, video_id: str) -> int | str:
        return self.index.offset(video_id) if video_id in self.index else video_id

    def place(self, video_id: str) -> int | None:
        return self._reader.number_at(self.index.offset(video_id)) if video_id in self.index else None

    def hint(self, video_id: str) -> str:
        return self.index.hint(video_id)

    def find(self, video_id: str) -> TSVVideo:
        """Video of an id. Also raises DataError if the index points at the row of another id."""
        number = self._reader.number_at(self.index.offset(video_id))
        fields, where = self._reader.row(number), self.where(number)
        if not may_be_same(fields[0], video_id):
            raise DataError(
                f"{where}: the row of {shown(fields[0])}, where {self.index.path} says {shown(video_id)}: delete the "
                "index to have it rebuilt"
            )
        return TSVVideo(fields, where, self._max_pixels)

    def load_ids(self) -> None:
        _ = self.index

    @property
    def known_from(self) -> str:
        made = self.index.path != self.path
        return f"{self.index.path} (delete it to have it rebuilt from {self.path.name})" if made else str(self.path)

    @cached_property
    def index(self) -> VideoIndex:
        """Byte offset of each video."""
        return VideoIndex(self.path)
