"""Pretraining data: videos or images, and one caption each (`spec`: `txt_<dataset>.json`)."""

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
from lavender.runtime.seed import EVALUATION, sample_stream
from lavender.text.masking import mask_words
from lavender.text.tokens import TextTokenizer

MAX_PAIRS = 4  # texts a video is matched against: its own and three others
_NEGATIVES = 1  # the purpose of a sample's second random stream


class PretrainDataset(ClipDataset):
    """Clips with a caption whose words are hidden, and the texts each clip is wrongly paired with.

    Args:
        source: the frames.
        captions: video id → caption; None: the source has them.
        append_mask: put a `[MASK]` after the text, where matching is answered (the MLM way).
        rows: which videos of the source are meant, (N,); without it, all.
        samples: how many of those are used (without it, all); the draw is seeded.

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
        if captions is not None and rows is None:  # else those with captions were looked for, and are checked
            captions.check_file_names(source)
        self.rows = range(len(source)) if rows is None else rows  # millions of numbers, where a range costs nothing
        if samples and samples < len(self.rows):
            drawn = draw_share(len(self.rows), samples, config.seed)
            self.rows = drawn if rows is None else rows[drawn]
        self._opened: tuple[int, StoredVideo] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def video(self, index: int) -> StoredVideo:
        if self._opened is None or self._opened[0] != index:  # opened for its frames, asked again for its id
            self._opened = index, self.source.video(int(self.rows[index]))
        return self._opened[1]

    def _video_id(self, index: int) -> str:
        try:
            return self.video(index).video_id
        except DataError:  # its frames are not there, but its id may be
            return self.source.video_id(int(self.rows[index]))

    def _caption(self, index: int, video: str) -> str:
        if self.captions is None:
            return self.source.caption(int(self.rows[index]))
        return self.captions.caption(video)

    def text(self, index: int, stream: np.random.Generator, guard: Any) -> dict[str, Any]:
        tokenizer = self.tokenizer
        video = guard.attempt(lambda: self._video_id(index), "")
        caption = guard.attempt(lambda: self._caption(index, video), "")
        ids, mask = tokenizer.encode(caption, self.config.size_txt, self.append_mask)
        keep = (tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tokenizer.mask_id)
        hidden, labels = mask_words(ids, stream.random(ids.shape), self.config.p_mask, keep, tokenizer.mask_id)
        return {"video": video, "caption": caption, "ids": hidden, "mask": mask, "labels": labels}

    def collate(self, samples: list[Any]) -> PretrainBatch | Failure:
        batch = cast(PretrainBatch | Failure, super().collate(samples))
        if not isinstance(batch, Failure):
            texts = [self.tokenizer.wordpieces(caption) for caption in batch["caption"]]
            batch["negatives"] = self._negatives(batch["epoch"].tolist(), batch["index"].tolist(), texts)
        return batch

    def _negatives(self, epochs: list[int], indices: list[int], texts: Sequence[list[int]] = ()) -> torch.Tensor:
        """For each sample, other samples of the batch, drawn without replacement: (B, min(B, 4) − 1).

        One whose text is the sample's own gives way to one that is not drawn yet, or else to one that is.
        """
        size = len(indices)
        rows = []
        for own, (epoch, index) in enumerate(zip(epochs, indices, strict=True)):
            stream = sample_stream(self.config.seed, epoch if self.training else EVALUATION, index, _NEGATIVES)
            others = np.delete(np.arange(size), own)
            drawn = stream.choice(others, min(size, MAX_PAIRS) - 1, replace=False)
            if texts and self.config.vtm_negatives == "distinct":
                is_own = np.array([text == texts[own] for text in texts])
                for place in np.flatnonzero(is_own[drawn]):  # draws come after the released ones, which stay the same
                    different = others[~is_own[others]]
                    unused = np.setdiff1d(different, drawn)
                    if len(different):
                        drawn[place] = stream.choice(unused if len(unused) else different)
            rows.append(drawn)
        return torch.from_numpy(np.stack(rows)).long()
