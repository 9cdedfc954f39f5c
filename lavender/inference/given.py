"""User-supplied questions and clips as the data sets that evaluation reads."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from lavender.config.schema import Config
from lavender.data.items import Item, Items
from lavender.data.samples import ClipDataset
from lavender.inference.clips import FrameRecorder, GivenVideos
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

SPLIT = "test"  # the split in which items may lack an answer


def texts_of(given: str | Iterable[str], what: str, blank: bool = False) -> list[str]:
    """Returns one text or several as a list.

    Args:
        what: name of a text in messages; blank: whether a text may be blank.

    Raises:
        DataError: a text is not a string or is blank, or there are none.
    """
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise DataError(f"a {what} is a text, or a list of texts is given, not {shown(given)}")
    texts = [given] if isinstance(given, str) else list(given)
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"the {what} {shown(text)} is no text")
        if not text.strip() and not blank:
            raise DataError(f"the {what} is empty")
    if not texts:
        raise DataError(f"no {what} is given")
    return texts


def check_count(k: int) -> int:
    """Returns `k`, the requested number of results. DataError unless it is an integer from 1."""
    if not isinstance(k, Integral) or k < 1:
        raise DataError(f"k is {shown(k)}; a whole number from 1 on is expected")
    return k


class GivenItems(Items):
    """Items in memory instead of a file.

    Args:
        content: other keys that a file would have, such as `vocab`.
    """

    def __init__(self, items: Sequence[Item], content: Mapping[str, Any] | None = None):
        super().__init__(Path("the given texts"), dict(content or {}) | {SPLIT: list(items)})

    def where(self, split: str, number: int) -> str:
        return f"given text {number} (counted from 0)"


class GivenClips(ClipDataset):
    """Clips without texts, for captioning or encoding."""

    def __init__(self, config: Config, source: GivenVideos):
        super().__init__(config, training=False, size_frame=config.size_frame)
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def video(self, index: int) -> FrameRecorder:
        return self.source.video(index)

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        video = {"video": self.source.video(index).video_id}
        return {**video, "draws": rng.random(self.config.max_gen_length)} if self.config.do_sample else video
