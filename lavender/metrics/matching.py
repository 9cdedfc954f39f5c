"""How well a text matches a video, from the two logits "true" and "false"."""

import torch
from torch import Tensor


def matching_score(logit_true: Tensor, logit_false: Tensor, score_fn: str = "probability") -> Tensor:
    """The score of each pair, elementwise.

    Args:
        score_fn: `probability` is softmax over the two logits (paper, section 3.2); `upstream` is
            logit_true / (logit_true + logit_false) on raw logits, as the released code had it. They rank differently.
    """
    if score_fn == "upstream":
        return ranking_score(logit_true, logit_false, score_fn)
    return torch.sigmoid(logit_true - logit_false)


def ranking_score(logit_true: Tensor, logit_false: Tensor, score_fn: str = "probability") -> Tensor:
    """By what pairs are ranked, elementwise: `probability` as its log-odds, which do not round to 1 (17 is enough)."""
    if score_fn == "upstream":
        return logit_true / (logit_true + logit_false)
    return logit_true - logit_false
