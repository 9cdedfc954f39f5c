"""Video × text pairs by index: features are gathered, never copied in a Python loop."""

import torch
from torch import Tensor

from lavender.models.encoders import Encoded


def gather(encoded: Encoded, index: Tensor) -> Encoded:
    """Rows `index` (P,) of an encoded batch: (P, L, D) and (P, L)."""
    return Encoded(encoded.states.index_select(0, index), encoded.mask.index_select(0, index))


def own_and_negatives(negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Index pairs of video-text matching: each video with its own text, then with its negatives.

    Args:
        negatives: (B, O − 1), the texts paired with video i as false.

    Returns:
        video index and text index, each (B·O,), row-major over videos; the own text is the first of each O.
    """
    own = torch.arange(negatives.shape[0], device=negatives.device)[:, None]
    texts = torch.cat([own, negatives], dim=1)  # (B, O)
    return own.expand_as(texts).reshape(-1), texts.reshape(-1)
