"""Choice of the frame source of a run."""

from collections.abc import Callable
from pathlib import Path

from lavender.config.schema import Config
from lavender.data.corpora import is_image_dataset
from lavender.data.sources.base import FrameSource
from lavender.data.sources.shards import ShardSource
from lavender.data.sources.tsv import TSVSource
from lavender.data.sources.video_files import VideoFolder
from lavender.runtime.errors import DataError


def frame_source(config: Config, find_tsv: Callable[[], Path]) -> FrameSource:
    """Opens the frame source of a data set.

    Args:
        config: frame_source and the options for it.
        find_tsv: returns the frame TSV of the data set; raises DataError if there is none.

    Raises:
        DataError: no frames are found; the message names the files searched for.
    """
    dataset = str(config.dataset)
    if has_direct_source(config, dataset, find_tsv):
        return direct_source(config, dataset)
    return TSVSource(find_tsv(), config.max_pixels)


def has_direct_source(config: Config, dataset: str, find_tsv: Callable[[], Path]) -> bool:
    """Whether videos or shards are read. `auto` uses the TSV if it exists or nothing else is named."""
    if config.frame_source != "auto" or not (config.video_dir or _shards(config, dataset)):
        return config.frame_source in ("videos", "shards")
    try:
        find_tsv()
    except DataError:
        return True
    return False


def direct_source(config: Config, dataset: str) -> FrameSource:
    """Opens the videos or shards of a data set. DataError if they are missing."""
    shards = _shards(config, dataset)
    if config.frame_source == "videos" or not shards:
        single = config.type == "pretrain" and is_image_dataset(dataset)
        return VideoFolder(config.video_dir, config.stored_frames, config.max_pixels, single)
    tolerant = config.on_bad_sample == "zero"
    return ShardSource(shards, config.stored_frames, config.max_pixels, tolerant=tolerant)


def _shards(config: Config, dataset: str) -> str:
    return config.shards.get(dataset, "") if isinstance(config.shards, dict) else config.shards
