"""The frames of a prediction's video, as small pictures within a page; and its references."""

import base64
import io
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavender.config.schema import Config
from lavender.data import corpora
from lavender.data.annotations import CaptionTable, read_splits
from lavender.data.caption_folder import CaptionFolder
from lavender.data.frames import evaluation_indices
from lavender.data.items import open_frames
from lavender.data.pretrain_frames import CorpusFrames
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.data.sources.choose import frame_source
from lavender.runtime.errors import LavenderError

LOGGER = logging.getLogger("lavender.report")

HEIGHT = 96  # pixels of a small picture
SHOWN = 5  # frames of a video


class Videos:
    """The videos of a task's split, found by id as evaluation finds them.

    Args:
        config: of the task; split: its name; record: one of its predictions, which tells the kind of task.

    Attributes:
        fault: why no video has frames, such as data that are no longer there; "" where they are.
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
            path = Path(config.data_dir) / getattr(config, f"{split}_yaml")
            within = None if config.outside_paths else Path(config.data_dir)
            self._captions = CaptionFolder(path, True, within, split != "train", partial(frame_source, config))
            self._rows = {video: row for row, video in reversed(list(enumerate(self._captions.videos)))}
        elif "words" in record or "matching" in record:
            names = [config.dataset] if isinstance(config.dataset, str) else config.dataset
            folders = names if isinstance(names, dict) else dict.fromkeys(names, config.data_dir)
            for name, folder in folders.items():
                if len(folders) > 1 and not split.startswith(f"{name}-"):
                    continue
                table = CaptionTable(read_splits(corpora.text_file(folder, name), "pretrain").get("val") or {}, name)
                self._sources.append(CorpusFrames(config, name, folder).validation(table).open())
        else:
            self._sources.append(open_frames(config))

    def frames(self, video: str) -> list[str]:
        """Small pictures of frames that are spread over a video, as `data:` addresses; [] where it is not found."""
        try:
            stored = self._find(video)
            if stored is None:
                return []
            numbers = evaluation_indices(len(stored), min(SHOWN, len(stored)))
            return [_picture(frame) for frame in stored.frames(numbers)]
        except LavenderError:
            return []

    def references(self, video: str) -> list[str]:
        """The captions that a caption of the video is compared with."""
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


def _picture(frame: np.ndarray) -> str:
    image = Image.fromarray(frame)
    image.thumbnail((2 * HEIGHT, HEIGHT))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
