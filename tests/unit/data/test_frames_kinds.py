"""Images of every kind are read as a viewer shows them."""

import base64
import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from lavender.data import frames
from lavender.data.frames import decode_bytes, decode_image
from lavender.runtime.errors import DataError


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def smooth() -> Image.Image:
    """No two corners are alike, and JPEG keeps it well."""
    rows, columns = np.mgrid[:32, :48]
    return Image.fromarray(np.stack([rows * 7, columns * 5, 255 - rows * 3 - columns * 2], -1).astype(np.uint8))


LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "JPEG": {"quality": 95}}


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(monkeypatch: pytest.MonkeyPatch, smooth, kind: str, orientation: int, quick: bool):
    if not quick:
        monkeypatch.setattr(frames, "simplejpeg", None)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "words", orientation
    data = encoded(smooth, kind, exif=exif, **LOSSLESS[kind])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    image = decode_bytes(data, "there")
    assert image.shape == expected.shape == ((32, 48, 3) if orientation < 5 else (48, 32, 3))
    assert image.flags.c_contiguous
    assert np.abs(image - expected).max() <= (2 if kind == "WEBP" else 0)


@pytest.mark.parametrize("order", ["little", "big"])
def test_orientation_behind_other_segments_and_in_both_byte_orders(smooth: Image.Image, order: str):
    data = encoded(smooth, "JPEG", quality=95)
    upright = decode_bytes(data, "")
    head = b"II*\0" if order == "little" else b"MM\0*"
    numbers = [(8, 4), (1, 2), (0x0112, 2), (3, 2), (1, 4), (6, 2), (0, 2), (0, 4)]
    exif = b"Exif\0\0" + head + b"".join(value.to_bytes(size, order) for value, size in numbers)
    exif = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    other = b"\xff\xe2" + (60_002).to_bytes(2, "big") + b"ICC_PROFILE\0" + bytes(59_988)
    for filling in (b"", other, other * 3):
        turned = decode_bytes(data[:2] + filling + exif + data[2:], "")
        np.testing.assert_array_equal(turned, np.rot90(upright, -1))
    # The words alone, in a comment, say nothing; nor does a block that is cut, or an impossible orientation.
    for segment in (b"\xff\xfe" + exif[2:], exif[:2] + b"\0\x10" + exif[4:18], exif.replace(b"\6", b"\x63")):
        np.testing.assert_array_equal(decode_bytes(data[:2] + segment + data[2:], ""), upright)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_lossless_kinds_are_exact(smooth: Image.Image, kind: str):
    data = encoded(smooth, kind, **LOSSLESS[kind])
    np.testing.assert_array_equal(decode_image(base64.b64encode(data).decode(), ""), np.asarray(smooth))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_grey_and_palette(smooth: Image.Image, kind: str, mode: str):
    image = smooth.convert(mode)
    data = encoded(image, kind, **LOSSLESS[kind])
    np.testing.assert_array_equal(decode_bytes(data, ""), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_are_blended_with_white(kind: str):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[:, :, :3] = (200, 100, 0)
    pixels[:, :, 3] = (0, 51, 255)  # of the columns
    data = encoded(Image.fromarray(pixels), kind, **{**LOSSLESS[kind], **({"exact": True} if kind == "WEBP" else {})})
    assert decode_bytes(data, "")[1].tolist() == [[255, 255, 255], [244, 224, 204], [200, 100, 0]]


def test_transparency_of_grey_palette_and_16_bits():
    grey = np.dstack([np.full((2, 2), 100, np.uint8), np.full((2, 2), 51, np.uint8)])
    assert decode_bytes(encoded(Image.fromarray(grey, "LA"), "PNG"), "")[0, 0].tolist() == [224] * 3
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([9, 9, 9, 200, 100, 0])
    assert decode_bytes(encoded(palette, "PNG", transparency=1), "")[0, 0].tolist() == [255] * 3
    assert decode_bytes(encoded(palette, "PNG", transparency=0), "")[0, 0].tolist() == [200, 100, 0]
    deep = np.full((2, 2, 4), (0, 100 * 257, 200 * 257, 51 * 257), np.uint16)  # BGRA
    assert decode_bytes(cv2.imencode(".png", deep)[1].tobytes(), "")[0, 0].tolist() == [244, 224, 204]


def test_16_bits_become_the_upper_8():
    grey = Image.fromarray(np.full((2, 2), 200 * 256 + 17, np.uint16))
    assert decode_bytes(encoded(grey, "PNG"), "")[0, 0].tolist() == [200] * 3
    colours = np.full((2, 2, 3), (50 * 256 + 3, 100 * 256, 200 * 256 + 99), np.uint16)  # BGR
    assert decode_bytes(cv2.imencode(".png", colours)[1].tobytes(), "")[0, 0].tolist() == [200, 100, 50]


def test_rows_of_a_bmp_from_the_top(smooth: Image.Image):
    data = bytearray(encoded(smooth, "BMP"))
    data[22:26] = (-32).to_bytes(4, "little", signed=True)
    np.testing.assert_array_equal(decode_bytes(bytes(data), ""), np.asarray(smooth)[::-1])


def test_animations(smooth: Image.Image):
    more = {"save_all": True, "append_images": [smooth.rotate(180)]}
    with pytest.raises(DataError, match=r"there: .*WebP.*animated"):
        decode_bytes(encoded(smooth, "WEBP", **more), "there")
    with pytest.raises(DataError, match=r"there: .*GIF.*video"):
        decode_bytes(encoded(smooth, "GIF", **more), "there")
    np.testing.assert_array_equal(decode_bytes(encoded(smooth, "PNG", **more), ""), np.asarray(smooth))


@pytest.mark.parametrize("kind", ["WEBP", "BMP"])
def test_every_cut_is_noticed(smooth: Image.Image, kind: str):
    data = encoded(smooth, kind, **LOSSLESS[kind])
    for length in [1, 3, 10, 29, len(data) // 3, len(data) // 2, len(data) - 9, len(data) - 2]:
        with pytest.raises(DataError, match="there: "):
            decode_bytes(data[:length], "there")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("PNG", {}), ("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"II*\0"})],
)
def test_max_pixels(monkeypatch: pytest.MonkeyPatch, smooth: Image.Image, kind: str, options: dict):
    data = encoded(smooth, kind, **options)
    assert decode_bytes(data, "there", 32 * 48).shape == (32, 48, 3)
    monkeypatch.setattr(frames, "_decode", lambda _: pytest.fail("it is decoded"))
    with pytest.raises(DataError, match=r"there: .*48×32.* max_pixels 1535"):
        decode_bytes(data, "there", 32 * 48 - 1)
