"""Frames of a prediction's video as thumbnails in the page, and its references."""

import logging
from collections.abc import Mapping
from typing import Any

from lavender.config.schema import Config
from lavender.data import corpora
from lavender.data.annotations import CaptionTable, read_splits
from lavender.data.caption import open_captions
from lavender.data.caption_folder import CaptionFolder
from lavender.data.frames import evaluation_indices
from lavender.data.items import open_frames
from lavender.data.pictures import picture_address
from lavender.data.pretrain_frames import CorpusFrames
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.runtime.errors import LavenderError
from lavender.tasks.splits import of_dataset

LOGGER = logging.getLogger("lavender.report")

HEIGHT = 96  # height of a thumbnail in pixels
SHOWN = 5  # frames shown per video


class Videos:
    """Videos of a task's split, looked up by id like in evaluation.

    Args:
        config: configuration of the task; split: its name; record: one of its predictions, to detect the kind of task.

    Attributes:
        fault: why no video has frames, such as missing data; "" if they can be read.
    """

    def __init__(self, config: Config, split: str, record: Mapping[str, Any]):
        self._sources: list[FrameSource] = []
        self._captions: CaptionFolder | None = None
        self._rows: dict[str, int] = {}
        self.fault = ""
        try:
            self._open(config, split, record)
        except LavenderError as fault:
            self.fault = str(fault)
            LOGGER.warning("no frames are shown: %s", fault)

    def _open(self, config: Config, split: str, record: Mapping[str, Any]) -> None:
        if "captions" in record:
            self._captions = open_captions(config, split, tolerant=True)
            self._rows = {video: row for row, video in reversed(list(enumerate(self._captions.videos)))}
        elif "words" in record or "matching" in record:
            folders = corpora.folders_of(config)
            for name, folder in folders.items():
                if split != of_dataset(name if len(folders) > 1 else "", "val"):
                    continue
                table = CaptionTable(read_splits(corpora.text_file(folder, name), "pretrain").get("val") or {}, name)
                self._sources.append(CorpusFrames(config, name, folder).validation(table).open())
        else:
            self._sources.append(open_frames(config))

    def frames(self, video: str) -> list[str]:
        """Thumbnails of frames spread over a video, as `data:` URLs; [] if the video is not found."""
        try:
            stored = self._find(video)
            if stored is None:
                return []
            numbers = evaluation_indices(len(stored), min(SHOWN, len(stored)))
            return [picture_address(frame, 2 * HEIGHT, HEIGHT) for frame in stored.frames(numbers)]
        except LavenderError:
            return []

    def references(self, video: str) -> list[str]:
        """Reference captions of a video."""
        if self._captions is None or video not in self._rows:
            return []
        try:
            return self._captions.references([self._rows[video]])[0]
        except LavenderError:
            return []

    def _find(self, video: str) -> StoredVideo | None:
        if self._captions is not None:
            return self._captions.video(self._rows[video]) if video in self._rows else None
        places = ((source, source.place(video)) for source in self._sources)
        return next((source.video(place) for source, place in places if place is not None), None)
