"""Video–text pairs by index: features are selected by indexing, not copied in a Python loop."""

import torch
from torch import Tensor

from lavender.models.bert import BertEncoder
from lavender.models.bert_layer import keys_values, layer_at
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender


def select_rows(encoded: Encoded, index: Tensor) -> Encoded:
    """Selects rows `index` (P,) of an encoded batch: (P, L, D) and (P, L)."""
    return Encoded(encoded.states.index_select(0, index), encoded.mask.index_select(0, index))


def own_and_negatives(negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Index pairs of video-text matching: each video with its own text, then with its negatives.

    Args:
        negatives: (B, O − 1), indices of the negative texts of video i.

    Returns:
        video index and text index, each (B·O,), row-major over videos; the own text comes first.
    """
    own = torch.arange(negatives.shape[0], device=negatives.device)[:, None]
    texts = torch.cat([own, negatives], dim=1)  # (B, O)
    return own.expand_as(texts).reshape(-1), texts.reshape(-1)


def all_pairs(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Video index and text index of all pairs of a batch, each (count²,), row-major over videos."""
    numbers = torch.arange(count, device=device)
    return numbers.repeat_interleave(count), numbers.repeat(count)


def fuse_at(model: Lavender, video: Encoded, text: Encoded, prefix: Encoded | None, position: int) -> Tensor:
    """Fused state of one text token, (P, D): equal to that of `Lavender.fuse`, at lower cost.

    Args:
        video, text: P pairs without padding, so that no mask is needed.
        prefix: as in `Lavender.fuse`.
        position: position in the text, from 0, or from −1 backwards.
    """
    length = text.states.shape[1]
    joined, _ = model.join(video, text, prefix)
    return last_state(model.trsfr, joined, joined.shape[1] - length + position % length)


def last_state(encoder: BertEncoder, states: Tensor, position: int) -> Tensor:
    """Output of a BERT encoder (full attention, no mask) at one position: (P, L, D) → (P, D).

    The last layer runs for that position only, since its other outputs are not used.
    """
    for layer in encoder.layers[:-1]:
        states = layer(states)
    row = states[:, position : position + 1]  # (P, 1, D)
    return layer_at(encoder.layers[-1], row, *keys_values(encoder.layers[-1], states)).squeeze(1)
