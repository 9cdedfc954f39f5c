"""BERT layer for selected rows of a sequence, attending to the keys and values of the whole sequence."""

import torch.nn.functional as F
from torch import Tensor

from lavender.models.bert import BertLayer


def keys_values(layer: BertLayer, states: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of states: (B, L, D) → (B, heads, L, D / heads) each."""
    attention = layer.attention.self
    return attention.heads(attention.key(states)), attention.heads(attention.value(states))


def layer_at(layer: BertLayer, rows: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """Output of the layer for selected rows, (B, R, D) → (B, R, D).

    Args:
        keys, values: keys and values of the whole sequence, (B, heads, L, D / heads).
        visible: bool, broadcast to (B, heads, R, L): columns that a row attends to; None: all.
    """
    attention = layer.attention.self
    query = attention.heads(attention.query(rows))
    context = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible).transpose(1, 2).flatten(2)
    attended = layer.attention.output(context, rows)
    return layer.output(layer.intermediate(attended), attended)
