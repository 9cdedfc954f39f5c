"""Frames of a pretraining data set: one TSV per part, or one source whose videos are divided into parts."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lavender.config.schema import Config
from lavender.data import corpora
from lavender.data.annotations import CaptionTable
from lavender.data.sources.base import FrameSource
from lavender.data.sources.choose import direct_source, has_direct_source
from lavender.data.sources.tsv import TSVSource
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.data")


class _Ids(Sequence[str]):
    """Ids of a source, read on demand; none of them is kept."""

    def __init__(self, source: FrameSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: Any) -> Any:
        return self._source.video_id(number)


@dataclass(frozen=True)
class Piece:
    """Videos of a training part or of the validation split.

    Args:
        open: opens their source; length: number of videos.
        rows: numbers of the videos in the source, int64 (length,); None: all of them.
    """

    open: Callable[[], FrameSource]
    length: int
    rows: np.ndarray | None = None


class CorpusFrames:
    """Frames of one pretraining data set.

    Args:
        config: frame_source and the options for it.
        name: name of the data set; folder: folder of its TSV files.

    Attributes:
        source: single source of all videos; None for TSV files.
    """

    def __init__(self, config: Config, name: str, folder: str):
        self.config, self.name, self.folder = config, name, folder
        self.source = direct_source(config, name) if has_direct_source(config, name, self._find_tsv) else None
        self._rows_of: dict[str, np.ndarray] = {}  # keyed by file and split of the captions

    @property
    def has_captions(self) -> bool:
        """Whether captions are stored beside the frames."""
        return self.source is not None and self.source.has_captions

    def parts(self, number: int, captions: CaptionTable | None) -> list[Piece]:
        """Videos of each training part.

        In a single source, captioned video i belongs to part i mod `number`: parts are alike in any order of videos.

        Args:
            captions: captions of the training split; None: the source stores them.

        Raises:
            DataError: a file is missing or empty, or no video has a caption.
        """
        if self.source is None:
            return [self._file(corpora.train_part(self.folder, self.name, part)) for part in range(number)]
        rows = self._captioned(captions)
        return [self._rows(rows[part::number]) for part in range(number)]

    def validation(self, captions: CaptionTable) -> Piece:
        """Validation split. DataError as for `parts`."""
        if self.source is None:
            return self._file(corpora.validation(self.folder, self.name))
        return self._rows(self._captioned(captions))

    def _file(self, path: Path) -> Piece:
        rows = len(TSVSource(path))
        if not rows:
            raise DataError(f"{path}: the file is empty; a line is one video")
        return Piece(partial(TSVSource, path, self.config.max_pixels), rows)

    def _rows(self, rows: np.ndarray) -> Piece:
        return Piece(lambda: self.source, len(rows), rows)  # type: ignore[arg-type, return-value]

    def _captioned(self, captions: CaptionTable | None) -> np.ndarray:
        source = self.source
        assert source is not None
        if captions is None:
            return np.arange(len(source))
        if captions.where not in self._rows_of:
            source.check_ids()
            rows = captions.positions_of(_Ids(source))
            if not rows:
                raise DataError(
                    f"{captions.where}: no caption is of one of the {len(source)} videos of {source.path}, whose ids "
                    f"are such as {shown(source.video_id(0))}; use the same ids in both files"
                )
            LOGGER.info("%s: %d of %d videos are in %s", source.path, len(rows), len(source), captions.where)
            self._rows_of[captions.where] = np.array(rows, np.int64)
        return self._rows_of[captions.where]

    def _find_tsv(self) -> Path:
        try:
            return corpora.train_part(self.folder, self.name, 0)
        except DataError:
            if self.config.size_epoch:
                raise
            return corpora.validation(self.folder, self.name)
