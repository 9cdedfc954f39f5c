"""Which words are hidden for masked language modelling."""

import numpy as np
from torch import Tensor

IGNORED = -1  # label of a position that nothing is asked about


def mask_words(
    ids: np.ndarray, draws: np.ndarray, probability: float, keep: tuple[int, ...], mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hides each token with `probability`, always behind `[MASK]` (no 80/10/10 rule), as the released code does.

    Args:
        ids: token ids, any shape.
        draws: uniform numbers in [0, 1) of the same shape; a token is hidden where its number is below `probability`.
        keep: ids that are never hidden.

    Returns:
        ids with `[MASK]` at hidden positions, and labels: the hidden id there, −1 elsewhere.
    """
    hidden = (draws < probability) & ~np.isin(ids, keep)
    return np.where(hidden, mask_id, ids), np.where(hidden, ids, IGNORED)


def places_of(labels: Tensor) -> Tensor:
    """Where labels of any shape, flattened, are asked for: (K,) int64."""
    return (labels.flatten() != IGNORED).nonzero().squeeze(1)
