"""Which source a run reads its frames from."""

from collections.abc import Callable
from pathlib import Path

from lavender.config.schema import Config
from lavender.data.sources.base import FrameSource
from lavender.data.sources.tsv import TSVSource


def frame_source(config: Config, find_tsv: Callable[[], Path]) -> FrameSource:
    """The source of a data set.

    Args:
        config: max_pixels.
        find_tsv: the frame TSV of the data set; it raises DataError where there is none.
    """
    return TSVSource(find_tsv(), config.max_pixels)
