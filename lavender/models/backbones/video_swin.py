"""Video Swin Transformer (Liu et al., CVPR 2022) with LAVENDER's temporal stride of 1: T frames in, T frames out.

Names and shapes of `state_dict()` are those of the released checkpoints. Features are channels-last throughout, so that
windows can be split and joined by views.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.models.backbones.base import VideoBackbone
from lavender.models.backbones.video_swin_sizes import SWIN_SIZES, Size3, swin_size
from lavender.models.backbones.video_swin_weights import read_backbone
from lavender.models.checkpoint_file import State
from lavender.runtime.errors import WeightsError


def effective_window(size: Size3, window: Size3, shift: Size3) -> tuple[Size3, Size3]:
    """Window and shift in effect: a dimension not longer than its window is one unshifted window."""
    fits = [s <= w for s, w in zip(size, window, strict=True)]
    used = tuple(s if fit else w for s, w, fit in zip(size, window, fits, strict=True))
    moved = tuple(0 if fit else m for m, fit in zip(shift, fits, strict=True))
    return used, moved  # type: ignore[return-value]


def partition_windows(x: Tensor, window: Size3) -> Tensor:
    """(B, T, H, W, C), each a multiple of its window → (B, windows, N, C) with N tokens per window."""
    batch, time, height, width, channels = x.shape
    t, h, w = window
    x = x.view(batch, time // t, t, height // h, h, width // w, w, channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, -1, t * h * w, channels)


def join_windows(windows: Tensor, window: Size3, size: Size3) -> Tensor:
    """Inverse of `partition_windows`: (B, windows, N, C) → (B, T, H, W, C) with `size` = (T, H, W)."""
    batch, channels = windows.shape[0], windows.shape[-1]
    (t, h, w), (time, height, width) = window, size
    x = windows.view(batch, time // t, height // h, width // w, t, h, w, channels)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, time, height, width, channels)


@lru_cache(maxsize=64)
def shifted_window_mask(size: Size3, window: Size3, shift: Size3, device: torch.device) -> Tensor:
    """Additive mask (windows, N, N) of windows after a cyclic shift: −100 between tokens of different regions."""
    with torch.inference_mode(False):  # cached: a tensor from inference mode could not be used in training
        region = torch.zeros(1, *size, 1, device=device)
        bands = [
            (slice(0, -w), slice(-w, -m), slice(-m, None)) if m else (slice(None),)
            for w, m in zip(window, shift, strict=True)
        ]
        for number, (t, h, w) in enumerate(product(*bands)):
            region[:, t, h, w] = number
        ids = partition_windows(region, window)[0, :, :, 0]  # (windows, N)
        return (ids[:, None, :] != ids[:, :, None]).float() * -100.0


def relative_position_index(window: Size3) -> Tensor:
    """Rows of the relative-position table for each pair of the N tokens of a full window, (N, N).

    Computed with NumPy: on the meta device, used to inspect checkpoints, torch would import its compiler for it.
    """
    return torch.from_numpy(_position_pairs(window).copy())


@lru_cache(maxsize=16)
def _position_pairs(window: Size3) -> np.ndarray:
    """Array of `relative_position_index`, cached: all blocks of a model have one or two windows."""
    coordinates = np.indices(window).reshape(3, -1)  # (3, N)
    offsets = coordinates[:, :, None] - coordinates[:, None, :]  # (3, N, N)
    t, h, w = (offset + size - 1 for offset, size in zip(offsets, window, strict=True))
    return (t * (2 * window[1] - 1) + h) * (2 * window[2] - 1) + w


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d + bias)·v over the last two dimensions, by the fastest method of the device.

    On a CPU no fused kernel gives the bias a gradient, and torch's fallback checks for rows of −inf, which do not occur
    here. The explicit formula makes a training step of a small model a fifth faster.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and bias.requires_grad:
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
        return (scores + bias).softmax(-1) @ value
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


class WindowAttention(nn.Module):
    """Multi-head self-attention within each window, with a learned bias per relative position."""

    relative_position_index: Tensor

    def __init__(self, dim: int, window: Size3, heads: int):
        super().__init__()
        self.heads = heads
        table_rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_rows, heads))
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def relative_position_bias(self, tokens: int) -> Tensor:
        """Bias (heads, N, N). It is indexed by the top-left N×N of the full index, as in the released model."""
        index = self.relative_position_index[:tokens, :tokens].reshape(-1)
        return self.relative_position_bias_table.index_select(0, index).view(tokens, tokens, -1).permute(2, 0, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, windows, N, C), mask (windows, N, N) or None → (B, windows, N, C)."""
        batch, windows, tokens, channels = x.shape
        qkv = self.qkv(x).view(batch, windows, tokens, 3, self.heads, -1)
        bias = self.relative_position_bias(tokens)  # (heads, N, N)
        if mask is None:
            bias = bias[None]
            folded = (batch * windows, self.heads, tokens, -1)
        else:  # windows are folded into the heads: one bias for all samples, without copies
            bias = (bias[None] + mask[:, None]).reshape(1, windows * self.heads, tokens, tokens)
            folded = (batch, windows * self.heads, tokens, -1)
        query, key, value = qkv.permute(3, 0, 1, 4, 2, 5).reshape(3, *folded).unbind(0)
        out = attend(query, key, value, bias.to(query.dtype))
        out = out.reshape(batch, windows, self.heads, tokens, -1).transpose(2, 3)  # (B, windows, N, heads, d)
        return self.proj(out.reshape(batch, windows, tokens, channels))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops a sample's branch with probability `drop_prob`, or scales it up."""

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, …)."""
        if not self.training:
            return x
        kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.drop_prob)
        return x * (kept / (1 - self.drop_prob) if self.drop_prob < 1 else kept)


class Mlp(nn.Module):
    """Feed-forward network of a block: (…, C) → (…, C)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Window attention and MLP, each with pre-LayerNorm and a residual connection."""

    def __init__(self, dim: int, heads: int, window: Size3, shift: Size3, drop_path: float):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def mask(self, x: Tensor) -> Tensor | None:
        """Mask of the shifted windows of x (B, T, H, W, C), see `shifted_window_mask`; None without a shift."""
        size: Size3 = (x.shape[1], x.shape[2], x.shape[3])
        window, shift = effective_window(size, self.window, self.shift)
        if not any(shift):
            return None
        t, h, w = (-(-s // n) * n for s, n in zip(size, window, strict=True))
        return shifted_window_mask((t, h, w), window, shift, x.device)

    def attend(self, x: Tensor) -> Tensor:
        """Attention within each window, (B, T, H, W, C) → the same."""
        return self.in_windows(x, self.mask(x))

    def in_windows(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Pads to whole windows (padding is attended to), shifts, attends, and reverts both: (B, T, H, W, C)."""
        time, height, width = x.shape[1:4]
        size: Size3 = (time, height, width)
        window, shift = effective_window(size, self.window, self.shift)
        t, h, w = (-s % n for s, n in zip(size, window, strict=True))
        if t or h or w:
            x = F.pad(x, (0, 0, 0, w, 0, h, 0, t))
        padded: Size3 = (x.shape[1], x.shape[2], x.shape[3])
        if any(shift):
            x = torch.roll(x, [-m for m in shift], dims=(1, 2, 3))
        x = join_windows(self.attn(partition_windows(x, window), mask), window, padded)
        if any(shift):
            x = torch.roll(x, shift, dims=(1, 2, 3))
        return x[:, :time, :height, :width]

    def widen(self, x: Tensor) -> Tensor:
        """MLP branch, after its norm: (…, C) → (…, C)."""
        return self.mlp(self.norm2(x))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attend(self.norm1(x)))
        return x + self.drop_path(self.widen(x))

    def compile_branches(self, backend: str) -> None:
        """Compiles both branches in place.

        The whole block would be compiled again for each drop rate.
        """
        self.in_windows = torch.compile(self.in_windows, backend=backend, fullgraph=True)  # type: ignore[method-assign]
        self.widen = torch.compile(self.widen, backend=backend, fullgraph=True)  # type: ignore[method-assign]


class PatchMerging(nn.Module):
    """Concatenates 2×2 neighbours and halves the width: (B, T, H, W, C) → (B, T, ⌈H/2⌉, ⌈W/2⌉, 2C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:4]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        corners = [x[:, :, h::2, w::2] for h, w in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class SwinStage(nn.Module):
    """Blocks with alternating plain and shifted windows, then patch merging (except in the last stage)."""

    def __init__(self, dim: int, heads: int, window: Size3, drop_paths: list[float], merge: bool):
        super().__init__()
        shift: Size3 = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, shift if number % 2 else (0, 0, 0), rate)
            for number, rate in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(dim) if merge else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbedding(nn.Module):
    """3-D convolution, kernel (2, 4, 4), stride (1, 4, 4), over the frames and a zero frame at the end.

    Computed as one matrix product over the patches of frames t and t+1, which is fast in every precision.
    """

    def __init__(self, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv3d(3, embed_dim, kernel_size=(2, 4, 4), stride=(1, 4, 4))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, img: Tensor) -> Tensor:
        """(B, T, 3, H, W) → (B, T, H/4, W/4, C)."""
        batch, time, _, height, width = img.shape
        patches = img.view(batch, time, 3, height // 4, 4, width // 4, 4)
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, time, height // 4, width // 4, 48)
        following = F.pad(patches[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))  # patches of frame t+1; zeros after the last
        weight = self.proj.weight.transpose(1, 2).reshape(-1, 96)  # (C, 2 frames · 3 · 4 · 4)
        return self.norm(F.linear(torch.cat([patches, following], dim=-1), weight, self.proj.bias))


class VideoSwin(VideoBackbone):
    """Video Swin backbone: frames (B, T, 3, H, W), H and W multiples of 32 → features (B, T, H/32, W/32, C).

    Args:
        size: a key of `SWIN_SIZES`.
        drop_path: stochastic depth rate of the last block; it grows linearly from 0 at the first.
    """

    place = "swin"
    pixels = 32

    def __init__(self, size: str, drop_path: float = 0.2):
        super().__init__()
        shape = SWIN_SIZES[size]
        blocks = sum(shape.depths)
        rates = [drop_path * block / (blocks - 1) for block in range(blocks)]
        self.patch_embed = PatchEmbedding(shape.embed_dim)
        self.layers = nn.ModuleList()
        for stage, (depth, heads) in enumerate(zip(shape.depths, shape.heads, strict=True)):
            dim = shape.embed_dim * 2**stage
            stage_rates, rates = rates[:depth], rates[depth:]
            self.layers.append(SwinStage(dim, heads, shape.window, stage_rates, merge=stage < len(shape.depths) - 1))
        self.width = shape.embed_dim * 2 ** (len(shape.depths) - 1)
        self.norm = nn.LayerNorm(self.width)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(swin_size(config), config.vis_backbone_drop_path)

    def forward(self, img: Tensor) -> Tensor:
        height, width = img.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"Video Swin takes frames whose sides are multiples of 32 pixels, not {height}×{width}")
        x = self.patch_embed(img)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def blocks(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, SwinBlock)]

    def compile_blocks(self, backend: str) -> None:
        for block in self.blocks():
            block.compile_branches(backend)  # type: ignore[operator]

    def initialise(self, std: float) -> None:
        self.apply(lambda module: draw(module, std))

    def read_weights(self, config: Config) -> tuple[State, str] | None:
        return None if config.vis_backbone_init == "random" else read_backbone(config, self.state_dict())

    @classmethod
    def describe(cls, state: Mapping[str, Tensor], config: Config, source: Path) -> dict[str, Any]:
        return {"vis_backbone_size": size_of(state, source)}


def draw(module: nn.Module, std: float) -> None:
    """Draws the weights of one module from N(0, std).

    The bias of the patch embedding is not zero: for a blank video every later LayerNorm would divide by √eps, and the
    gradient would overflow.
    """
    if isinstance(module, nn.Linear | nn.Conv3d):
        nn.init.normal_(module.weight, std=std)
    if isinstance(module, nn.Conv3d) and module.bias is not None:
        nn.init.normal_(module.bias, std=std)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, WindowAttention):
        nn.init.normal_(module.relative_position_bias_table, std=0.02)


def size_of(state: Mapping[str, Tensor], source: Path) -> str:
    """Key of `SWIN_SIZES` with the widths, depths and window of a checkpoint.

    Raises:
        WeightsError: the checkpoint has no Video Swin, or one of another size.
    """
    swin = f"enc_img.{VideoSwin.place}."
    kernel = state.get(f"{swin}patch_embed.proj.weight")
    table = state.get(f"{swin}layers.0.blocks.0.attn.relative_position_bias_table")
    if kernel is None or table is None:
        raise WeightsError(
            f"{source} has no Video Swin under enc_img.swin: it is no checkpoint of LAVENDER, or of one with another "
            "backbone, which --vis_backbone names"
        )
    blocks = {
        match.groups() for match in map(re.compile(rf"{swin}layers\.(\d)\.blocks\.(\d+)\.").match, state) if match
    }
    depths = tuple(sum(stage == str(number) for stage, _ in blocks) for number in range(4))
    for name, size in SWIN_SIZES.items():
        rows = math.prod(2 * side - 1 for side in size.window)
        if (size.embed_dim, size.depths, (rows, size.heads[0])) == (len(kernel), depths, tuple(table.shape)):
            return name
    raise WeightsError(f"{source} has a Video Swin of no known size: width {len(kernel)}, depths {depths}")
