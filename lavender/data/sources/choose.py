"""Which source a run reads its frames from."""

from collections.abc import Callable
from pathlib import Path

from lavender.config.schema import Config
from lavender.data.sources.base import FrameSource
from lavender.data.sources.tsv import TSVSource
from lavender.data.sources.video_files import VideoFolder
from lavender.runtime.errors import DataError


def frame_source(config: Config, find_tsv: Callable[[], Path]) -> FrameSource:
    """The source of a data set; `auto` is the TSV where it is there, else the videos where `video_dir` is given.

    Args:
        config: frame_source, video_dir, stored_frames, max_pixels.
        find_tsv: the frame TSV of the data set; it raises DataError where there is none.

    Raises:
        DataError: nothing is found; the message names what was looked for.
    """
    if config.frame_source != "videos":
        try:
            path = find_tsv()
        except DataError:
            if config.frame_source == "tsv" or not config.video_dir:
                raise
        else:
            return TSVSource(path, config.max_pixels)
    return VideoFolder(config.video_dir, config.stored_frames, config.max_pixels)
