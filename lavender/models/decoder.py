"""KV-cached decoding of captions: the keys and values of the context are computed once.

In seq2seq attention, video and prompt do not attend to text, and a token does not attend to later ones. So keys and
values never change, and a step runs two tokens: the last token, and the `[MASK]` after it, which predicts the next.
"""

import torch
from torch import Tensor

from lavender.models.bert_layer import keys_values, layer_at
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender


class CachedDecoder:
    """Logits of the next token of R = B · beams captions.

    With a separate text encoder (`txt_backbone_embed_only` false) a token's state depends on later tokens: then a step
    runs the whole text so far, still over the cached video.

    Args:
        video: (B, V, D) and mask; prefix: prompt or task token (1, P, D), or None.
        max_length: maximum tokens of a caption; beams: captions per video, in adjacent rows.
    """

    def __init__(
        self, model: Lavender, video: Encoded, prefix: Encoded | None, max_length: int, beams: int, mask_id: int
    ):
        self.model, self.mask_id, self.device = model, mask_id, video.states.device
        self.whole_text = model.enc_txt.txt_trsfr is not None
        self.rows = len(video.states) * beams
        states, mask = model.context(video, prefix)
        self.context = states.shape[1]
        columns = torch.ones(len(mask), 1, max_length, self.context + max_length, dtype=torch.bool, device=self.device)
        columns[..., : self.context] = mask[:, None, None].bool()
        columns[..., self.context :] = columns[..., self.context :].tril()
        self.visible = columns.repeat_interleave(beams, dim=0)  # (R, 1, max_length, C + max_length)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        layers = model.trsfr.layers
        for layer in layers:
            pair = keys_values(layer, states)
            for cache, fresh in zip((self.keys, self.values), pair, strict=True):
                room = fresh.new_zeros(self.rows, fresh.shape[1], self.context + max_length, fresh.shape[-1])
                room[:, :, : self.context] = fresh.repeat_interleave(beams, dim=0)
                cache.append(room)
            if layer is not layers[-1]:  # the last layer's video states are not used
                states = layer_at(layer, states, *pair, mask[:, None, None].bool())

    def logits(self, ids: Tensor, position: int) -> Tensor:
        """Logits at `position` after the tokens before it: ids (R, ≥ position) → (R, V) in float32.

        Positions must be requested in order, from 1.
        """
        first = 0 if self.whole_text else position - 1
        words = torch.cat([ids[:, first:position], torch.full_like(ids[:, :1], self.mask_id)], dim=1)
        states = self.model.encode_text(words, torch.ones_like(words), first).states
        start, end = self.context + first, self.context + position + 1
        visible = self.visible[:, :, first : position + 1, :end]
        layers = self.model.trsfr.layers
        for layer, keys, values in zip(layers, self.keys, self.values, strict=True):
            keys[:, :, start:end], values[:, :, start:end] = keys_values(layer, states)
            if layer is layers[-1]:
                states, visible = states[:, -1:], visible[:, :, -1:]
            states = layer_at(layer, states, keys[:, :, :end], values[:, :, :end], visible)
        with torch.autocast(states.device.type, enabled=False):  # in bf16 many tokens would tie
            return self.model.fc_mtm(states[:, -1].to(self.model.dtype)).float()

    def reorder(self, rows: Tensor) -> None:
        """Continues with the cached tokens of other rows, (R,) of the same videos."""
        if self.whole_text:
            return  # the text is not cached
        for cache in (*self.keys, *self.values):
            cache[:, :, self.context :] = cache[:, :, self.context :].index_select(0, rows)
