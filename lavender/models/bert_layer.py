"""A BERT layer for some rows of a sequence alone, over the keys and values of all of it."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

# Layers are `BertLayer`s; transformers keeps their weights, we choose what is computed of them.


def keys_values(layer: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """What other rows see of these: (B, L, D) → keys and values, (B, heads, L, D / heads) each."""
    attention = layer.attention.self
    return _heads(attention.key(states), attention), _heads(attention.value(states), attention)


def layer_at(layer: Any, rows: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None) -> Tensor:
    """The layer's output for some rows, (B, R, D) → (B, R, D).

    Args:
        keys, values: of the whole sequence, (B, heads, L, D / heads).
        visible: bool, broadcast to (B, heads, R, L): which columns a row sees; all without it.
    """
    attention = layer.attention.self
    query = _heads(attention.query(rows), attention)
    context = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible).transpose(1, 2).flatten(2)
    attended = layer.attention.output(context, rows)
    return layer.output(layer.intermediate(attended), attended)


def _heads(projected: Tensor, attention: Any) -> Tensor:
    return projected.unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
