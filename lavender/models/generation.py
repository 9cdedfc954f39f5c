"""Captions word by word, with a key/value cache.

In seq2seq attention video and prompt see no text, and a word sees no later one: so their keys and values are computed
once, and a step runs two tokens, the last word and the `[MASK]` behind it. The words are those of the uncached way.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lavender.models.bert_layer import keys_values, layer_at
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender


class Captions(NamedTuple):
    """Token ids from `[CLS]` to `[SEP]` and pads, (B, max_length), and mean log-probability of the words, (B,)."""

    ids: Tensor
    scores: Tensor


class SpecialTokens(NamedTuple):
    """Ids of the tokens that decoding writes."""

    cls: int
    sep: int
    pad: int
    mask: int


class CachedDecoder:
    """The states of videos (and prompt), and of the words so far.

    Args:
        video: (B, V, D) and mask; prefix: prompt or task token (1, P, D), or None.
        max_length: tokens of a caption.
    """

    def __init__(self, model: Lavender, video: Encoded, prefix: Encoded | None, max_length: int):
        self.model = model
        batch = len(video.states)
        states, mask = video
        if prefix is not None:
            states = torch.cat([states, prefix.states.expand(batch, -1, -1).to(states.dtype)], dim=1)
            mask = torch.cat([mask, prefix.mask.expand(batch, -1)], dim=1)
        self.context = states.shape[1]
        self.context_visible = mask[:, None, None].bool()  # (B, 1, 1, C)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        for layer in model.trsfr.layer:
            pair = keys_values(layer, states)
            for cache, fresh in zip((self.keys, self.values), pair, strict=True):
                room = fresh.new_empty(*fresh.shape[:2], self.context + max_length, fresh.shape[-1])
                room[:, :, : self.context] = fresh
                cache.append(room)
            states = layer_at(layer, states, *pair, self.context_visible)

    def logits(self, words: Tensor, position: int, mask_id: int) -> Tensor:
        """Logits of the token at `position`, (B, V), after `words` (B,) at the position before it."""
        ids = torch.stack([words, torch.full_like(words, mask_id)], dim=1)  # (B, 2)
        positions = torch.tensor([[position - 1, position]], device=words.device)
        states = self.model.enc_txt.emb_txt(input_ids=ids, position_ids=positions)
        end = self.context + position + 1
        text = torch.ones(2, position + 1, dtype=torch.bool, device=words.device).tril(position - 1)
        visible = torch.cat(
            [self.context_visible.expand(-1, -1, 2, -1), text.expand(len(words), 1, -1, -1)], dim=-1
        )  # (B, 1, 2, C + position + 1)
        for layer, keys, values in zip(self.model.trsfr.layer, self.keys, self.values, strict=True):
            keys[:, :, end - 2 : end], values[:, :, end - 2 : end] = keys_values(layer, states)
            states = layer_at(layer, states, keys[:, :, :end], values[:, :, :end], visible)
        return self.model.fc_mtm(states[:, 1])


def greedy(
    model: Lavender, video: Encoded, prefix: Encoded | None, tokens: SpecialTokens, max_length: int = 20
) -> Captions:
    """The likeliest word at each step, until all captions of the batch have ended with `[SEP]`.

    An unfinished caption ends with `[SEP]` in place of its last word; its score is that of the words predicted.
    """
    decoder = CachedDecoder(model, video, prefix, max_length)
    batch, device = len(video.states), video.states.device
    ids = torch.full((batch, max_length), tokens.pad, device=device)
    ids[:, 0] = tokens.cls
    running = torch.ones(batch, dtype=torch.bool, device=device)
    total, count = torch.zeros(batch, device=device), torch.zeros(batch, device=device)
    for position in range(1, max_length):
        logits = decoder.logits(ids[:, position - 1], position, tokens.mask).float()
        chances, words = logits.log_softmax(-1).max(dim=-1)
        total, count = total + chances * running, count + running
        ids[:, position] = torch.where(running, words, tokens.pad)
        running = running & (words != tokens.sep)
        if not running.any():
            break
    ids[running, max_length - 1] = tokens.sep
    return Captions(ids, total / count)
