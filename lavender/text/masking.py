"""Masking of tokens for masked language modelling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # torch takes seconds to import, and who prepares texts does without it
    from torch import Tensor

IGNORED = -1  # label of a position without a label


def mask_words(
    ids: np.ndarray, draws: np.ndarray, probability: float, keep: tuple[int, ...], mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Masks each token with `probability`, always with `[MASK]` (no 80/10/10 rule), as in the released code.

    Args:
        ids: token ids, any shape.
        draws: uniform random numbers in [0, 1) of the same shape; a token is masked if its number is < `probability`.
        keep: ids that are never masked.

    Returns:
        ids with `[MASK]` at masked positions, and labels: the original id there, −1 elsewhere.
    """
    hidden = (draws < probability) & ~np.isin(ids, keep)
    return np.where(hidden, mask_id, ids), np.where(hidden, ids, IGNORED)


def label_positions(labels: Tensor) -> Tensor:
    """Positions of the labels that are not −1, in the flattened tensor: (K,) int64."""
    return (labels.flatten() != IGNORED).nonzero().squeeze(1)
