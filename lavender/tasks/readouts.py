"""How an answer is read from the states of a text: a word at `[MASK]`, or a classifier on `[CLS]` (paper, section 3.2).

A readout says which heads it needs, what its logits are, and what its loss is. A task is a data format, a readout and a
score.
"""

from typing import Protocol, TypeVar

import torch
from torch import Tensor

from lavender.data.batch import AnsweredBatch, ChoiceBatch
from lavender.models.lavender import Heads, Lavender
from lavender.tasks.base import at_labels, labelled_loss, training_figures
from lavender.text.masking import IGNORED

Read = TypeVar("Read", bound=AnsweredBatch, contravariant=True)


class Readout(Protocol[Read]):
    """What the tasks ask of a readout, for the states of a batch's texts (N, X, D)."""

    heads: Heads

    def logits(self, model: Lavender, states: Tensor, batch: Read) -> Tensor:
        """Logits over the words or classes, a row each answer."""

    def loss(self, model: Lavender, states: Tensor, batch: Read) -> dict[str, Tensor]:
        """`loss` and what training says beside it."""


class WordAtMask:
    """The MLM way: the answer is a word of the whole vocabulary, read at `[MASK]`."""

    heads = Heads(mlm=True, task_tokens=True)

    def logits(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> Tensor:
        """Logits over the vocabulary at `position`, (B, V)."""
        return model.fc_mtm(at_positions(states, batch["position"]))

    def loss(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> dict[str, Tensor]:
        """The MLM loss over the labelled positions of all texts."""
        states, labels = at_labels(states, batch["labels"])
        return counted_loss(model.fc_mtm(states), labels)


class ClassOnCls:
    """The baseline: an MLP on `[CLS]`, one class an answer.

    Args:
        size: classes; name: of the head in the model's weights.
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
    """The same with one class an option; a question without its video has no label."""

    def loss(self, model: Lavender, states: Tensor, batch: ChoiceBatch) -> dict[str, Tensor]:  # type: ignore[override]
        labels = batch["answer"].masked_fill(~batch["present"], IGNORED)
        return counted_loss(self.logits(model, states, batch), labels)


class ScoreOnCls(OptionOnCls):
    """An MLP on `[CLS]` gives each option's text (B·O, X, D) one score, and the options compete."""

    def __init__(self, name: str = "fc"):
        super().__init__(1, name)

    def logits(self, model: Lavender, states: Tensor, batch: AnsweredBatch) -> Tensor:
        """Scores of the options, (B, O); not divided by `temp`, as released."""
        return super().logits(model, states, batch).view(batch["ids"].shape[:2])


def counted_loss(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Cross-entropy over the labelled rows of (K, n), (K,), and `acc`, the share of them that is right.

    A batch without labels has loss 0 and accuracy 0, and is counted.
    """
    known = labels != IGNORED
    logits, labels = logits[known], labels[known]
    return {"loss": labelled_loss(logits, labels), **training_figures(logits, labels)}


def at_positions(states: Tensor, positions: Tensor) -> Tensor:
    """States (B, X, D) at one position each (B,) → (B, D); a negative position gives that of token 0."""
    return states[torch.arange(len(states), device=states.device), positions.clamp(min=0)]
