"""What the tests of foreign backbones share."""

import torch
from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.backbones.video_swin_sizes import SWIN_SIZES
from lavender.models.backbones.video_swin_weights import to_video_swin
from lavender.models.weights import load_state

TIMM_TINY = "swin_tiny_patch4_window7_224"
WINDOW = (8, 7, 7)


def drawn(module: nn.Module) -> nn.Module:
    """Weights wide enough that every table, norm and bias can be seen in the output."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        for name, weight in module.named_parameters():
            wide = weight.dim() == 1 or "bias_table" in name
            weight.add_(torch.randn_like(weight), alpha=0.1 if wide else 0.02)
            if "bias_table" in name:
                weight.mul_(5)
    return module.eval()


def read_backbone(config: Config) -> tuple[dict[str, Tensor], str]:
    """Weights as the backbone of a configuration reads them."""
    with torch.device("meta"):
        swin = VideoSwin.from_config(config)
    found = swin.read_weights(config)
    assert found is not None
    return found


def filled(size: str, state: dict[str, Tensor], kind: str) -> VideoSwin:
    """Our model with all of a foreign state; nothing may be missing, left over, or of another shape."""
    swin = VideoSwin(size, drop_path=0).eval()
    report = load_state(swin, to_video_swin(state, kind, SWIN_SIZES[size].window), "x")
    assert not report.missing + report.left_over + report.other_shape
    return swin


def same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> bool:
    assert ours.shape == theirs.shape
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))
