"""Text-to-video retrieval: every video of a batch is paired with every text (paper, section 3.2)."""

from abc import abstractmethod
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lavender.data.batch import RetrievalBatch
from lavender.data.items import ItemFile, open_frames
from lavender.data.retrieval import Gallery, RetrievalDataset, RetrievalTextDataset
from lavender.metrics.accuracy import accuracy
from lavender.metrics.matching import ranking_score
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender
from lavender.models.pairs import all_pairs, fuse_at, select_rows
from lavender.runtime.device import constant
from lavender.runtime.errors import ConfigError
from lavender.tasks.base import GalleryTask, Metrics, Record
from lavender.tasks.downstream import DownstreamTask
from lavender.tasks.readouts import ScoreOnCls, WordAtMask, counted_loss
from lavender.text.masking import IGNORED


class PairTask(DownstreamTask[RetrievalBatch], GalleryTask):
    """Pairs of a video and a text, with any score: in-batch accuracy, and the gallery."""

    config_type = "retrieval"
    dataset_types = ("retrieval",)
    dataset_class: type[RetrievalDataset]
    answer_at: int  # position in the text at which a pair is scored

    @abstractmethod
    def scores(self, model: Lavender, states: Tensor) -> Tensor:
        """States (P, D) → ranking scores of the pairs, (P,)."""

    # --- a batch, all pairs -------------------------------------------------------------------------------------------

    def answer_states(self, model: Lavender, batch: RetrievalBatch) -> Tensor:
        """States of all pairs at `answer_at`, row-major over videos: (B·B, D). Video and text are encoded once."""
        video = model.encode_video(batch["img"], batch["present"])
        text = model.encode_text(batch["ids"], batch["mask"])
        videos, texts = all_pairs(len(batch["ids"]), device=batch["ids"].device)
        states = model.fuse(select_rows(video, videos), select_rows(text, texts), self.prefix(model))
        return states[:, -text.states.shape[1] :][:, self.answer_at]

    def shared_text(self, batch: RetrievalBatch) -> Tensor:
        """Pairs of a video with its own text under another video: neither positive nor negative, (B, B)."""
        return batch.get("shared_text", torch.zeros_like(batch["is_match"]))

    def match_matrix(self, model: Lavender, batch: RetrievalBatch) -> Tensor:
        """Scores of all pairs, (B videos, B texts); for the baseline not divided by `temp`."""
        return self.scores(model, self.answer_states(model, batch)).view(batch["is_match"].shape)

    def predict(self, model: Lavender, batch: RetrievalBatch) -> list[Record]:
        """In-batch prediction, as released: the text that matches each video best."""
        scores = self.match_matrix(model, batch)
        best = scores.argmax(dim=1)
        right = batch["is_match"].gather(1, best[:, None]).squeeze(1) & batch["present"]
        rows = zip(
            *(batch["index"].tolist(), batch["video"], batch["caption"]),
            *(best.tolist(), scores.tolist(), right.tolist()),
            strict=True,
        )
        return [
            {
                "index": index,
                "video": video,
                "caption": caption,
                "prediction": batch["caption"][chosen],
                "score": row[chosen],
                "right": is_right,
            }
            for index, video, caption, chosen, row, is_right in rows
        ]

    def metrics(self, records: list[Record], split: str) -> Metrics:
        """`acc`: in-batch accuracy, the fraction of videos whose own text scores highest; no recall, see `gallery`."""
        return {"acc": accuracy([record["right"] for record in records])}

    # --- the gallery, all texts against all videos --------------------------------------------------------------------

    @cached_property
    def gallery(self) -> Gallery:  # type: ignore[override]
        """Gallery of the split `eval_split`.

        Raises:
            ConfigError: the text file has no such split.
        """
        texts, frames = ItemFile(self.config), open_frames(self.config)
        split = self.config.eval_split
        if not texts.items(split):
            raise ConfigError(f'{texts.path}: no "{split}" items to evaluate{texts.misnamed(split)}; see --eval_split')
        return Gallery(self.config, frames, texts, split)

    def encode_caption(self, caption: str) -> tuple[np.ndarray, np.ndarray]:
        return self.tokenizer.encode(caption, self.config.size_txt, self.dataset_class.append_mask)

    def pair_scores(self, model: Lavender, video: Encoded, text: Encoded) -> Tensor:
        """Scores of P pairs of a video and an unpadded text, (P,); the last fusion layer runs at one position only."""
        return self.scores(model, fuse_at(model, video, text, self.prefix(model), self.answer_at))


class RetrievalTask(PairTask):
    """MLM variant: "true" or "false" at a `[MASK]` after the text of each pair."""

    dataset_class = RetrievalDataset
    heads = WordAtMask.heads
    answer_at = -1

    def loss(self, model: Lavender, batch: RetrievalBatch) -> dict[str, Tensor]:
        """Binary loss: pairs of the same video are true, others false; missing videos and equal texts have no label."""
        logits = model.fc_mtm(self.answer_states(model, batch))  # (B·B, V)
        labels = torch.where(batch["is_match"], self.tokenizer.true_id, self.tokenizer.false_id)
        unknown = ~batch["present"][:, None] | self.shared_text(batch)
        return counted_loss(logits, labels.masked_fill(unknown, IGNORED).flatten())

    def true_false(self, model: Lavender, states: Tensor) -> Tensor:
        """States (P, D) → logits of "true" and "false" (P, 2), in the weights' precision: bf16 would give ties."""
        words = constant((self.tokenizer.true_id, self.tokenizer.false_id), states.device)
        with torch.autocast(states.device.type, enabled=False):
            return model.fc_mtm.logits_for(states.to(model.dtype), words).float()

    def scores(self, model: Lavender, states: Tensor) -> Tensor:
        true, false = self.true_false(model, states).unbind(-1)
        return ranking_score(true, false, self.config.score_fn)


class RetrievalTaskSpecificTask(PairTask):
    """Baseline: an MLP on `[CLS]` scores each pair; the loss is symmetric over the pairs of a batch."""

    dataset_class = RetrievalTextDataset
    head = ScoreOnCls()
    heads = head.heads
    answer_at = 0

    def loss(self, model: Lavender, batch: RetrievalBatch) -> dict[str, Tensor]:
        """Cross-entropy of each video over the texts plus that of each text over the videos, at `temp`.

        As released, pairs with another sample of the same video are negatives; a missing video has no loss.
        """
        scores = self.match_matrix(model, batch).float() / self.config.temp
        scores = scores.masked_fill(self.shared_text(batch), -torch.inf)
        own = torch.arange(len(scores), device=scores.device).masked_fill(~batch["present"], IGNORED)
        by_video, by_text = counted_loss(scores, own), counted_loss(scores.T, own)
        return {**by_video, "loss": by_video["loss"] + by_text["loss"]}

    def scores(self, model: Lavender, states: Tensor) -> Tensor:
        return model.classify(self.head.name, states.to(model.dtype)).squeeze(-1)
