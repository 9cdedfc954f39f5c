"""Multiple choice by matching: each option is a text, and the best match is the answer (MSRVTT-MC, LSMDC-MC)."""

from typing import Any

import torch
from torch import Tensor

from lavender.data.retmc import MatchingChoiceDataset, MatchingTextDataset
from lavender.metrics.matching import matching_score, ranking_score
from lavender.models.lavender import Heads, Lavender
from lavender.models.pairs import gather
from lavender.tasks.downstream import ChoiceTask, masked_loss
from lavender.text.prompts import PROMPTS


class RetMCTask(ChoiceTask):
    """The MLM way: "true" or "false" at the `[MASK]` after each option's text."""

    dataset_types = ("retmc",)
    related_types = ("retrieval",)  # as released for MSRVTT-MC, which has no training split
    heads = Heads(mlm=True, task_tokens=True)
    dataset_class = MatchingChoiceDataset

    def prompt(self) -> str:
        return PROMPTS["retmc"]

    def states(self, model: Lavender, batch: dict[str, Any]) -> Tensor:
        """States of the texts of each video's options, (B·O, X, D); a video is encoded once."""
        video = model.encode_video(batch["img"], batch["present"])
        videos, options = batch["ids"].shape[:2]
        pairs = torch.arange(videos, device=batch["ids"].device).repeat_interleave(options)
        return self.text_states(model, gather(video, pairs), batch["ids"].flatten(0, 1), batch["mask"].flatten(0, 1))

    def loss(self, model: Lavender, batch: dict[str, Any]) -> dict[str, Tensor]:
        return masked_loss(model, self.states(model, batch), batch["labels"].flatten(0, 1))

    def match_logits(self, model: Lavender, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Logits of "true" and of "false" for each option, (B, O) each."""
        logits = model.fc_mtm(self.states(model, batch)[:, -1]).view(*batch["ids"].shape[:2], -1)
        return logits[..., self.tokenizer.true_id].float(), logits[..., self.tokenizer.false_id].float()

    def option_scores(self, model: Lavender, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        true, false = self.match_logits(model, batch)
        return ranking_score(true, false, self.config.score_fn), matching_score(true, false)


class RetMCTaskSpecificTask(RetMCTask):
    """The baseline: an MLP on `[CLS]` scores each option's text, and the options compete."""

    heads = Heads(mlm=False, task_tokens=False, classifiers={"fc": 1})
    dataset_class = MatchingTextDataset

    def logits(self, model: Lavender, batch: dict[str, Any]) -> Tensor:
        """Scores of the options, (B, O); not divided by `temp`, as released."""
        return model.classify(self.classifier, self.states(model, batch)[:, 0]).view(batch["ids"].shape[:2])

    def loss(self, model: Lavender, batch: dict[str, Any]) -> dict[str, Tensor]:
        return self.option_loss(self.logits(model, batch), batch)

    def option_scores(self, model: Lavender, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        logits = self.logits(model, batch).float()
        return logits, logits.softmax(-1)
