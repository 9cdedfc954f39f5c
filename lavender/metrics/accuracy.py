"""Accuracy of answers, and option scores."""

from collections.abc import Sequence

from torch import Tensor


def accuracy(right: Sequence[bool], total: int = 0) -> float:
    """Fraction of right answers, of all given ones or of `total` (the true size of a public test split)."""
    return sum(right) / (total or len(right))


def option_scores(logits: Tensor, score_fn: str = "probability") -> Tensor:
    """Scores of the options from their logits, (B, O) → (B, O).

    Args:
        score_fn: `probability` is the softmax over the options; `upstream` divides each logit by their sum, as the
            released code did: with a negative sum the worst option wins.
    """
    if score_fn == "upstream":
        return logits / logits.sum(dim=-1, keepdim=True)
    return logits.softmax(-1)
