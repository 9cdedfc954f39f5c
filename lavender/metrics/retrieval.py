"""Retrieval metrics in both directions, from a matrix of scores."""

from collections.abc import Sequence

import numpy as np

RECALL_AT = (1, 5, 10)
TIE_TOLERANCE = 5e-6  # tie tolerance relative to the largest score; rounding errors of 2e-6 were seen


def text_ranks(scores: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Rank of each text's own video among all videos, from 1.

    Ties share the average of their ranks: a model with constant scores gets the middle rank, not the first. Ranks may
    therefore end in .5.

    Args:
        scores: (texts, videos), higher is better; own: (texts,), column of each text's video.
    """
    own_scores = np.take_along_axis(scores, np.asarray(own)[:, None], axis=1)
    return 1 + _above(scores, own_scores) + (_equal(scores, own_scores) - 1) / 2


def video_ranks(scores: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Rank of each video's best own text among the texts of other videos, from 1; ties as in `text_ranks`.

    Videos without a text are left out.
    """
    belongs = np.arange(scores.shape[1])[:, None] == np.asarray(own)  # (videos, texts)
    asked = belongs.any(axis=1)
    belongs, by_video = belongs[asked], scores.T[asked]
    best = np.where(belongs, by_video, -np.inf).max(axis=1, keepdims=True)
    others = np.where(belongs, -np.inf, by_video)
    return 1 + _above(others, best) + _equal(others, best) / 2


def _above(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Number of entries in each row above its own score, (rows,)."""
    return (scores > own + _rounding(own)).sum(axis=1)


def _equal(scores: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Number of entries in each row equal to its own score, within rounding."""
    return (abs(scores - own) <= _rounding(own)).sum(axis=1)


def _rounding(own: np.ndarray) -> float:
    return TIE_TOLERANCE * float(abs(own).max())


def rank_metrics(ranks: np.ndarray, prefix: str = "") -> dict[str, float]:
    """R@1, R@5, R@10 as fractions, median and mean rank."""
    metrics = {f"{prefix}r@{k}": float((ranks <= k).mean()) for k in RECALL_AT}
    return {**metrics, f"{prefix}median_rank": float(np.median(ranks)), f"{prefix}mean_rank": float(ranks.mean())}


def retrieval_metrics(scores: np.ndarray, own: Sequence[int]) -> dict[str, float]:
    """Text → video (`r@1` …), video → text (`v2t_r@1` …), and `ties`: texts whose video ties with another."""
    ranks = text_ranks(scores, own)
    own_scores = np.take_along_axis(scores, np.asarray(own)[:, None], axis=1)
    ties = float((_equal(scores, own_scores) > 1).sum())
    return {**rank_metrics(ranks), **rank_metrics(video_ranks(scores, own), "v2t_"), "ties": ties}
