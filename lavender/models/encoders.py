"""Video encoder (backbone with spatial and temporal embeddings) and text encoder (BERT embeddings)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lavender.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Color, VideoBackbone
from lavender.models.bert import BertEmbeddings, BertEncoder
from lavender.models.bert_config import BertConfig
from lavender.models.fusion import additive_mask
from lavender.runtime.device import constant
from lavender.runtime.errors import ConfigError

SWINBERT_FEATURES = 512  # width of SwinBERT's image features


class Encoded(NamedTuple):
    """Sequence of states (B, L, D) with its mask (B, L): 1 for tokens, 0 for padding."""

    states: Tensor
    mask: Tensor


def normalize_frames(
    img: Tensor, present: Tensor | None = None, mean: Color = IMAGENET_MEAN, std: Color = IMAGENET_STD
) -> Tensor:
    """Converts uint8 frames (B, T, 3, H, W) to float32, normalised with the mean and deviation of a backbone.

    Args:
        img: uint8; a float tensor counts as already normalised and is returned unchanged.
        present: (B,) bool; a sample without video becomes all 0 after normalisation, which is grey, not black.
        mean, std: values for red, green and blue in [0, 1].
    """
    if img.dtype != torch.uint8:
        return img
    means, deviations = (constant(color, img.device).view(3, 1, 1) for color in (mean, std))
    frames = (img.float() / 255 - means) / deviations
    if present is not None:
        frames = frames * present.view(-1, 1, 1, 1, 1)
    return frames


class FrameEncoder(nn.Module):
    """Base of both video encoders: holds the backbone under its name in checkpoints."""

    def __init__(self, backbone: VideoBackbone):
        super().__init__()
        self._place = backbone.place
        self.add_module(backbone.place, backbone)

    @property
    def backbone(self) -> VideoBackbone:
        """The video backbone."""
        return self.get_submodule(self._place)  # type: ignore[return-value]


class VideoEncoder(FrameEncoder):
    """Frames → one token per patch and one [CLS] per frame, of the text's width (paper, section 3.1)."""

    def __init__(self, backbone: VideoBackbone, hidden_size: int, max_size_frame: int = 6, max_size_patch: int = 14):
        super().__init__(backbone)
        self.fc: nn.Module = nn.Identity()
        if backbone.width != hidden_size:
            self.fc = nn.Linear(backbone.width, hidden_size)
        self.emb_cls = nn.Parameter(torch.zeros(1, 1, 1, hidden_size))
        self.emb_pos = nn.Parameter(torch.zeros(1, 1, 1 + max_size_patch**2, hidden_size))
        self.emb_len = nn.Parameter(torch.zeros(1, max_size_frame, 1, hidden_size))
        self.emb_odr = nn.Parameter(torch.zeros(1, 1, 1, hidden_size))
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, img: Tensor, token_mask: Tensor | None = None, frame_order: Tensor | None = None) -> Encoded:
        """Encodes clips.

        Args:
            img: (B, T, 3, H, W), normalised; H and W must suit the backbone.
            token_mask: (B, T, 1 + h·w) of 0 and 1; None: no token is masked.
            frame_order: (B, T); frame i keeps its temporal embedding if frame_order[i] = i, else it gets `emb_odr`.

        Returns:
            states (B, T·(1 + h·w), D) and mask (B, T·(1 + h·w)).
        """
        batch, time = img.shape[:2]
        if time > self.emb_len.shape[1]:
            raise ValueError(
                f"{time} frames a clip, but the frame table has {self.emb_len.shape[1]}: set max_size_frame"
            )
        patches = self.fc(self.backbone(img)).flatten(2, 3)  # (B, T, h·w, D)
        tokens = 1 + patches.shape[2]
        if tokens > self.emb_pos.shape[2]:
            raise ValueError(
                f"{tokens - 1} patches a frame, but the table has {self.emb_pos.shape[2] - 1}: set max_size_patch"
            )
        states = torch.cat([self.emb_cls.expand(batch, time, -1, -1), patches], dim=2)  # (B, T, 1 + h·w, D)
        frame_embedding = self.emb_len[:, :time]  # (1, T, 1, D)
        if frame_order is not None:
            in_place = frame_order == torch.arange(time, device=frame_order.device)  # (B, T)
            frame_embedding = torch.where(in_place[:, :, None, None], frame_embedding, self.emb_odr)
        states = self.norm(states + self.emb_pos[:, :, :tokens] + frame_embedding).flatten(1, 2)
        mask = torch.ones(batch, time * tokens, dtype=torch.long, device=img.device)
        if token_mask is not None:
            mask = mask * token_mask.flatten(1).long()
        return Encoded(states, mask)


class SwinBertVideoEncoder(FrameEncoder):
    """SwinBERT's video encoder (Lin et al., CVPR 2022): two linear layers, no position embeddings, no LayerNorm.

    Each frame begins with a masked token of zeros, in place of the [CLS] of `VideoEncoder`.
    """

    emb_cls: Tensor

    def __init__(self, backbone: VideoBackbone, hidden_size: int):
        super().__init__(backbone)
        self.fc = nn.Linear(backbone.width, SWINBERT_FEATURES)
        self.img_embedding = nn.Linear(SWINBERT_FEATURES, hidden_size)
        self.register_buffer("emb_cls", torch.zeros(1, 1, 1, hidden_size), persistent=False)  # not a weight: not saved

    def forward(self, img: Tensor) -> Encoded:
        """(B, T, 3, H, W) as for `VideoEncoder` → states (B, T·(1 + h·w), D) and mask (B, T·(1 + h·w))."""
        batch, time = img.shape[:2]
        patches = self.img_embedding(self.fc(self.backbone(img))).flatten(2, 3)  # (B, T, h·w, D)
        absent = self.emb_cls.to(patches.dtype).expand(batch, time, -1, -1)
        states = torch.cat([absent, patches], dim=2)  # (B, T, 1 + h·w, D)
        mask = torch.ones(states.shape[:3], dtype=torch.long, device=img.device)
        mask[:, :, 0] = 0
        return Encoded(states.flatten(1, 2), mask.flatten(1))


class TextEncoder(nn.Module):
    """Token ids → BERT embeddings; with `layers`, followed by a BERT encoder of the text alone."""

    def __init__(self, config: BertConfig, embed_only: bool = True):
        super().__init__()
        self.emb_txt = BertEmbeddings(config)
        self.txt_trsfr = None if embed_only else BertEncoder(config)

    def forward(self, ids: Tensor, mask: Tensor, first: int = 0) -> Encoded:
        """ids, mask (B, X) → states (B, X, D) and mask; `first` is the position of the first token.

        Raises:
            ConfigError: the text is longer than BERT's position table.
        """
        positions, end = self.emb_txt.position_embeddings.num_embeddings, first + ids.shape[1]
        if end > positions:
            raise ConfigError(
                f"a text of {end} tokens, but BERT has {positions} positions: lower --size_txt by "
                f"{end - positions} or more"
            )
        states = self.emb_txt(ids, torch.arange(first, end, device=ids.device)[None])
        if self.txt_trsfr is not None:
            states = self.txt_trsfr(states, additive_mask(mask[:, None], states.dtype))
        return Encoded(states, mask)
