"""User clips: video files and image folders at any depth, or the samples of WebDataset tars."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavender.data.frames import decode_bytes
from lavender.data.image_folders import as_stored, find_images, stored_image, walk
from lavender.data.sources.base import stamp
from lavender.data.sources.shard_names import find_shards
from lavender.data.sources.shards import ShardSample, ShardSource
from lavender.data.video import ClipBytes, extract_frames
from lavender.data.video_folders import find_clips, find_videos
from lavender.runtime.errors import DataError


class Clip(ABC):
    """Clip that can be sent to a process, which extracts its frames. Its text is its name in messages."""

    @abstractmethod
    def files(self) -> list[Path]:
        """Files that it is read from."""

    def length(self, count: int) -> int:
        """Number of stored frames, with `count` for a video."""
        return count

    def stamp(self) -> str:
        """Text that changes when its files change."""
        facts = hashlib.sha256(repr([stamp(file) for file in self.files()]).encode())
        return facts.hexdigest()[:16]

    @abstractmethod
    def stored(self, count: int, **options: Any) -> list[str]:
        """Base64 JPEGs: `count` frames of a video, or all images.

        Args:
            options: options of `sample_frames`.

        Raises:
            DataError: the clip cannot be decoded.
        """


@dataclass(frozen=True)
class VideoClip(Clip):
    """Video file."""

    file: Path

    def __str__(self) -> str:
        return str(self.file)

    def files(self) -> list[Path]:
        return [self.file]

    def stored(self, count: int, **options: Any) -> list[str]:
        return extract_frames(self.file, count, threads=1, **options)


@dataclass(frozen=True)
class ImagesClip(Clip):
    """Folder of images, in order."""

    images: tuple[Path, ...]

    def __str__(self) -> str:
        return str(self.images[0].parent if len(self.images) > 1 else self.images[0])

    def files(self) -> list[Path]:
        return list(self.images)

    def length(self, count: int) -> int:
        return len(self.images)

    def stored(self, count: int, **options: Any) -> list[str]:
        return [stored_image(file, max_pixels=options["max_pixels"]) for file in self.images]


@dataclass(frozen=True)
class ShardClip(Clip):
    """Sample of a tar."""

    sample: ShardSample

    def __str__(self) -> str:
        return self.sample.where

    def files(self) -> list[Path]:
        return [self.sample.tar]

    def length(self, count: int) -> int:
        return len(self.sample) if self.sample.has_images else count

    def stored(self, count: int, **options: Any) -> list[str]:
        if not self.sample.has_images:
            return extract_frames(ClipBytes(self.sample.data(0), str(self)), count, threads=1, **options)
        files = [self.sample.data(number) for number in range(len(self.sample))]
        return [as_stored(data, decode_bytes(data, str(self), options["max_pixels"])) for data in files]


class Clips:
    """Clips of a folder: video id → clip.

    Args:
        path: a folder of videos and of image folders, at any depth; or WebDataset tars: a folder, one tar, or a pattern
            with braces.

    Raises:
        DataError: the path is missing, holds neither or both kinds, or two files have the same id.
    """

    def __init__(self, path: str):
        self.path = path
        self.faults: dict[str, str] = {}  # id → why its frames are unreadable
        self.shards = ShardSource(path, tolerant=True) if _is_shards(path) else None
        self._clips: dict[str, Clip] = {}
        if self.shards is None:
            self._find(Path(path))
        else:
            self.shards.check_ids()
            self._places = {self.shards.video_id(number): number for number in range(len(self.shards))}

    def _find(self, folder: Path) -> None:
        videos, images = find_clips(folder, "--videos")
        self._clips = {name: VideoClip(file) for name, file in videos.items()}
        self._clips |= {name: ImagesClip(tuple(files)) for name, files in images.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places if self.shards else self._clips))

    def __len__(self) -> int:
        return len(self._places if self.shards else self._clips)

    def __contains__(self, name: str) -> bool:
        return name in (self._places if self.shards else self._clips)

    def __getitem__(self, name: str) -> Clip:
        return ShardClip(self.shards.video(self._places[name])) if self.shards else self._clips[name]

    @property
    def kind(self) -> str:
        """The `frame_source` that reads them without a TSV."""
        return "shards" if self.shards else "videos"

    def options(self, count: int) -> dict[str, Any]:
        """Options with which training reads them directly, `count` frames per video."""
        path = str(Path(self.path).resolve())
        return {"frame_source": self.kind, "shards" if self.shards else "video_dir": path, "stored_frames": count}

    def captions(self) -> list[tuple[str, str]]:
        """Id and caption of the tars' samples that have one, in order. DataError if a caption is malformed."""
        shards = self.shards
        if shards is None or not shards.has_captions:
            return []
        return [(name, shards.caption(number)) for name, number in self._places.items() if shards.is_captioned(number)]


def _is_shards(path: str) -> bool:
    """Whether the path means tars: by name, by pattern, or as a folder that holds only tars."""
    folder = Path(path)
    if not folder.is_dir():
        return ".tar" in path
    if not any(name.lower().endswith(".tar") for _, names in walk(folder) for name in names):
        return False
    if find_videos(folder) or find_images(folder, needed=False)[0]:
        raise DataError(f"{folder}: tars and other clips are there; put the tars, {find_shards(path)[0]} …, elsewhere")
    return True
