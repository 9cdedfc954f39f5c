"""Sizes of Video Swin."""

from dataclasses import dataclass

from lavender.config.schema import Config

Size3 = tuple[int, int, int]  # (time, height, width)


@dataclass(frozen=True)
class SwinSize:
    """Widths and depths of a backbone; `window` is (time, height, width)."""

    embed_dim: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    window: Size3 = (8, 7, 7)


SWIN_SIZES = {
    "micro": SwinSize(16, (2, 2, 4, 2), (1, 2, 4, 8)),
    "tiny": SwinSize(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": SwinSize(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": SwinSize(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    "large_384": SwinSize(192, (2, 2, 18, 2), (6, 12, 24, 48), (8, 12, 12)),
}


def swin_size(config: Config) -> str:
    """Key of `SWIN_SIZES`; at 384 pixels the large backbone has a different window."""
    return "large_384" if (config.vis_backbone_size, config.size_img) == ("large", 384) else config.vis_backbone_size
