"""COCO captions files: the references of a captioning split."""

from pathlib import Path
from typing import Any

from lavender.data import official
from lavender.data.annotations import read_json
from lavender.data.ids import VideoIds, may_be_same
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown


def read_coco(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Reads a COCO captions file.

    Returns:
        the whole object, and its list of annotations.

    Raises:
        DataError: the file is missing, is not JSON, or has no list of annotations.
    """
    content = read_json(path, "references")
    entries = content.get("annotations")
    if not isinstance(entries, list):
        hint = "" if "annotations" in content else official.advice(content, "references")
        raise DataError(
            f'{path}: no list of "annotations", so this is no COCO captions file' + (f"; {hint}" if hint else "")
        )
    return content, entries


def coco_id(entry: Any, where: str) -> str:
    """The `image_id` of an annotation as text; 7.0, as pandas writes integer columns, is 7.

    Raises:
        DataError: the annotation has no such id.
    """
    name = _as_text(entry.get("image_id") if isinstance(entry, dict) else None)
    if name is None:
        raise DataError(f'{where}: an object with "image_id" and "caption" is expected')
    return name


def file_names(content: dict[str, Any], path: Path, videos: VideoIds) -> dict[str, str]:
    """Maps an image id to its `file_name` in "images", for images whose file name, not their id, names a video.

    Args:
        content: a COCO captions file; videos: the videos of the split.

    Raises:
        DataError: the id names one video and the file name another.
    """
    names = {}
    images = content.get("images")
    for number, image in enumerate(images if isinstance(images, list) else []):
        if not isinstance(image, dict):
            continue
        name, image_id = image.get("file_name"), _as_text(image.get("id"))
        if not isinstance(name, str) or image_id is None or may_be_same(image_id, name):
            continue
        if (video := videos.find(name)) is None:
            continue
        if (other := videos.find(image_id)) is not None and other != video:
            raise DataError(
                f"{path}, image {number} (counted from 0): its id, {shown(image_id)}, and its file_name, "
                f"{shown(name)}, name two videos of the split; make the ids equal to the names of the videos"
            )
        names[image_id] = video
    return names


def _as_text(name: Any) -> str | None:
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    return None if isinstance(name, bool) or not isinstance(name, str | int | float) else str(name)
