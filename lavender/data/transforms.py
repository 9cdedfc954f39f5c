"""Transforms of frames of any size to square clips. uint8 in and out: the model converts to float and normalises."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lavender.runtime.errors import ConfigError, DataError

TRANSFORMS = ("img_rand_crop", "img_center_crop", "pad_resize", "vid_rand_crop", "vid_center_crop")
_VECTORISED = ("AVX2", "AVX512")  # without these, torch's uint8 resize is slower than PIL's

Plan = tuple[bool, np.ndarray | None]  # (whether to pad the frame, corner of its crop)


class ClipTransform:
    """Resizes each frame of a clip to `size` × `size`, bilinear with antialiasing.

    In training one of `names` is drawn for each frame: `img_rand_crop` (an own crop per frame), `vid_rand_crop`
    (one crop for the clip), `img_center_crop`, `vid_center_crop` (the middle), `pad_resize` (the whole frame on a black
    square). In evaluation frames are padded if `names` is `pad_resize` alone, and cropped in the middle otherwise.

    Args:
        names: transforms to draw from, or a single name.
        size: side of the square in pixels.
        training: whether transforms and crops are random.
        exact: "true": PIL, as released; "false": torch resizes all frames of a clip together, several times faster and
            within one grey level of PIL; "auto": exact in evaluation, fast in training.

    Raises:
        ConfigError: a name is unknown, or `names` is empty.
    """

    def __init__(self, names: Sequence[str], size: int, training: bool, exact: str = "auto"):
        self.names = [names] if isinstance(names, str) else list(names)
        self.size = size
        unknown = [name for name in self.names if name not in TRANSFORMS]
        if unknown or not self.names:
            raise ConfigError(f"img_transform: {unknown or 'an empty list'} is none of {', '.join(TRANSFORMS)}")
        if not training:
            self.names = self.names if self.names == ["pad_resize"] else ["img_center_crop"]
        self.exact = not training if exact == "auto" else exact == "true"

    def __call__(self, frames: list[np.ndarray], rng: np.random.Generator) -> torch.Tensor:
        """Transforms a clip.

        Args:
            frames: T arrays of uint8 RGB, each (H, W, 3) with its own H and W.
            rng: the only source of randomness; evaluation does not use it.

        Returns:
            uint8 (T, 3, size, size), channels last in memory

        Raises:
            DataError: a frame has no pixels.
        """
        for i, frame in enumerate(frames):
            if not frame.size:
                raise DataError(f"frame {i} of the clip has no pixels: its size is {frame.shape[1]}×{frame.shape[0]}")
        plans = self._draw(len(frames), rng)
        clip = np.empty((len(frames), self.size, self.size, 3), np.uint8)
        if self.exact or torch.backends.cpu.get_cpu_capability() not in _VECTORISED:
            for i, (frame, (padded, corner)) in enumerate(zip(frames, plans, strict=True)):
                clip[i] = pad_resize(frame, self.size) if padded else crop(frame, self.size, corner)
        else:
            self._resize_together(frames, plans, clip)
        return torch.from_numpy(clip).permute(0, 3, 1, 2)  # (T, 3, size, size)

    def _draw(self, count: int, rng: np.random.Generator) -> list[Plan]:
        """Draws the transform of each frame of a clip, in the released order."""
        clip_corner = rng.random(2) if "vid_rand_crop" in self.names else None
        plans: list[Plan] = []
        for _ in range(count):
            name = self.names[rng.integers(len(self.names))] if len(self.names) > 1 else self.names[0]
            own = rng.random(2) if name == "img_rand_crop" else None
            plans.append((name == "pad_resize", clip_corner if name == "vid_rand_crop" else own))
        return plans

    def _resize_together(self, frames: list[np.ndarray], plans: list[Plan], clip: np.ndarray) -> None:
        """Fills `clip`; frames of equal shape, such as those of a video, are resized together."""
        groups: dict[tuple[tuple[int, ...], bool], list[int]] = {}
        for i, (frame, (padded, _)) in enumerate(zip(frames, plans, strict=True)):
            groups.setdefault((frame.shape, padded), []).append(i)
        for ((height, width, _), padded), members in groups.items():
            stack = np.stack([frames[i] for i in members])  # (n, H, W, 3)
            if padded:
                clip[members] = _resize(_pad(stack), self.size, self.size)
                continue
            resized = _resize(stack, *_covering(height, width, self.size))
            for i, image in zip(members, resized, strict=True):
                clip[i] = _cut(image, self.size, plans[i][1])


def _resize(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes uint8 images (n, H, W, 3) to (n, height, width, 3) with torch."""
    stack = torch.from_numpy(images).permute(0, 3, 1, 2)
    resized = F.interpolate(stack, (height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).numpy()


def _covering(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with the short side equal to `size`; the long side is truncated."""
    short = min(height, width)
    return size * height // short, size * width // short


def _cut(image: np.ndarray, size: int, corner: np.ndarray | None) -> np.ndarray:
    """Cuts a square from a resized frame; arguments as for `crop`."""
    height, width, _ = image.shape
    if corner is None:
        top, left = round((height - size) / 2), round((width - size) / 2)
    else:
        top, left = int(corner[0] * (height - size + 1)), int(corner[1] * (width - size + 1))
    return image[top : top + size, left : left + size]


def _pad(images: np.ndarray) -> np.ndarray:
    """Pads frames (…, H, W, 3) with black at both ends of the short side, ⌊difference/2⌋ each."""
    height, width, _ = images.shape[-3:]
    rows, columns = max(width - height, 0) // 2, max(height - width, 0) // 2
    return np.pad(images, [(0, 0)] * (images.ndim - 3) + [(rows, rows), (columns, columns), (0, 0)])


def crop(frame: np.ndarray, size: int, corner: np.ndarray | None = None) -> np.ndarray:
    """Resizes the short side to `size` (the long side is truncated) and cuts out a square, with PIL as released.

    Args:
        frame: uint8 (H, W, 3)
        size: side of the square.
        corner: (2,) in [0, 1), relative position of the crop from top and left; None: centre crop.
    """
    height, width = _covering(frame.shape[0], frame.shape[1], size)
    resized = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    return _cut(resized, size, corner)


def pad_resize(frame: np.ndarray, size: int) -> np.ndarray:
    """Pads both ends of the short side with black and resizes to `size` × `size`, with PIL as released."""
    return np.asarray(Image.fromarray(_pad(frame)).resize((size, size), Image.Resampling.BILINEAR))
