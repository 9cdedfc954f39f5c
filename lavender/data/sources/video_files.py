"""Frames of a folder of videos, read directly: those that `_tools` would have stored, without the rounding of JPEG."""

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
    """`count` frames of a video file, evenly spread as `sample_frames` takes them; opening it decodes nothing."""

    def __init__(self, video_id: str, file: Path, count: int, max_pixels: int):
        super().__init__(video_id, str(file))
        self._file, self._count, self._max_pixels = file, count, max_pixels

    def __len__(self) -> int:
        return self._count

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return read_frames(self._file, self._count, numbers, self._max_pixels)


class ImageFiles(StoredVideo):
    """All images of a folder, in the order of their names; only those asked for are read."""

    def __init__(self, video_id: str, files: Sequence[Path], max_pixels: int):
        super().__init__(video_id, str(files[0].parent if len(files) > 1 else files[0]))
        self._files, self._max_pixels = files, max_pixels

    def __len__(self) -> int:
        return len(self._files)

    def frames(self, numbers: Sequence[int]) -> list[np.ndarray]:
        return [read_image(self._files[number], self._max_pixels)[1] for number in numbers]


class VideoFolder(FrameSource):
    """A folder of video files and of folders of images, at any depth; an id is the path without the media extension.

    The files are listed once, so that videos have the same numbers in all processes of a run.

    Args:
        path: the folder.
        stored_frames: frames of a video file; a folder of images has as many as there are images.
        max_pixels: of a frame, at most.
        single_images: each image is a video of one frame, whatever folder it is in.

    Raises:
        ConfigError: there are video files, but PyAV is not installed.
        DataError: the folder is missing or has neither videos nor images, or two files would be one video.
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
