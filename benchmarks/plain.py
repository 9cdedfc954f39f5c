"""Plain implementations of the same mathematics, as the baseline of the table.

Video Swin as in its paper's code: the windows of all samples in one batch, the mask of shifted windows added to a copy
for each sample, biases by advanced indexing, a softmax over written-out scores, a Conv3d for the patches. BERT with
written-out scores too. Frames by base64, PIL and one float frame at a time.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lavender.models.backbones.video_swin import PatchEmbedding, SwinBlock, effective_window, shifted_window_mask
from lavender.models.bert import BertSelfAttention

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet's


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Context in which the model uses the plain implementations with its own weights."""
    ways = {PatchEmbedding: embed_patches, SwinBlock: block, BertSelfAttention: attend_text}
    swapped = [(module, ways[kind]) for module in model.modules() for kind in ways if isinstance(module, kind)]
    for module, way in swapped:
        module.forward = partial(way, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module, _ in swapped:
            del module.__dict__["forward"]


def embed_patches(module: PatchEmbedding, img: Tensor) -> Tensor:
    """(B, T, 3, H, W) → (B, T, H/4, W/4, C)"""
    frames = F.pad(img.transpose(1, 2), (0, 0, 0, 0, 0, 1))
    return module.norm(module.proj(frames).permute(0, 2, 3, 4, 1))


def block(module: SwinBlock, x: Tensor) -> Tensor:
    """(B, T, H, W, C) → the same."""
    x = x + module.drop_path(attend(module, module.norm1(x)))
    return x + module.drop_path(module.mlp(module.norm2(x)))


def attend(module: SwinBlock, x: Tensor) -> Tensor:
    """Window attention of a block, (B, T, H, W, C) → the same."""
    batch, time, height, width, channels = x.shape
    window, shift = effective_window((time, height, width), module.window, module.shift)
    t, h, w = (-side % length for side, length in zip((time, height, width), window, strict=True))
    x = F.pad(x, (0, 0, 0, w, 0, h, 0, t))
    size = (x.shape[1], x.shape[2], x.shape[3])
    x = torch.roll(x, [-steps for steps in shift], dims=(1, 2, 3))
    counts = [side // length for side, length in zip(size, window, strict=True)]
    cut = (batch, counts[0], window[0], counts[1], window[1], counts[2], window[2], channels)
    tokens = window[0] * window[1] * window[2]
    windows = x.view(cut).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, tokens, channels)  # (B·windows, N, C)
    heads, attention = module.attn.heads, module.attn
    qkv = attention.qkv(windows).reshape(len(windows), tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv.unbind(0)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    index = attention.relative_position_index[:tokens, :tokens].reshape(-1)
    bias = attention.relative_position_bias_table[index].view(tokens, tokens, heads)
    scores = scores + bias.permute(2, 0, 1)[None]
    if any(shift):
        mask = shifted_window_mask(size, window, shift, x.device).repeat(batch, 1, 1)  # a copy for each sample
        scores = scores + mask[:, None]
    out = (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2).reshape(windows.shape)
    out = attention.proj(out).view(batch, *counts, *window, channels).permute(0, 1, 4, 2, 5, 3, 6, 7)
    out = torch.roll(out.reshape(batch, *size, channels), shift, dims=(1, 2, 3))
    return out[:, :time, :height, :width]


def attend_text(module: BertSelfAttention, states: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of BERT, (B, L, D) → the same."""
    query, key, value = (module.heads(project(states)) for project in (module.query, module.key, module.value))
    scores = query @ key.transpose(-2, -1) / module.attention_head_size**0.5
    probabilities = module.dropout((scores if mask is None else scores + mask).softmax(-1)).to(value.dtype)
    return (probabilities @ value).transpose(1, 2).flatten(2)


def read_clip(row: bytes, size: int, corner: tuple[float, float] | None) -> Tensor:
    """Row of the TSV → normalised frames (T, 3, size, size), float32.

    Args:
        corner: (2,) in [0, 1), relative position of the crop; None: centre crop.
    """
    return torch.stack([read_frame(field, size, corner) for field in row.rstrip(b"\n").split(b"\t")[2:]])


def read_frame(field: bytes, size: int, corner: tuple[float, float] | None) -> Tensor:
    """A frame in base64 → (3, size, size), normalised."""
    image = Image.open(io.BytesIO(base64.b64decode(field))).convert("RGB")
    scale = size / min(image.size)
    width, height = int(image.size[0] * scale), int(image.size[1] * scale)
    image = image.resize((max(width, size), max(height, size)), Image.Resampling.BILINEAR)
    spare = (image.size[0] - size, image.size[1] - size)
    left, top = (s // 2 if corner is None else int(c * (s + 1)) for s, c in zip(spare, corner or (0, 0), strict=True))
    pixels = np.asarray(image.crop((left, top, left + size, top + size)))
    frame = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    return (frame - MEAN[:, None, None]) / STD[:, None, None]
