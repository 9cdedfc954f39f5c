"""Activation checkpointing of the video encoder with FairScale: less memory for one more forward pass."""

from typing import Any

import torch
from torch import Tensor, nn

from lavender.models.lavender import Lavender
from lavender.runtime.errors import TrainingError


def checkpoint_activations(model: Lavender, offload: bool) -> None:
    """Recomputes the activations of backbone blocks in the backward pass; `offload` keeps block inputs on the host."""
    try:
        from fairscale.nn.checkpoint import checkpoint_wrapper
    except ImportError as error:
        raise TrainingError(
            '"use_checkpoint" is true, but FairScale is not installed: pip install fairscale==0.4.13, '
            "or train with --use_checkpoint false"
        ) from error
    blocks = model.backbone.blocks()
    if not blocks:
        raise TrainingError('"use_checkpoint" is true, but this video backbone has no blocks: --use_checkpoint false')
    for block in blocks:
        block.__class__ = _recomputed(type(block))  # FairScale calls the class's forward; names do not change
        checkpoint_wrapper(block, offload_to_cpu=offload)


def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    """Subclass of a block's class whose second forward pass repeats the first exactly."""
    return type(f"Recomputed{kind.__name__}", (SameAutocast, kind), {})


class SameAutocast(nn.Module):
    """Runs a block's second forward pass under the autocast of the first; FairScale supports only CUDA's fp16.

    The first pass runs without gradients, the second with them.
    """

    autocast: tuple[bool, torch.dtype] = (False, torch.float32)

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Any:
        kind = x.device.type
        if not torch.is_grad_enabled():
            self.autocast = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        enabled, dtype = self.autocast
        with torch.autocast(kind, dtype, enabled):
            return super().forward(x, *arguments, **options)
