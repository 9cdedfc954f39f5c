"""All texts against all videos: texts encoded by length, pairs scored in blocks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender
from lavender.runtime.device import PRECISIONS, autocast

TEXTS_AT_ONCE = 256


def unpadded(states: Tensor) -> Encoded:
    """Features (n, L, D) with a mask of ones: no token is padding."""
    return Encoded(states, torch.ones(states.shape[:2], dtype=torch.long, device=states.device))


@dataclass(frozen=True)
class TextGroup:
    """Texts of one length, without padding: their rows in the score matrix, and states (n, X', D)."""

    rows: np.ndarray
    texts: Encoded


def encode_texts(
    model: Lavender, rows: Iterable[tuple[np.ndarray, np.ndarray]], device: torch.device, precision: str
) -> list[TextGroup]:
    """Encodes all texts, grouped by length, without padding; each token keeps its position in the padded text.

    Args:
        rows: token ids and mask of each text, (X,) each.
    """
    ids, masks = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))  # (N, X)
    groups = []
    lengths = masks.sum(dim=1)
    for length in lengths.unique().tolist():
        places = (lengths == length).nonzero().squeeze(1)
        pieces = []
        for some in places.split(TEXTS_AT_ONCE):
            mask = masks[some].to(device)
            with autocast(precision, device):
                states = model.encode_text(ids[some].to(device), mask).states
            pieces.append(states[mask.bool()].view(len(some), length, -1).to(PRECISIONS[precision]))
        groups.append(TextGroup(places.numpy(), unpadded(torch.cat(pieces))))
    return groups


def blocks(
    columns: np.ndarray, groups: Sequence[TextGroup], size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Encoded, np.ndarray, np.ndarray]]:
    """Splits the pairs of a tile into blocks of up to `size`, with texts of one length in each block.

    Yields:
        rows and columns in the score matrix; the texts; for each pair, index of its video (in the tile) and text.
    """
    wide = min(len(columns), size)
    for group in groups:
        for video in range(0, len(columns), wide):
            some = np.arange(video, min(video + wide, len(columns)))
            high = max(1, size // len(some))
            for text in range(0, len(group.rows), high):
                texts = np.arange(text, min(text + high, len(group.rows)))
                t, v = np.repeat(texts, len(some)), np.tile(some, len(texts))
                yield group.rows[t], columns[v], group.texts, v, t
