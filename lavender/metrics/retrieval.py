"""How well texts find their videos, and videos their texts, from a matrix of scores."""

from collections.abc import Sequence

import numpy as np

RECALL_AT = (1, 5, 10)


def text_ranks(scores: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Rank of each text's own video among all videos, from 1.

    Videos of the same score share the average of their ranks: a model that says one number for all has the middle
    rank, never the first. So a rank may be a half.

    Args:
        scores: (texts, videos), higher is better; own: (texts,), the column of each text's video.
    """
    own_scores = np.take_along_axis(scores, np.asarray(own)[:, None], axis=1)
    return _ranks(scores, own_scores, scores == own_scores)


def video_ranks(scores: np.ndarray, own: Sequence[int]) -> np.ndarray:
    """Rank of each video's best own text among the texts of other videos, from 1; ties as in `text_ranks`.

    A video without a text is not asked: its rank is left out.
    """
    belongs = np.arange(scores.shape[1])[:, None] == np.asarray(own)  # (videos, texts)
    asked = belongs.any(axis=1)
    belongs, by_video = belongs[asked], scores.T[asked]
    best = np.where(belongs, by_video, -np.inf).max(axis=1, keepdims=True)
    others = np.where(belongs, -np.inf, by_video)
    return _ranks(others, best, np.concatenate([others == best, np.ones_like(best, dtype=bool)], axis=1))


def _ranks(scores: np.ndarray, own: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """1 + those above + half of the others that are equal (of which the own one is one)."""
    return 1 + (scores > own).sum(axis=1) + (equal.sum(axis=1) - 1) / 2


def rank_metrics(ranks: np.ndarray, prefix: str = "") -> dict[str, float]:
    """R@1, R@5, R@10 as fractions, median and mean rank."""
    metrics = {f"{prefix}r@{k}": float((ranks <= k).mean()) for k in RECALL_AT}
    return {**metrics, f"{prefix}median_rank": float(np.median(ranks)), f"{prefix}mean_rank": float(ranks.mean())}


def retrieval_metrics(scores: np.ndarray, own: Sequence[int]) -> dict[str, float]:
    """Text → video (`r@1` …) and video → text (`v2t_r@1` …), and `ties`: texts whose own video shares its score."""
    ranks = text_ranks(scores, own)
    own_scores = np.take_along_axis(scores, np.asarray(own)[:, None], axis=1)
    ties = float(((scores == own_scores).sum(axis=1) > 1).sum())
    return {**rank_metrics(ranks), **rank_metrics(video_ranks(scores, own), "v2t_"), "ties": ties}
