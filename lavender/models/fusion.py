"""Attention masks of the joint sequence [video, prefix, text]."""

import torch
from torch import Tensor


def full_attention(context_mask: Tensor, text_mask: Tensor) -> Tensor:
    """Every token attends to every unmasked token: (B, C), (B, X) of 0 and 1 → (B, 1, C + X)."""
    return torch.cat([context_mask, text_mask], dim=1)[:, None]


def seq2seq_attention(context_mask: Tensor, text_mask: Tensor) -> Tensor:
    """All rows see unmasked context (video, prefix); text row i also sees text columns ≤ i: → (B, C + X, C + X).

    Padding is not masked among the text columns, as in the released model. Context rows do not see the text, so their
    states do not depend on it and captions can be decoded with a cache.
    """
    batch, context = context_mask.shape
    text = text_mask.shape[1]
    causal = torch.ones(text, text, dtype=context_mask.dtype, device=context_mask.device).tril()
    text_columns = torch.cat([causal.new_zeros(context, text), causal])  # (C + X, X)
    return torch.cat([context_mask[:, None].expand(-1, context + text, -1), text_columns.expand(batch, -1, -1)], dim=2)


ATTENTION_MODES = {"full": full_attention, "seq2seq": seq2seq_attention}


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, rows or 1, L) of 0 and 1 → (B, 1, rows or 1, L): 0 for 1, the most negative number for 0."""
    return (1 - visible[:, None].to(dtype)) * torch.finfo(dtype).min
