"""Frames of a folder of videos, read directly: the same frames that `_tools` would store, without JPEG artefacts."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lavender.data.frames import MAX_PIXELS
from lavender.data.image_folders import read_image
from lavender.data.sources.base import FrameSource, StoredVideo, fingerprint_of_files, stamp
from lavender.data.video_folders import find_clips
from lavender.data.video_seek import read_frames
from lavender.runtime.errors import ConfigError


class VideoFile(StoredVideo):
    """`count` evenly spread frames of a video file, as from `sample_frames`; opening it decodes nothing."""

    def __init__(self, video_id: str, file: Path, count: int, max_pixels: int):
        super().__init__(video_id, str(file))
        self._file, self._count, self._max_pixels = file, count, max_pixels

    def __len__(self) -> int:
        return self._count

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return read_frames(self._file, self._count, numbers, self._max_pixels)


class ImageFiles(StoredVideo):
    """All images of a folder, sorted by name; only requested ones are read."""

    def __init__(self, video_id: str, files: Sequence[Path], max_pixels: int):
        super().__init__(video_id, str(files[0].parent if len(files) > 1 else files[0]))
        self._files, self._max_pixels = files, max_pixels

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return [read_image(self._files[number], self._max_pixels)[1] for number in numbers]


class VideoFolder(FrameSource):
    """Folder of video files and of image folders, at any depth; an id is the path without media extension.

    The files are listed only once, so that videos have the same numbers in all processes of a run.

    Args:
        path: the folder.
        stored_frames: frames per video file; a folder of images has one frame per image.
        max_pixels: maximum pixels of a frame.
        single_images: each image is a video of one frame, in whatever folder it is.

    Raises:
        ConfigError: there are video files, but PyAV is not installed.
        DataError: the folder is missing or has neither videos nor images, or two files have the same id.
    """

    def __init__(
        self, path: str | Path, stored_frames: int = 5, max_pixels: int = MAX_PIXELS, single_images: bool = False
    ):
        self.path = Path(path)
        self._count, self._max_pixels = stored_frames, max_pixels
        files, images = find_clips(self.path, "--video_dir", single_images)
        if files and find_spec("av") is None:
            raise ConfigError(f"{self.path} holds video files, which PyAV decodes: pip install av")
        self._files: dict[str, list[Path]] = {**{name: [file] for name, file in files.items()}, **images}
        self._decoded = frozenset(files)
        self._names = sorted(self._files)

    def __len__(self) -> int:
        return len(self._names)

    def video_id(self, number: int) -> str:
        return self._names[number]

    def where(self, number: int) -> str:
        return self.video(number).where

    def video(self, number: int) -> StoredVideo:
        name = self._names[number]
        files = self._files[name]
        if name in self._decoded:
            return VideoFile(name, files[0], self._count, self._max_pixels)
        return ImageFiles(name, files, self._max_pixels)

    def fingerprint(self, number: int) -> bytes:
        return fingerprint_of_files(self._files[self._names[number]])

    def stamps(self) -> list[tuple[str, int, int]]:
        files = [stamp(file) for name in self._names for file in self._files[name]]
        return [("stored_frames", self._count, self._count), *files]
