"""Pretraining data: videos or images with one caption each (`txt_<dataset>.json`)."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from lavender.config.schema import Config
from lavender.data.annotations import CaptionTable
from lavender.data.batch import PretrainBatch
from lavender.data.samples import ClipDataset, Failure, draw_share
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.runtime.errors import DataError
from lavender.runtime.seed import EVALUATION, sample_rng
from lavender.text.masking import mask_words
from lavender.text.tokens import TextTokenizer

MAX_PAIRS = 4  # texts that a video is matched with: its own and three others
_NEGATIVES = 1  # purpose of a sample's second random generator


class PretrainDataset(ClipDataset):
    """Clips with a masked caption, and the negative texts of each clip.

    Args:
        source: the frames.
        captions: video id → caption; None: the source stores them.
        append_mask: append a `[MASK]`, at which the MLM head answers video-text matching.
        rows: numbers of the videos to use, (N,); None: all.
        samples: number of them to draw, with a fixed seed; None: all.

    A batch: `img` uint8 (B, T, 3, H, W), `present` (B,), `ids`, `mask`, `labels` (B, X), `negatives` (B, O − 1),
    `video`, `caption`: lists of B strings.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: TextTokenizer,
        source: FrameSource,
        captions: CaptionTable | None,
        *,
        training: bool,
        size_frame: int,
        append_mask: bool,
        rows: np.ndarray | None = None,
        samples: int | None = None,
    ):
        super().__init__(config, training, size_frame)
        self.rows: range | np.ndarray
        self.tokenizer, self.captions, self.append_mask = tokenizer, captions, append_mask
        self.source = source
        if captions is not None and rows is None:  # otherwise they were selected by their captions already
            captions.check_file_names(source)
        self.rows = range(len(source)) if rows is None else rows  # a range needs no memory for millions of rows
        if samples and samples < len(self.rows):
            drawn = draw_share(len(self.rows), samples, config.seed)
            self.rows = drawn if rows is None else rows[drawn]
        self._opened: tuple[int, StoredVideo] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def video(self, index: int) -> StoredVideo:
        if self._opened is None or self._opened[0] != index:  # kept between reading the frames and the id
            self._opened = index, self.source.video(int(self.rows[index]))
        return self._opened[1]

    def _video_id(self, index: int) -> str:
        try:
            return self.video(index).video_id
        except DataError:  # the frames are missing, but the id may exist
            return self.source.video_id(int(self.rows[index]))

    def _caption(self, index: int, video: str) -> str:
        if self.captions is None:
            return self.source.caption(int(self.rows[index]))
        return self.captions.caption(video)

    def text(self, index: int, rng: np.random.Generator, guard: Any) -> dict[str, Any]:
        tokenizer = self.tokenizer
        video = guard.attempt(lambda: self._video_id(index), "")
        caption = guard.attempt(lambda: self._caption(index, video), "")
        ids, mask = tokenizer.encode(caption, self.config.size_txt, self.append_mask)
        keep = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id)
        hidden, labels = mask_words(ids, rng.random(ids.shape), self.config.p_mask, keep, tokenizer.mask_id)
        return {"video": video, "caption": caption, "ids": hidden, "mask": mask, "labels": labels}

    def collate(self, samples: list[Any]) -> PretrainBatch | Failure:
        batch = cast(PretrainBatch | Failure, super().collate(samples))
        if not isinstance(batch, Failure):
            texts = [self.tokenizer.wordpieces(caption) for caption in batch["caption"]]
            batch["negatives"] = self._negatives(batch["epoch"].tolist(), batch["index"].tolist(), texts)
        return batch

    def _negatives(self, epochs: list[int], indices: list[int], texts: Sequence[list[int]] = ()) -> torch.Tensor:
        """Indices of other samples of the batch, drawn without replacement: (B, min(B, 4) − 1).

        A sample with the same text is replaced by one not drawn yet, or else by one already drawn.
        """
        size = len(indices)
        rows = []
        for own, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
            rng = sample_rng(self.config.seed, epoch if self.training else EVALUATION, index, _NEGATIVES)
            others = np.delete(np.arange(size), own)
            drawn = rng.choice(others, min(size, MAX_PAIRS) - 1, replace=False)
            if texts and self.config.vtm_negatives == "distinct":
                is_own = np.array([text == texts[own] for text in texts])
                for place in np.flatnonzero(is_own[drawn]):  # drawn after the released draws
                    different = others[~is_own[others]]
                    unused = np.setdiff1d(different, drawn)
                    if len(different):
                        drawn[place] = rng.choice(unused if len(unused) else different)
            rows.append(drawn)
        return torch.from_numpy(np.stack(rows)).long()
