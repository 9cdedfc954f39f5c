"""Text-to-video retrieval: pairs of videos and captions for training, a gallery for evaluation."""

import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.annotations import check_caption, check_text
from lavender.data.batch import RetrievalBatch
from lavender.data.frames import number_of_clips, training_indices
from lavender.data.items import Item, ItemDataset, ItemFile
from lavender.data.samples import ClipDataset, Failure
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.data")


def check_captions(item: Item, where: str) -> None:
    """Raises DataError unless an item's `caption` is a text or a paragraph, a list of texts."""
    caption = item.get("caption")
    if caption is None:
        raise DataError(f'{where}: "caption" is missing')
    if isinstance(caption, list) and not caption:
        raise DataError(f"{where}: the list of captions is empty")
    sentences = caption if isinstance(caption, list) else [caption]
    for sentence in sentences:
        check_caption(sentence, where)
    check_text(" ".join(sentences), "the paragraph", where)


def paragraph(caption: str | Sequence[str]) -> str:
    """Whole text of a caption: its sentences in order."""
    return caption if isinstance(caption, str) else " ".join(caption)


class RetrievalDataset(ItemDataset):
    """Clips with a caption; training draws random sentences of a paragraph in random order (Frozen in Time).

    In evaluation each video occurs once, with its first caption; all captions are evaluated by the gallery.

    A batch: `img`, `present`, `ids`, `mask` (B, X), `is_match` (B, B) whether two samples show the same video,
    `shared_text` (B, B) whether two different videos have the same text (unless `vtm_negatives` is `released`), `video`
    and `caption`: lists of B strings.
    """

    append_mask = True

    def kept(self, items: list[Item]) -> list[Item]:
        if self.training:
            return super().kept(items)
        first: dict[int | str, Item] = {}
        for item in items:
            first.setdefault(self.frames.identity(item["video"]), item)
        return list(first.values())

    def check(self, item: Item, where: str) -> None:
        check_captions(item, where)

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        item = self.items[index]
        caption = item["caption"]
        if self.training and isinstance(caption, list):
            size = rng.integers(1, len(caption), endpoint=True)
            caption = [caption[number] for number in rng.permutation(len(caption))[:size]]
        text = paragraph(caption)
        ids, mask = self.tokenizer.encode(text, self.config.size_txt, self.append_mask)
        return {"video": item["video"], "caption": text, "ids": ids, "mask": mask}

    def collate(self, samples: list[Any]) -> RetrievalBatch | Failure:
        batch = cast(RetrievalBatch | Failure, super().collate(samples))
        if not isinstance(batch, Failure):
            shown = [self.frames.identity(video) for video in batch["video"]]
            batch["is_match"] = torch.tensor([[one == other for other in shown] for one in shown])
            if self.config.vtm_negatives == "distinct":
                texts = [self.tokenizer.wordpieces(caption) for caption in batch["caption"]]
                same_text = torch.tensor([[one == other for other in texts] for one in texts])
                batch["shared_text"] = same_text & ~batch["is_match"]
        return batch


class RetrievalTextDataset(RetrievalDataset):
    """Like `RetrievalDataset` without `[MASK]`, for the task-specific head."""

    append_mask = False


class Gallery(ClipDataset):
    """All captions of a split and each of its videos once: the texts and videos of a retrieval evaluation.

    Args:
        frames, texts: frames and items; split: name of the split.

    Attributes:
        videos: ids in the order of their first caption; captions: (text, number of its video), in the file's order.
        missing: descriptions of what was left out (with `allow_missing`).

    A batch: `img` uint8 (ΣC, T, 3, size_img, size_img), the clips of all its videos; `clips` (B,) number of clips of
    each video (1 without `multi_clip_testing`); `present` (B,); `faults`, one for each video that is not present.

    Raises:
        DataError: an invalid caption or, without `allow_missing`, a video that is not in the frame file.
    """

    def __init__(self, config: Config, frames: FrameSource, texts: ItemFile, split: str):
        super().__init__(config, training=False, size_frame=config.size_frame)
        self.tolerant = True  # all unreadable samples are reported together
        self.frames, self.where = frames, f"{texts.path}, {split}"
        self.missing: list[str] = []
        missing: list[str] = []
        self.captions: list[tuple[str, int]] = []
        numbers: dict[int | str, int] = {}
        self.videos: list[str] = []
        items = texts.items(split)
        for number, item in enumerate(items):
            where = texts.where(split, number)
            try:
                check_captions(item, where)
                if item["video"] not in frames:
                    video, hint = shown(item["video"]), frames.hint(item["video"])
                    raise DataError(f"{where}: video {video} is not in {frames.known_from}{hint}")
            except DataError as fault:
                missing.append(str(fault))
                continue
            key = frames.identity(item["video"])
            if key not in numbers:
                numbers[key] = len(self.videos)
                self.videos.append(item["video"])
            self.captions.append((paragraph(item["caption"]), numbers[key]))
        self.refuse_missing(missing, f"of {len(items)} captions")
        if not self.captions:
            raise DataError(f"{self.where}: no captions to evaluate")

    def refuse_missing(self, missing: list[str], of: str) -> None:
        """With `allow_missing` logs missing captions or videos; otherwise they are an error.

        Raises:
            DataError: something is missing; the message names the first few.
        """
        if not missing:
            return
        named = "; ".join(missing[:10]) + ("; …" if len(missing) > 10 else "")
        if not self.config.allow_missing:
            raise DataError(
                f"{self.where}: {len(missing)} {of} cannot be evaluated: {named}. --allow_missing true leaves them out "
                "(the metrics are then those of a smaller gallery)"
            )
        LOGGER.info("%s: %d %s left out (allow_missing): %s", self.where, len(missing), of, named)
        self.missing += missing

    def without(self, videos: set[int]) -> dict[int, int]:
        """Removes videos, by number, with their captions. Returns old → new number of the remaining videos."""
        kept = [number for number in range(len(self.videos)) if number not in videos]
        numbers = {old: new for new, old in enumerate(kept)}
        self.captions = [(text, numbers[own]) for text, own in self.captions if own in numbers]
        self.videos = [self.videos[number] for number in kept]
        if not self.captions:
            raise DataError(f"{self.where}: no captions are left to evaluate")
        return numbers

    def check_frames(self) -> None:
        if not self.config.allow_missing:
            super().check_frames()

    def __len__(self) -> int:
        return len(self.videos)

    def video(self, index: int) -> StoredVideo:
        return self.frames.find(self.videos[index])

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        return {"video": self.videos[index]}

    def clip(self, index: int, rng: np.random.Generator) -> Tensor:
        """Clips of a video, uint8 (C, T, 3, size_img, size_img)."""
        if not self.config.multi_clip_testing:
            return super().clip(index, rng)[None]
        video = self.video(index)
        size, repeat = self.size_frame, self.config.repeat_frames
        starts = range(max(1, number_of_clips(len(video), size)))
        chosen = [training_indices(len(video), size, start, repeat, where=video.where) for start in starts]
        numbers = sorted({number for clip in chosen for number in clip})
        decoded = dict(zip(numbers, video.frames(numbers), strict=True))
        return torch.stack([self.transform([decoded[n] for n in numbers], rng) for numbers in chosen])

    def joined(self, clips: list[Tensor]) -> dict[str, Tensor]:
        clips = [img if img.dim() == 5 else img[None] for img in clips]  # a video replaced by zeros has one clip
        return {"img": torch.cat(clips), "clips": torch.tensor([len(img) for img in clips])}
