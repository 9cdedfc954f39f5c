"""Temporal grounding as text: when an event happens is the number of a segment of the video."""

from typing import Any

import numpy as np
from torch import Tensor

from lavender.data.batch import AnsweredBatch
from lavender.data.items import Item, ItemDataset, require_index, require_text
from lavender.text.questions import answer_at_mask


class GroundingBatch(AnsweredBatch):
    """A batch of `GroundingDataset`."""

    event: list[str]  # B texts
    segment: Tensor  # (B,) int64: number of the segment, from 0


class GroundingDataset(ItemDataset):
    """Items `{"video": …, "event": …, "segment": …}` of N segments: `when does <event> happen? answer: [MASK]`.

    N is `size_option`.
    """

    def check(self, item: Item, where: str) -> None:
        require_text(item, "event", where)
        size = self.config.size_option
        require_index(item, "segment", size, f"there are {size} segments (size_option)", where)

    def text(self, index: int, stream: np.random.Generator, guard: Any) -> dict[str, Any]:
        item, tokenizer = self.items[index], self.tokenizer
        question = f"when does {item['event']} happen?"
        ids, position = answer_at_mask(tokenizer, question, self.config.size_txt)
        return {
            "video": item["video"],
            "event": item["event"],
            "segment": item["segment"],
            "ids": ids,
            "mask": (ids != tokenizer.pad_id).astype(np.int64),
            "labels": np.where(ids == tokenizer.mask_id, tokenizer.word_id(str(item["segment"])), -1),
            "position": position,
        }
