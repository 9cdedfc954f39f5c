"""Videos as people hand them over, as a frame source that lives in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lavender.data.frames import MAX_PIXELS
from lavender.data.image_folders import EXTENSIONS, natural
from lavender.data.sources.base import FrameSource, StoredVideo
from lavender.data.sources.video_files import ImageFiles, VideoFile
from lavender.data.video import ClipBytes
from lavender.data.video_seek import read_frames
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from
from lavender.runtime.quoting import shown

Video = str | Path | bytes | np.ndarray  # a file, a folder of images, the bytes of a file, or frames (T, H, W, 3)


class FramesInMemory(StoredVideo):
    """Frames (T, H, W, 3), uint8 RGB."""

    def __init__(self, video_id: str, frames: np.ndarray):
        super().__init__(video_id, f"the array {video_id}")
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not frames.size:
            raise DataError(
                f"{self.where}: uint8 frames of shape (T, H, W, 3) are expected, not {frames.dtype} of {frames.shape}"
            )
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return [self._frames[number] for number in numbers]


class VideoInMemory(StoredVideo):
    """The bytes of a video file, of which `count` frames are taken."""

    def __init__(self, video_id: str, data: bytes, count: int, max_pixels: int):
        super().__init__(video_id, f"the bytes of {video_id}")
        self._clip, self._count, self._max_pixels = ClipBytes(data, self.where), count, max_pixels

    def __len__(self) -> int:
        return self._count

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return read_frames(self._clip, self._count, numbers, self._max_pixels)


def open_video(video: Video, name: str, count: int, max_pixels: int = MAX_PIXELS) -> StoredVideo:
    """A video that was handed over.

    Args:
        name: what it is called where it has no name of its own.
        count: evenly spread frames that are taken of a video file; of images and arrays all are.

    Raises:
        DataError: the file is missing, an address, or what is there is no video.
    """
    if isinstance(video, np.ndarray):
        return FramesInMemory(name, video)
    if isinstance(video, bytes):
        return VideoInMemory(name, video, count, max_pixels)
    if "://" in str(video):
        raise DataError(f"{shown(str(video))} is an address: only files are read; download it first")
    path = Path(video)
    if path.is_dir():
        names = sorted((entry.name for entry in path.iterdir()), key=natural)
        files = [path / entry for entry in names if _is_image(path / entry) and not entry.startswith(".")]
        if not files:
            raise DataError(f"{path}: no image ({', '.join(sorted(EXTENSIONS))}) is in this folder")
        return ImageFiles(path.name, files, max_pixels)
    if not path.exists():
        raise DataError(f"{path}: there is no such video{looked_from(path)}")
    if _is_image(path):
        return ImageFiles(path.name, [path], max_pixels)
    return VideoFile(path.name, path, count, max_pixels)


def _is_image(path: Path) -> bool:
    return path.suffix[1:].lower() in EXTENSIONS


class Seen(StoredVideo):
    """A video that remembers which frames were taken of it last: they are shown beside the result."""

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
    """Videos in the order in which they were given; an id is the number."""

    def __init__(self, videos: Sequence[Seen]):
        self.path = Path("the given videos")
        self.videos = list(videos)

    def __len__(self) -> int:
        return len(self.videos)

    def video_id(self, number: int) -> str:
        return str(number)

    def where(self, number: int) -> str:
        return self.videos[number].where

    def video(self, number: int) -> Seen:
        return self.videos[number]

    def fingerprint(self, number: int) -> bytes:
        raise DataError(f"{self.where(number)} has no fingerprint")

    def stamps(self) -> list[tuple[str, int, int]]:
        return []
