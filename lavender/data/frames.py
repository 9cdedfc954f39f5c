"""Decoding of stored frames, and selection of frames among those stored of a video."""

import binascii
import math
from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np

from lavender.runtime.errors import DataError

# pybase64 and simplejpeg are optional. They are faster than their substitutes and give the same result.
try:
    from pybase64 import b64decode
except ImportError:
    from base64 import b64decode  # type: ignore[assignment]
try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_ELONGATION = 100  # ratio of the sides; after the resize a longer image would fill the memory

MAX_PIXELS = 64 * 2**20  # checked in the header first: a file of a few KiB can claim many GB
MAX_SCANS = 200  # of a progressive JPEG: each costs a pass over all pixels

# Markers at the start of the pixel data, and after it.
_PIXELS = {"JPEG": (b"\xff\xda", b"\xff\xd9"), "PNG": (b"IDAT", b"IEND")}


def decode_image(field: str, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image in base64, see `decode_bytes`."""
    try:
        data = b64decode(field, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the frame is not base64, or is cut ({error})") from None
    return decode_bytes(data, where, max_pixels)


def decode_bytes(data: bytes, where: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP or BMP to uint8 RGB (H, W, 3), as an image viewer shows it.

    The EXIF orientation is applied. Grey, palette and CMYK images become RGB, 16 bits become the upper 8, transparent
    pixels are blended with white. Of an animated PNG the still image is read.

    Raises:
        DataError: not such an image, truncated, animated, too large or too elongated; `where` names the image.
    """
    kind = image_kind(data)
    if not kind:
        is_gif = data.startswith(b"GIF8")
        found = "a GIF; extract its frames as a video" if is_gif else "neither a JPEG, PNG, WebP nor BMP"
        raise DataError(f"{where}: the image is {found}")
    if _is_cut(data, kind):  # decoders differ: some fill the missing part with grey
        raise DataError(f"{where}: the image is cut short")
    width, height = _size(data, kind)
    if width * height > max_pixels:
        raise DataError(
            f"{where}: an image of {width}×{height} is too large (more pixels than max_pixels {max_pixels})"
        )
    if kind == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise DataError(f"{where}: the JPEG has more than {MAX_SCANS} scans")
    if kind == "WebP" and data[12:16] == b"VP8X" and data[20] & 2:
        raise DataError(f"{where}: the WebP is animated; only still images are read")
    image = _decode(data)
    if image is None:
        raise DataError(f"{where}: the image is damaged, no decoder reads it")
    height, width, _ = image.shape
    if max(height, width) > MAX_ELONGATION * min(height, width):
        raise DataError(f"{where}: an image of {width}×{height} is too elongated (more than {MAX_ELONGATION} to 1)")
    return _upright(image, _orientation(_exif(data, kind)))


def image_kind(data: bytes) -> str:
    """Kind of an image by the first bytes of its file: "JPEG", "PNG", "WebP" or "BMP", else ""."""
    if data.startswith(b"RIFF"):
        return "WebP" if data[8:12] == b"WEBP" and len(data) >= 30 else ""
    if data.startswith(b"BM"):
        return "BMP" if len(data) >= 30 else ""
    return "JPEG" if data.startswith(b"\xff\xd8") else "PNG" if data.startswith(b"\x89PNG") else ""


def _is_cut(data: bytes, kind: str) -> bool:
    if kind == "WebP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        if data[14] == 12 or int.from_bytes(data[30:34], "little") not in (0, 3):  # old, or run lengths
            return False
        width, height = _size(data, kind)
        row = (width * int.from_bytes(data[28:30], "little") + 31) // 32 * 4
        return len(data) < int.from_bytes(data[10:14], "little") + row * height
    start, end = _PIXELS[kind]
    return data.rfind(end) <= data.rfind(start)


def _size(data: bytes, kind: str) -> tuple[int, int]:
    """(width, height) in the header, the largest if a JPEG has several; (0, 0) if there are none."""
    if kind == "PNG":
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if kind == "BMP":
        if data[14] == 12:
            return int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little")
        sides = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        width, height = map(abs, sides)  # a negative height: the rows are stored from the top
        return width, height
    if kind == "WebP":
        if data[12:16] == b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    size = (0, 0)
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            size = max(size, (width, height), key=lambda sides: sides[0] * sides[1])
    return size


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields marker and position of each segment of a JPEG, up to its pixels."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):  # decoders, too, skip to the next marker
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:  # the pixels begin
            return
        yield marker, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _chunks(data: bytes, kind: str) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and content of each chunk of a PNG or WebP."""
    at = 8 if kind == "PNG" else 12
    while at + 8 <= len(data):
        if kind == "PNG":
            length, name, extra = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 4  # a checksum
        else:
            name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            extra = length % 2
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + extra


def _exif(data: bytes, kind: str) -> bytes:
    """EXIF block of an image, at any position; empty if there is none."""
    if kind == "JPEG":
        for marker, at in _jpeg_segments(data):
            if marker == 0xE1 and data.startswith(b"Exif\0", at + 4):
                return data[at + 10 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    elif kind in ("PNG", "WebP"):
        name = b"eXIf" if kind == "PNG" else b"EXIF"
        if data.find(name) >= 0:
            found = next((content for chunk, content in _chunks(data, kind) if chunk == name), b"")
            return found.removeprefix(b"Exif\0\0")
    return b""


def _orientation(exif: bytes) -> int:
    """Orientation tag of an EXIF block, 1 to 8; 1 (upright) if there is none."""
    order: Literal["little", "big"] | None = {b"II*\0": "little", b"MM\0*": "big"}.get(exif[:4])  # type: ignore[assignment]
    if order is None:
        return 1
    start = int.from_bytes(exif[4:8], order)
    for number in range(int.from_bytes(exif[start : start + 2], order)):
        entry = exif[start + 2 + 12 * number :][:12]
        if len(entry) < 12:
            break
        if int.from_bytes(entry[:2], order) == 0x0112:
            # Two bytes, rarely four, by the tag's type.
            value = int.from_bytes(entry[8 : 12 if int.from_bytes(entry[2:4], order) == 4 else 10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Mirrors and rotates an image by its EXIF orientation."""
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    rows, columns = (-1 if orientation in sides else 1 for sides in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(image[::rows, ::columns])


def _decode(data: bytes) -> np.ndarray | None:
    """Decodes to RGB as stored, without the EXIF orientation."""
    if simplejpeg and data.startswith(b"\xff\xd8"):
        try:
            return simplejpeg.decode_jpeg(data, "RGB", strict=False)  # warnings pass, as they do in cv2
        except ValueError:
            pass  # cv2 decides
    colour = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        # Unchanged, for its transparency; cv2 ignores the orientation there.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if _has_alpha(data) else colour)
        clear = _clear_grey(data, image)
        if image is not None and (image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype.itemsize > 2):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), colour)
    except cv2.error:
        return None
    if image is None:
        return None
    if clear is not None:
        image = np.where(clear[:, :, None], 255, image).astype(np.uint8)
    if image.dtype == np.uint16:
        image = (image // 256).astype(np.uint8)
    if image.shape[2] == 4:
        alpha = image[:, :, 3:].astype(np.uint16)
        image = ((image[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(image[:, :, ::-1])


def _clear_grey(data: bytes, image: np.ndarray | None) -> np.ndarray | None:
    """Mask of the transparent pixels of a grey PNG, whose transparent shade OpenCV ignores; None for other images.

    Args:
        image: the PNG as stored: uint16, or uint8 with fewer bits spread over its range.
    """
    if image is None or image.ndim != 2 or image_kind(data) != "PNG" or data[25] != 0:
        return None
    bits = data[24]
    shade = next((content for name, content in _chunks(data, "PNG") if name == b"tRNS"), b"")
    if len(shade) != 2:
        return None
    value = int.from_bytes(shade, "big") & (2**bits - 1)
    return image == (value if bits >= 8 else value * 255 // (2**bits - 1))


def _has_alpha(data: bytes) -> bool:
    """Whether a PNG or WebP can have transparent pixels. The fourth byte of a BMP pixel is padding, not alpha."""
    kind = image_kind(data)
    if kind == "PNG":
        return data[25] in (4, 6) or (
            data.find(b"tRNS") >= 0 and any(name == b"tRNS" for name, _ in _chunks(data, kind))
        )
    return kind == "WebP" and data[12:16] in (b"VP8X", b"VP8L")


def evaluation_indices(
    n_stored: int, size_frame: int, repeat_frames: bool = False, where: str = "a video"
) -> list[int]:
    """Indices of `size_frame` frames, evenly spread over all stored ones, first and last included.

    Raises:
        DataError: fewer frames are stored than needed, and `repeat_frames` is off.
    """
    return _repeated(n_stored, size_frame, repeat_frames, where) or _evenly(0, n_stored - 1, size_frame)


def training_indices(
    n_stored: int, size_frame: int, start: int, repeat_frames: bool = False, where: str = "a video"
) -> list[int]:
    """Indices of clip `start`, one of `number_of_clips`: every n-th frame from `start`, n = `number_of_clips`.

    Raises:
        DataError: as for `evaluation_indices`.
    """
    stride = number_of_clips(n_stored, size_frame)
    end = min(start + (size_frame - 1) * stride, n_stored - 1)
    return _repeated(n_stored, size_frame, repeat_frames, where) or _evenly(start, end, size_frame)


def number_of_clips(n_stored: int, size_frame: int) -> int:
    """Number of different training clips of `size_frame` frames: ⌈stored / size_frame⌉."""
    return math.ceil(n_stored / size_frame)


def _repeated(n_stored: int, size_frame: int, repeat_frames: bool, where: str) -> list[int]:
    """Indices of all stored frames, padded with the last one if they are too few; else an empty list."""
    if n_stored >= size_frame:
        return []
    if n_stored == 0 or not repeat_frames:
        advice = "set size_frame to that, or repeat_frames to true" if n_stored else "its row is empty"
        raise DataError(f"{where}: {size_frame} frames are asked for, {n_stored} are stored; {advice}")
    return [min(i, n_stored - 1) for i in range(size_frame)]


def _evenly(start: int, end: int, count: int) -> list[int]:
    """`count` indices from `start` to `end`, rounded half to even."""
    if count == 1:
        return [round((start + end) / 2)]
    step = (end - start) / (count - 1)
    return [round(start + i * step) for i in range(count)]
