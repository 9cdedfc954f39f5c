"""User-supplied videos as an in-memory frame source."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from lavender.data.frames import MAX_PIXELS
from lavender.data.image_folders import EXTENSIONS, natural_key
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.data.sources.video_files import ImageFiles, VideoFile
from lavender.data.video import ClipBytes
from lavender.data.video_folders import looks_like_video
from lavender.data.video_seek import read_frames
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from
from lavender.runtime.quoting import shown

# A file, a folder of images, the bytes of a file, frames (T, H, W, 3) or (T, 3, H, W), or images. Arrays of three
# dimensions in a list are frames, too, which the types cannot express.
Video = str | Path | bytes | np.ndarray | torch.Tensor | list[Image.Image]
KINDS = (
    "the path of a file or of a folder of images, the bytes of a file, uint8 frames (T, H, W, 3) or (T, 3, H, W) as an "
    "array or a tensor, or a list of PIL images; of several videos a list of these"
)


class FramesInMemory(StoredVideo):
    """Video given as frames in memory.

    Args:
        frames: uint8 RGB, an array or a tensor (T, H, W, 3) or (T, 3, H, W), or a list of such frames and PIL images.

    Raises:
        DataError: the type of the numbers or the shape is wrong.
    """

    def __init__(self, video_id: str, frames: Any):
        several = isinstance(frames, list | tuple)
        super().__init__(video_id, f"the {'frames of ' if several else 'array '}{video_id}")
        if several:
            self._frames = [self._checked(frame, "(H, W, 3)", 3) for frame in frames]
        else:
            self._frames = list(self._checked(frames, "(T, H, W, 3) or (T, 3, H, W)", 4))

    def _checked(self, frames: Any, shape: str, dimensions: int) -> np.ndarray:
        """Returns frames with channels last, after a check of type and shape."""
        if isinstance(frames, Image.Image):
            if frames.mode in ("I", "F"):
                raise DataError(
                    f"{self.where}: an image of mode {frames.mode} has no 8 bits a colour: convert it to RGB"
                )
            return _pixels(frames)
        is_bytes = frames.dtype in (np.uint8, torch.uint8)
        array = np.asarray(frames.detach().cpu() if isinstance(frames, torch.Tensor) else frames) if is_bytes else None
        if array is not None and array.ndim == dimensions and array.size:
            if array.shape[-1] == 3:
                return array
            if array.shape[-3] == 3:
                return np.moveaxis(array, -3, -1)
        raise DataError(
            f"{self.where}: uint8 frames of shape {shape} are expected, not {frames.dtype} of {tuple(frames.shape)}"
        )

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return [self._frames[number] for number in numbers]


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels of an image, as decoded from a file: upright, upper 8 of 16 bits, transparency blended with white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # PIL would clip values above 255 to white
        upper = (np.asarray(image) // 256).astype(np.uint8)
        return np.repeat(upper[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def is_frames(video: Any) -> bool:
    """Whether a list holds the frames of one video: only images, or only three-dimensional arrays and tensors."""
    return isinstance(video, list | tuple) and bool(video) and all(map(_is_frame, video))


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, np.ndarray | torch.Tensor) and item.ndim == 3)


class VideoInMemory(StoredVideo):
    """Video file given as bytes, of which `count` frames are used."""

    def __init__(self, video_id: str, data: bytes, count: int, max_pixels: int):
        super().__init__(video_id, f"the bytes of {video_id}")
        self._clip, self._count, self._max_pixels = ClipBytes(data, self.where), count, max_pixels

    def __len__(self) -> int:
        return self._count

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return read_frames(self._clip, self._count, numbers, self._max_pixels)


def open_video(video: Video, name: str, count: int, max_pixels: int = MAX_PIXELS) -> StoredVideo:
    """Opens a user-supplied video.

    Args:
        name: its name in messages if it has none of its own.
        count: number of evenly spread frames of a video file; all images or array frames are used.

    Raises:
        DataError: the file is missing, the path is a URL, or the file is not a video.
    """
    if isinstance(video, np.ndarray | torch.Tensor) or is_frames(video):
        return FramesInMemory(name, video)
    if isinstance(video, bytes | bytearray | memoryview):
        return VideoInMemory(name, bytes(video), count, max_pixels)
    if not isinstance(video, str | Path):
        advice = "; make a list of it first: list(…)" if isinstance(video, Iterator) else ""
        raise DataError(f"{name}: a {type(video).__name__} is no video{advice}; a video is {KINDS}")
    if "://" in str(video):
        raise DataError(f"{shown(str(video))} is an address: only files are read; download it first")
    path = Path(video)
    try:
        return _open_path(path, count, max_pixels)
    except OSError as error:
        raise DataError(f"{shown(str(path))}: cannot be read ({error.strerror})") from None


def _open_path(path: Path, count: int, max_pixels: int) -> StoredVideo:
    if path.is_dir():
        names = sorted((entry.name for entry in path.iterdir()), key=natural_key)
        files = [path / entry for entry in names if _is_image(path / entry) and not entry.startswith(".")]
        if not files:
            several = any(looks_like_video(path / entry) for entry in names)
            advice = "; it holds videos: give a list of them, or make an index for searches" if several else ""
            raise DataError(f"{path}: no image ({', '.join(sorted(EXTENSIONS))}) is in this folder{advice}")
        return ImageFiles(path.name, files, max_pixels)
    if not path.exists():
        raise DataError(f"{path}: there is no such video{looked_from(path)}")
    if _is_image(path):
        return ImageFiles(path.name, [path], max_pixels)
    return VideoFile(path.name, path, count, max_pixels)


def _is_image(path: Path) -> bool:
    return path.suffix[1:].lower() in EXTENSIONS


class FrameRecorder(StoredVideo):
    """Wrapper of a video that records the frames last read, which are shown beside the result."""

    def __init__(self, video: StoredVideo):
        super().__init__(video.video_id, video.where)
        self._video = video
        self._numbers: list[int] = []
        self.taken: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self._video)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        if self._numbers != list(numbers):
            self.taken, self._numbers = self._video.frames(numbers), list(numbers)
        return self.taken


class GivenVideos(FrameSource):
    """Videos in the given order; an id is the index."""

    def __init__(self, videos: Sequence[FrameRecorder]):
        self.path = Path("the given videos")
        self.videos = list(videos)

    def __len__(self) -> int:
        return len(self.videos)

    def video_id(self, number: int) -> str:
        return str(number)

    def where(self, number: int) -> str:
        return self.videos[number].where

    def video(self, number: int) -> FrameRecorder:
        return self.videos[number]

    def fingerprint(self, number: int) -> bytes:
        raise DataError(f"{self.where(number)} has no fingerprint")

    def stamps(self) -> list[tuple[str, int, int]]:
        return []
