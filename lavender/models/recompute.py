"""Activation checkpointing of the video encoder, by FairScale: a forward pass more, and less memory."""

import torch
from torch import Tensor

from lavender.models.lavender import Lavender
from lavender.models.video_swin import SwinBlock
from lavender.runtime.errors import TrainingError


def checkpoint_activations(model: Lavender, offload: bool) -> None:
    """Recomputes each Video Swin block's activations in the backward pass; `offload` keeps its input on the host."""
    try:
        from fairscale.nn.checkpoint import checkpoint_wrapper
    except ImportError as error:
        raise TrainingError(
            '"use_checkpoint" is true, but FairScale is not installed: pip install fairscale==0.4.13, '
            "or train with --use_checkpoint false"
        ) from error
    for module in model.enc_img.swin.modules():
        if isinstance(module, SwinBlock):
            module.__class__ = RecomputedBlock  # FairScale calls the forward of the class; names stay
            checkpoint_wrapper(module, offload_to_cpu=offload)


class RecomputedBlock(SwinBlock):
    """A block whose second forward pass runs under the autocast of its first; FairScale knows CUDA's fp16 alone.

    The first pass runs without gradients, the second with them.
    """

    autocast: tuple[bool, torch.dtype] = (False, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if not torch.is_grad_enabled():
            self.autocast = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        enabled, dtype = self.autocast
        with torch.autocast(kind, dtype, enabled):
            return super().forward(x)
