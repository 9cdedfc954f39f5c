"""A stored frame to pixels, and which of the stored frames of a video are taken."""

import binascii
import math

import cv2
import numpy as np

from lavender.runtime.errors import DataError

# pybase64 and simplejpeg need not be installed. They are quicker than their substitutes and give the same result.
try:
    from pybase64 import b64decode
except ImportError:
    from base64 import b64decode  # type: ignore[assignment]
try:
    import simplejpeg
except ImportError:
    simplejpeg = None

MAX_ELONGATION = 100  # a side this many times the other: after the resize such an image would fill the memory

MAX_PIXELS = 64 * 2**20  # a few KiB can claim many GB: the header is read before the pixels
MAX_SCANS = 200  # of a progressive JPEG: each costs a pass over all pixels

# First bytes of a file, what begins its pixel data, what follows it.
_FORMATS = {b"\xff\xd8": (b"\xff\xda", b"\xff\xd9"), b"\x89PNG": (b"IDAT", b"IEND")}


def decode_image(field: str, where: str) -> np.ndarray:
    """Pixels of a base64 JPEG or PNG, uint8 RGB (H, W, 3). Grey and CMYK images become RGB, transparency is dropped.

    Raises:
        DataError: not base64, not an image, cut short, or too large or too elongated; `where` says which frame it is.
    """
    try:
        data = b64decode(field, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the frame is not base64, or is cut ({error})") from None
    start, end = next((ends for magic, ends in _FORMATS.items() if data.startswith(magic)), (b"", b""))
    if not start:
        raise DataError(f"{where}: the frame is neither a JPEG nor a PNG")
    if data.rfind(end) <= data.rfind(start):  # decoders differ here: some fill the missing part with grey
        raise DataError(f"{where}: the image is cut short")
    width, height = _size(data)
    if width * height > MAX_PIXELS:
        raise DataError(f"{where}: an image of {width}×{height} is too large (more than {MAX_PIXELS >> 20} megapixels)")
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise DataError(f"{where}: the JPEG has more than {MAX_SCANS} scans")
    image = _decode(data)
    if image is None:
        raise DataError(f"{where}: the image is damaged, no decoder reads it")
    height, width, _ = image.shape
    if max(height, width) > MAX_ELONGATION * min(height, width):
        raise DataError(f"{where}: an image of {width}×{height} is too elongated (more than {MAX_ELONGATION} to 1)")
    return image


def _size(data: bytes) -> tuple[int, int]:
    """Width and height that the header of a JPEG or PNG claims, the largest if there are several; (0, 0): none."""
    if data.startswith(b"\x89PNG"):
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    size, at = (0, 0), 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):  # decoders, too, skip to the next marker
        marker = data[at + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:  # without a length
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xDA:  # the pixels begin
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
            size = max(size, (width, height), key=lambda sides: sides[0] * sides[1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return size


def _decode(data: bytes) -> np.ndarray | None:
    # simplejpeg knows neither PNG nor EXIF, whose orientation cv2 obeys.
    if simplejpeg and data.startswith(b"\xff\xd8") and data.find(b"Exif\0\0", 0, 4096) < 0:
        try:
            return simplejpeg.decode_jpeg(data, "RGB", strict=False)  # warnings pass, as they do in cv2
        except ValueError:
            pass  # cv2 has the last word
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1])


def evaluation_indices(
    n_stored: int, size_frame: int, repeat_frames: bool = False, where: str = "a video"
) -> list[int]:
    """Indices of `size_frame` frames spread over all that are stored, first and last included.

    Raises:
        DataError: fewer are stored than asked for, and `repeat_frames` does not let the last be repeated.
    """
    return _repeated(n_stored, size_frame, repeat_frames, where) or _evenly(0, n_stored - 1, size_frame)


def training_indices(
    n_stored: int, size_frame: int, start: int, repeat_frames: bool = False, where: str = "a video"
) -> list[int]:
    """Indices of clip `start`, one of `number_of_clips`: frames that many apart, from frame `start` on.

    Raises:
        DataError: as for `evaluation_indices`.
    """
    stride = number_of_clips(n_stored, size_frame)
    end = min(start + (size_frame - 1) * stride, n_stored - 1)
    return _repeated(n_stored, size_frame, repeat_frames, where) or _evenly(start, end, size_frame)


def number_of_clips(n_stored: int, size_frame: int) -> int:
    """How many different clips of `size_frame` frames training draws from: ⌈stored / size_frame⌉."""
    return math.ceil(n_stored / size_frame)


def _repeated(n_stored: int, size_frame: int, repeat_frames: bool, where: str) -> list[int]:
    """All stored frames with the last one repeated where they are too few, else nothing."""
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
