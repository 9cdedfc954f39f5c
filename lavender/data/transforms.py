"""Frames of any size to a clip of squares. Uint8 in, uint8 out: the model's device makes floats and normalises."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from lavender.runtime.errors import ConfigError, DataError

TRANSFORMS = ("img_rand_crop", "img_center_crop", "pad_resize", "vid_rand_crop", "vid_center_crop")


class ClipTransform:
    """Brings each frame of a clip to `size` × `size` with PIL's antialiased bilinear resize.

    In training one of `names` is drawn for each frame: `img_rand_crop` (a crop of its own per frame), `vid_rand_crop`
    (one crop for the clip), `img_center_crop`, `vid_center_crop` (the middle), `pad_resize` (the whole frame on a black
    square). In evaluation frames are padded if `names` is `pad_resize` alone, and cropped in the middle otherwise.

    Args:
        names: transforms to draw from, or a single name.
        size: side of the square in pixels.
        training: whether to draw at random.

    Raises:
        ConfigError: a name is unknown, or there is none.
    """

    def __init__(self, names: Sequence[str], size: int, training: bool):
        self.names = [names] if isinstance(names, str) else list(names)
        self.size = size
        unknown = [name for name in self.names if name not in TRANSFORMS]
        if unknown or not self.names:
            raise ConfigError(f"img_transform: {unknown or 'an empty list'} is none of {', '.join(TRANSFORMS)}")
        if not training:
            self.names = self.names if self.names == ["pad_resize"] else ["img_center_crop"]

    def __call__(self, frames: list[np.ndarray], rng: np.random.Generator) -> torch.Tensor:
        """Transforms a clip.

        Args:
            frames: T arrays of uint8 RGB, each (H, W, 3) with its own H and W.
            rng: the only source of chance; evaluation draws nothing.

        Returns:
            uint8 (T, 3, size, size)

        Raises:
            DataError: a frame has no pixels.
        """
        clip = np.empty((len(frames), self.size, self.size, 3), np.uint8)
        clip_corner = rng.random(2) if "vid_rand_crop" in self.names else None
        for i, frame in enumerate(frames):
            if not frame.size:
                raise DataError(f"frame {i} of the clip has no pixels: its size is {frame.shape[1]}×{frame.shape[0]}")
            name = self.names[rng.integers(len(self.names))] if len(self.names) > 1 else self.names[0]
            if name == "pad_resize":
                clip[i] = pad_resize(frame, self.size)
            elif name == "img_rand_crop":
                clip[i] = crop(frame, self.size, rng.random(2))
            else:
                clip[i] = crop(frame, self.size, clip_corner if name == "vid_rand_crop" else None)
        return torch.from_numpy(clip).permute(0, 3, 1, 2).contiguous()  # (T, 3, size, size)


def crop(frame: np.ndarray, size: int, corner: np.ndarray | None = None) -> np.ndarray:
    """Resizes the short side to `size` (the long side is truncated) and cuts a square out.

    Args:
        frame: uint8 (H, W, 3)
        size: side of the square.
        corner: (2,) in [0, 1), which of the possible crops to take from top and from left; None takes the middle.
    """
    height, width, _ = frame.shape
    short = min(height, width)
    height, width = size * height // short, size * width // short
    resized = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    if corner is None:
        top, left = round((height - size) / 2), round((width - size) / 2)
    else:
        top, left = int(corner[0] * (height - size + 1)), int(corner[1] * (width - size + 1))
    return resized[top : top + size, left : left + size]


def pad_resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Pads both ends of the short side with black, ⌊difference/2⌋ each, and resizes to `size` × `size`."""
    height, width, _ = frame.shape
    rows, columns = max(width - height, 0) // 2, max(height - width, 0) // 2
    square = np.pad(frame, ((rows, rows), (columns, columns), (0, 0)))
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
