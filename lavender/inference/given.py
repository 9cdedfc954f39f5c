"""Questions and clips that were handed over, as the data sets that evaluation reads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavender.config.schema import Config
from lavender.data.items import Item, Items
from lavender.data.samples import ClipDataset
from lavender.inference.clips import GivenVideos, Seen

SPLIT = "test"  # whose items may lack an answer


class GivenItems(Items):
    """Items that stand in no file.

    Args:
        content: what a file would say beside its items, such as `vocab`.
    """

    def __init__(self, items: Sequence[Item], content: Mapping[str, Any] | None = None):
        super().__init__(Path("the given texts"), dict(content or {}) | {SPLIT: list(items)})

    def where(self, split: str, number: int) -> str:
        return f"given text {number} (counted from 0)"


class GivenClips(ClipDataset):
    """Clips without texts, to be captioned or encoded."""

    def __init__(self, config: Config, source: GivenVideos):
        super().__init__(config, training=False, size_frame=config.size_frame)
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def video(self, index: int) -> Seen:
        return self.source.video(index)

    def text(self, index: int, stream: np.random.Generator, guard: Any) -> dict[str, Any]:
        video = {"video": self.source.video(index).video_id}
        return {**video, "draws": stream.random(self.config.max_gen_length)} if self.config.do_sample else video
