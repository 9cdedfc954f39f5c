"""Video files in a folder and their ids: the same rule for the extraction tool and for direct reading."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from lavender.data.ids import VIDEO_EXTENSIONS, unfit
from lavender.data.image_folders import EXTENSIONS, find_images, walk
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.data")


def name_videos(files: Iterable[Path], id_of: Callable[[Path], str]) -> dict[str, Path]:
    """Video id → file, in the order of the files. Hidden files and folders are skipped: macOS writes `._x.mp4`.

    Raises:
        DataError: an id is invalid, or two files have the same id.
    """
    videos: dict[str, Path] = {}
    for file in files:
        if file.name.startswith(".") or file.is_dir():
            continue
        video_id = id_of(file)
        if fault := unfit(video_id):
            raise DataError(f"{shown(str(file))}: its video id {shown(video_id)} {fault}; rename it")
        other = videos.setdefault(video_id, file)
        if other != file:
            raise DataError(f"{file} and {other} would both be video {shown(video_id)}: rename one of them")
    return videos


def find_videos(folder: Path) -> dict[str, Path]:
    """Finds videos at any depth; an id is the path under `folder` without extension. For links see `find_images`.

    Raises:
        DataError: as for `name_videos`, or a folder cannot be read.
    """
    files = (Path(place, name) for place, names in walk(folder) for name in sorted(names))
    return name_videos(
        filter(looks_like_video, files), lambda file: file.relative_to(folder).with_suffix("").as_posix()
    )


def find_clips(folder: Path, option: str, single: bool = False) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Finds all videos and folders of images, by id, for direct reading and for extraction.

    An image beside a video of the same name is its thumbnail and is ignored. Images of unsupported kinds, such as HEIC,
    are counted in the log.

    Args:
        option: option that names the folder, for messages; single: every image is a video of its own.

    Raises:
        DataError: the folder is missing or has neither, or two videos have the same id.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder{looked_from(folder)}; check {option}")
    videos, (images, others) = find_videos(folder), find_images(folder, needed=False, single=single)
    others = [file for file in others if not looks_like_video(file)]
    found = f"{len(others)} images of other kinds, such as {others[0]}" if others else ""
    for name in videos.keys() & images.keys():
        if images[name][0].parent != videos[name].parent:
            raise DataError(f"{videos[name]} and {images[name][0]} would both be video {name!r}: rename one of them")
        del images[name]
    if not videos and not images:
        raise DataError(
            f"{folder}: neither videos ({', '.join(sorted(VIDEO_EXTENSIONS))}) nor images are there; check {option}"
            + (f"; {found}, are not read: save them as JPEG or PNG" if others else "")
        )
    if others:
        LOGGER.warning("%s: %s, are left out: only %s are read", folder, found, ", ".join(sorted(EXTENSIONS)))
    return videos, images


def looks_like_video(file: Path) -> bool:
    """Whether a file has a video extension."""
    return file.suffix[1:].lower() in VIDEO_EXTENSIONS
