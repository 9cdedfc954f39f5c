"""Folders of images as videos, and how their frames are stored."""

import base64
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from lavender.data.frames import MAX_PIXELS, decode_bytes, image_kind
from lavender.data.ids import IMAGE_EXTENSIONS, unfit
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from, mistaken_bytes, refuse_special
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.data")

EXTENSIONS = frozenset(("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp"))


def find_images(folder: Path, needed: bool = True, single: bool = False) -> tuple[dict[str, list[Path]], list[Path]]:
    """Video id → its images, sorted naturally (2 before 10); also files that only look like images.

    A folder with images is a video, named by its path. An image directly in `folder` is a video of its own, named
    without the extension; with `single` every image is. Extensions are case-insensitive; hidden files are skipped.

    A link to a folder is followed, unless its target is read anyway: inside `folder`, above it, or already linked. The
    log counts skipped links.

    Raises:
        DataError: there are no images (if `needed`), two videos have one id, an id is invalid, or a folder cannot be
            read.
    """
    videos: dict[str, list[Path]] = {}
    others: list[Path] = []
    for place, names in walk(folder):
        for name in sorted(names, key=natural_key):
            file = Path(place, name)
            extension = file.suffix[1:].lower()
            if name.startswith(".") or extension not in IMAGE_EXTENSIONS | {"gif"}:
                continue
            if extension not in EXTENSIONS:
                others.append(file)
                continue
            alone = single or file.parent == folder
            video_id = (file.with_suffix("") if alone else file.parent).relative_to(folder).as_posix()
            if fault := unfit(video_id):
                raise DataError(f"{shown(str(file))}: its video id {shown(video_id)} {fault}; rename it")
            files = videos.setdefault(video_id, [])
            if files and (alone or files[0].parent != file.parent):
                raise DataError(f"{files[0]} and {file} would both be video {shown(video_id)}: rename one of them")
            files.append(file)
    if not videos and needed:
        found = f"; {len(others)} files look like images, such as {others[0].name}" if others else ""
        raise DataError(f"{folder}: no image ({', '.join(sorted(EXTENSIONS))}) is there{found}")
    return videos, others


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder and the names in it, without hidden ones. See `find_images` for links."""

    def fail(error: OSError) -> NoReturn:
        raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}{looked_from(root)}") from error

    top = os.path.realpath(root)
    followed: set[str] = set()
    left: list[str] = []
    for place, folders, names in os.walk(root, followlinks=True, onerror=fail):
        kept = []
        for name in sorted((name for name in folders if not name.startswith(".")), key=natural_key):
            path = os.path.join(place, name)
            if os.path.islink(path):
                target = os.path.realpath(path)
                if target in followed or os.path.commonpath((target, top)) in (target, top):
                    left.append(path)
                    continue
                followed.add(target)
            kept.append(name)
        folders[:] = kept
        yield place, names
    if left:
        LOGGER.warning("%s: %d links to folders are not followed, such as %s", root, len(left), left[0])


def stored_image(file: Path, quality: int = 95, max_pixels: int = MAX_PIXELS) -> str:
    """Image file in base64: a JPEG unchanged; PNG, WebP and BMP as a JPEG of this quality.

    Raises:
        DataError: see `read_image`.
    """
    return as_stored(*read_image(file, max_pixels), quality)


def as_stored(data: bytes, pixels: np.ndarray, quality: int = 95) -> str:
    """Image in base64, from its bytes and pixels (H, W, 3): a JPEG unchanged, others as a JPEG of this quality."""
    if image_kind(data) != "JPEG":
        encoded = io.BytesIO()
        Image.fromarray(pixels).save(encoded, format="JPEG", quality=quality)
        data = encoded.getvalue()
    return base64.b64encode(data).decode()


def read_image(file: Path, max_pixels: int = MAX_PIXELS) -> tuple[bytes, np.ndarray]:
    """Reads an image file: its bytes and its pixels, uint8 RGB (H, W, 3).

    Raises:
        DataError: the file cannot be read or is not an image (a pipe, a web page); see also `decode_bytes`.
    """
    try:
        refuse_special(file)
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}") from None
    try:
        return data, decode_bytes(data, str(file), max_pixels)
    except DataError:
        if fault := mistaken_bytes(data):
            raise DataError(f"{file}: {fault}") from None
        raise


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """Key for natural sorting of names: numbers by value."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
