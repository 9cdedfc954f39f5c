"""Multiple choice by matching: each option is a text, and the best match is the answer (MSRVTT-MC, LSMDC-MC)."""

import torch
from torch import Tensor

from lavender.data.batch import ChoiceBatch
from lavender.data.retmc import MatchingChoiceDataset, MatchingTextDataset
from lavender.metrics.matching import matching_score, ranking_score
from lavender.models.lavender import Lavender
from lavender.models.pairs import select_rows
from lavender.tasks.downstream import ChoiceTask
from lavender.tasks.readouts import ScoreOnCls, WordPerOption
from lavender.text.prompts import PROMPTS


class MatchingChoiceTask(ChoiceTask):
    """One text per option, with any readout; a video is encoded once for all of them."""

    dataset_types = ("retmc",)
    related_types = ("retrieval",)  # as released for MSRVTT-MC, which has no training split

    def states(self, model: Lavender, batch: ChoiceBatch) -> Tensor:
        """States of all options' texts, (B·O, X, D)."""
        video = model.encode_video(batch["img"], batch["present"])
        videos, options = batch["ids"].shape[:2]
        pairs = torch.arange(videos, device=batch["ids"].device).repeat_interleave(options)
        return self.text_states(
            model, select_rows(video, pairs), batch["ids"].flatten(0, 1), batch["mask"].flatten(0, 1)
        )


class RetMCTask(MatchingChoiceTask):
    """MLM variant: "true" or "false" at the `[MASK]` after each option's text."""

    dataset_class = MatchingChoiceDataset
    readout = WordPerOption()
    heads = readout.heads

    def prompt(self) -> str:
        return PROMPTS["retmc"]

    def match_logits(self, model: Lavender, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        """Logits of "true" and "false" for each option, (B, O) each."""
        logits = self.logits(model, batch)
        return logits[..., self.tokenizer.true_id].float(), logits[..., self.tokenizer.false_id].float()

    def option_scores(self, model: Lavender, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        true, false = self.match_logits(model, batch)
        return ranking_score(true, false, self.config.score_fn), matching_score(true, false)


class RetMCTaskSpecificTask(MatchingChoiceTask):
    """Baseline: an MLP on `[CLS]` scores each option's text, with a softmax over the options."""

    dataset_class = MatchingTextDataset
    readout = ScoreOnCls()
    heads = readout.heads

    def option_scores(self, model: Lavender, batch: ChoiceBatch) -> tuple[Tensor, Tensor]:
        logits = self.logits(model, batch).float()
        return logits, logits.softmax(-1)
