"""Matching score of a text and a video, from the logits of "true" and "false"."""

import torch
from torch import Tensor


def matching_score(logit_true: Tensor, logit_false: Tensor, score_fn: str = "probability") -> Tensor:
    """Score of each pair, elementwise.

    Args:
        score_fn: `probability` is softmax over the two logits (paper, section 3.2); `upstream` is
            logit_true / (logit_true + logit_false) on raw logits, as in the released code. Their rankings differ.
    """
    if score_fn == "upstream":
        return ranking_score(logit_true, logit_false, score_fn)
    return torch.sigmoid(logit_true - logit_false)


def ranking_score(logit_true: Tensor, logit_false: Tensor, score_fn: str = "probability") -> Tensor:
    """Ranking score of each pair, elementwise: for `probability` its log-odds, which do not round to 1."""
    if score_fn == "upstream":
        return logit_true / (logit_true + logit_false)
    return logit_true - logit_false
