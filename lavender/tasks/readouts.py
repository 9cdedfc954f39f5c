"""Readout of answers from text states: a token at `[MASK]`, or a classifier on `[CLS]` (paper, section 3.2).

A readout defines heads, logits and loss. A task combines a data format, a readout and a score.
"""

from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.batch import AnsweredBatch, ChoiceBatch
from lavender.metrics.matching import matching_score, ranking_score
from lavender.models.lavender import Heads, Lavender
from lavender.tasks.base import labelled_loss, select_labelled, training_metrics
from lavender.text.masking import IGNORED
from lavender.text.tokens import TextTokenizer

Read = TypeVar("Read", bound=AnsweredBatch, contravariant=True)


class Readout(Protocol[Read]):
    """Interface of a readout of the states of a batch's texts (N, X, D)."""

    heads: Heads

    def logits(self, model: Lavender, states: Tensor, batch: Read) -> Tensor:
        """Logits over the tokens or classes, one row per answer."""

    def loss(self, model: Lavender, states: Tensor, batch: Read) -> dict[str, Tensor]:
        """`loss` and other training metrics."""


class WordAtMask:
    """MLM readout: the answer is a token of the whole vocabulary, predicted at `[MASK]`."""

    heads = Heads(mlm=True, task_tokens=True)

    def logits(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> Tensor:
        """Logits over the vocabulary at `position`, (B, V)."""
        return model.fc_mtm(at_positions(states, batch["position"]))

    def loss(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> dict[str, Tensor]:
        """MLM loss over the labelled positions of all texts."""
        states, labels = select_labelled(states, batch["labels"], batch.get("label_positions"))
        return counted_loss(model.fc_mtm(states), labels)


class WordPerOption(WordAtMask):
    """MLM readout per option's text (B·O, X, D), at its final `[MASK]`."""

    def logits(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> Tensor:
        """Logits over the vocabulary, (B, O, V)."""
        return model.fc_mtm(states[:, -1]).view(*batch["ids"].shape[:2], -1)


class ClassOnCls:
    """Baseline readout: an MLP on `[CLS]` with one class per answer.

    Args:
        size: number of classes; name: name of the head in the model's weights.
    """

    def __init__(self, size: int, name: str = "fc"):
        self.name = name
        self.heads = Heads(mlm=False, task_tokens=False, classifiers={name: size})

    def logits(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> Tensor:
        """Logits over the classes, (B, size)."""
        return model.classify(self.name, states[:, 0])

    def loss(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> dict[str, Tensor]:
        """Cross-entropy over the classes; `labels` is (B,)."""
        return counted_loss(self.logits(model, states, batch), batch["labels"])


class OptionOnCls(ClassOnCls):
    """Like `ClassOnCls`, with one class per option; a question without its video has no label."""

    def loss(self, model: Lavender, states: Tensor, batch: ChoiceBatch) -> dict[str, Tensor]:  # type: ignore[override]
        labels = batch["answer"].masked_fill(~batch["present"], IGNORED)
        return counted_loss(self.logits(model, states, batch), labels)


class ScoreOnCls(OptionOnCls):
    """Baseline readout: an MLP on `[CLS]` scores each option's text (B·O, X, D), with a softmax over the options."""

    def __init__(self, name: str = "fc"):
        super().__init__(1, name)

    def logits(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> Tensor:
        """Option scores, (B, O); not divided by `temp`, as released."""
        return super().logits(model, states, batch).view(batch["ids"].shape[:2])


class MatchAtMask:
    """Pretraining, MLM readout: a pair is "true" or "false" at the `[MASK]` after its text.

    There are B videos with O texts each, the own text first; `matches` are their logits (B, O, V).
    """

    heads = Heads(mlm=True, task_tokens=True)

    def __init__(self, config: Config, tokenizer: TextTokenizer):
        self.config, self.true_id, self.false_id = config, tokenizer.true_id, tokenizer.false_id

    def logits(self, model: Lavender, states: Tensor) -> Tensor:
        """Text states (P, X, D) → logits (P, V) at the appended `[MASK]`."""
        return model.fc_mtm(states[:, -1])

    def losses(self, matches: Tensor) -> Tensor:
        """Cross-entropy of each pair, (B, O): label "true" for the own text, "false" for the others."""
        labels = torch.full(matches.shape[:2], self.false_id, device=matches.device)
        labels[:, 0].fill_(self.true_id)  # plain assignment would copy the number from the host
        return F.cross_entropy(matches.float().flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)

    def scores(self, matches: Tensor) -> Tensor:
        """Matching score of each text, (B, O)."""
        return matching_score(*self._true_false(matches), self.config.score_fn)

    def ranking(self, matches: Tensor) -> Tensor:
        """Ranking score of each text, (B, O)."""
        return ranking_score(*self._true_false(matches), self.config.score_fn)

    def _true_false(self, matches: Tensor) -> tuple[Tensor, Tensor]:
        return matches[..., self.true_id].float(), matches[..., self.false_id].float()


class MatchOnCls:
    """Pretraining, baseline readout: an MLP on `[CLS]` scores each pair, with a softmax over a video's texts.

    `matches` are the scores of B videos with O texts each, own text first: (B, O, 1).
    """

    name = "fc"
    heads = Heads(mlm=True, task_tokens=False, classifiers={name: 1})

    def __init__(self, config: Config):
        self.config = config

    def logits(self, model: Lavender, states: Tensor) -> Tensor:
        """Text states (P, X, D) → scores (P, 1)."""
        return model.classify(self.name, states[:, 0])

    def losses(self, matches: Tensor) -> Tensor:
        """Cross-entropy of each video over its texts, (B, 1); the own text comes first."""
        target = torch.zeros(len(matches), dtype=torch.long, device=matches.device)
        return F.cross_entropy(self.scores(matches), target, reduction="none")[:, None]

    def scores(self, matches: Tensor) -> Tensor:
        """Matching score of each text, divided by `temp`: (B, O)."""
        return matches.squeeze(-1).float() / self.config.temp

    def ranking(self, matches: Tensor) -> Tensor:
        """Ranking score of each text, (B, O)."""
        return self.scores(matches)


def counted_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy over the labelled rows (K, n), (K,), and their accuracy `acc`.

    A batch without labels has loss 0 and accuracy 0, and counts in the means.
    """
    return {"loss": labelled_loss(logits, labels), **training_metrics(logits, labels)}


def at_positions(states: Tensor, positions: Tensor) -> Tensor:
    """States (B, X, D) at one position each (B,) → (B, D); a negative position gives the state of token 0."""
    return states[torch.arange(len(states), device=states.device), positions.clamp(min=0)]
