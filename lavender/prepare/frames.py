"""The frames of a folder of videos, stored in a frame TSV: in many processes, and going on where it was stopped."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from lavender.data.image_folders import find_images, stored_image
from lavender.data.index import write_id2lineidx
from lavender.data.tsv import TSVWriter
from lavender.data.video import extract_frames
from lavender.data.video_folders import find_videos
from lavender.data.video_processes import in_processes
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from


@dataclass
class Clips:
    """The clips of a folder at any depth: video id → its file, or its images in order."""

    folder: Path
    videos: dict[str, Path]
    images: dict[str, list[Path]]
    faults: dict[str, str] = field(default_factory=dict)  # id → why its frames cannot be read

    def __iter__(self) -> Iterator[str]:
        return iter(sorted([*self.videos, *self.images]))

    def __len__(self) -> int:
        return len(self.videos) + len(self.images)


def find_clips(folder: Path) -> Clips:
    """All videos and image folders.

    Raises:
        DataError: the folder is missing or holds neither, or two files would be one video.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder{looked_from(folder)}; check --videos")
    clips = Clips(folder, find_videos(folder), find_images(folder, needed=False)[0])
    if both := sorted(clips.videos.keys() & clips.images.keys()):
        raise DataError(f"{clips.videos[both[0]]} and a folder of images would both be video {both[0]!r}: rename one")
    if not len(clips):
        raise DataError(f"{folder}: neither videos nor folders of images are there; check --videos")
    return clips


def write_frames(clips: Clips, used: list[str], path: Path, count: int, workers: int, **options: Any) -> list[str]:
    """Writes the frame TSV of the clips in `used`, its lineidx and its id index; returns the ids that it holds.

    What is extracted is kept in `<path>.part` until all is; the same command goes on from it after a stop. Clips that
    cannot be decoded are listed on stderr and in `clips.faults`.

    Args:
        count: frames of a video file; an image folder keeps all of its images.

    Raises:
        DataError: no clip can be decoded.
    """
    with _Part(path, {"count": count, "folder": str(clips.folder.resolve()), **options}) as part:
        waiting = [name for name in used if name not in part.places]
        if part.places:
            print(f"{path}: {len(part.places)} clips were extracted before, {len(waiting)} are left", file=sys.stderr)
        bar = tqdm(total=len(waiting), unit="clip", ascii=True)
        for name, frames in _frames(clips, waiting, count, workers, options):
            bar.update()
            if isinstance(frames, DataError):
                clips.faults[name] = str(frames)
                bar.write(f"skipped: {frames}", file=sys.stderr)
            else:
                part.add(name, frames)
        bar.close()
        held = [name for name in used if name in part.places]
        if not held:
            raise DataError(f"{clips.folder}: none of its {len(used)} clips can be decoded")
        with TSVWriter(path) as writer:
            for name in held:
                writer.write([name, *part.frames(name)])
        write_id2lineidx(path, path.with_suffix(".id2lineidx.pkl"))
        part.remove()
    return held


def _frames(
    clips: Clips, names: list[str], count: int, workers: int, options: dict[str, Any]
) -> Iterator[tuple[str, list[str] | DataError]]:
    """Base64 JPEGs of each clip, in order of completion."""
    of_file = {clips.videos[name]: name for name in names if name in clips.videos}
    work = partial(extract_frames, count=count, threads=1, **options)
    for file, frames in in_processes(work, list(of_file), max(1, min(workers, len(of_file)))) if of_file else ():
        yield of_file[file], frames
    for name in names:
        if name in clips.images:
            yield name, _images(clips.images[name])


def _images(files: list[Path]) -> list[str] | DataError:
    try:
        return [stored_image(file) for file in files]
    except DataError as fault:
        return fault


class _Part:
    """Rows extracted so far: `<path>.part`, whose first line says with which options."""

    def __init__(self, path: Path, options: dict[str, Any]):
        self.path = path.with_name(f"{path.name}.part")
        self._head = json.dumps(options, sort_keys=True).encode() + b"\n"
        self.places: dict[str, tuple[int, int]] = {}  # id → where its row begins and ends
        self._file: BinaryIO

    def __enter__(self) -> "_Part":
        self._file = self.path.open("a+b")
        self._file.seek(0)
        if self._file.readline() != self._head:
            self._file.truncate(0)
            self._file.write(self._head)
            self._file.flush()
        end = len(self._head)
        self._file.seek(end)
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):  # stopped within a row
                break
            self.places[line.split(b"\t", 1)[0].decode()] = (end, end + len(line))
            end += len(line)
        self._file.truncate(end)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, frames: list[str]) -> None:
        """Keeps the frames of a clip, and has them on disk."""
        row = "\t".join([name, *frames]).encode() + b"\n"
        start = self._file.seek(0, 2)
        self._file.write(row)
        self._file.flush()
        self.places[name] = (start, start + len(row))

    def frames(self, name: str) -> list[str]:
        """The frames that are kept of a clip."""
        start, end = self.places[name]
        self._file.seek(start)
        return self._file.read(end - start).decode().rstrip("\n").split("\t")[1:]

    def remove(self) -> None:
        """All of them stand in the TSV now."""
        self.path.unlink(missing_ok=True)
