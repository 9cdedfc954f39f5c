"""Transparent pixels of a PNG are white, in whatever way the file says which they are."""

import struct
import zlib

import numpy as np
import pytest

from lavender.data.frames import decode_bytes

GREY, COLOUR, PALETTE = 0, 2, 3


def png(kind: int, bits: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """8 by 4 pixels of equal rows."""
    content = [(b"IHDR", struct.pack(">IIBBBBB", 8, 4, bits, kind, 0, 0, 0)), *chunks]
    content += [(b"IDAT", zlib.compress(4 * (b"\0" + row))), (b"IEND", b"")]
    parts = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in content)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("kind", "bits", "row", "shade", "left", "right"),
    [
        (GREY, 8, bytes([10] * 4 + [200] * 4), (10,), 10, 200),
        (GREY, 16, struct.pack(">8H", *[0x0A33] * 4, *[0xC811] * 4), (0x0A33,), 10, 200),
        (GREY, 4, bytes([0x33, 0x33, 0xCC, 0xCC]), (3,), 51, 204),
        (GREY, 2, bytes([0x55, 0xFF]), (1,), 85, 255),
        (GREY, 1, bytes([0x0F]), (0,), 0, 255),
        (COLOUR, 8, bytes([10, 10, 10] * 4 + [200, 200, 200] * 4), (10, 10, 10), 10, 200),
    ],
)
def test_the_transparent_shade(kind: int, bits: int, row: bytes, shade: tuple, left: int, right: int):
    opaque = decode_bytes(png(kind, bits, row), "there")
    assert (opaque[:, :4] == left).all()
    assert (opaque[:, 4:] == right).all()
    image = decode_bytes(png(kind, bits, row, (b"tRNS", struct.pack(f">{len(shade)}H", *shade))), "there")
    assert image.shape == (4, 8, 3)
    assert (image[:, :4] == 255).all()
    assert (image[:, 4:] == right).all()


def test_a_shade_of_16_bits_is_compared_in_full():
    row = struct.pack(">8H", *[0x0A33] * 4, *[0x0A34] * 4)
    image = decode_bytes(png(GREY, 16, row, (b"tRNS", struct.pack(">H", 0x0A34))), "there")
    np.testing.assert_array_equal(image[0, :, 0], [10] * 4 + [255] * 4)


@pytest.mark.parametrize("shade", [b"", b"\0", b"\0\1\2"])
def test_a_broken_shade_changes_nothing(shade: bytes):
    image = decode_bytes(png(GREY, 8, bytes(8), (b"tRNS", shade)), "there")
    assert (image == 0).all()


def test_a_palette_with_a_transparent_entry():
    chunks = ((b"PLTE", bytes([255, 0, 0, 0, 255, 0])), (b"tRNS", bytes([0])))
    image = decode_bytes(png(PALETTE, 1, bytes([0x0F]), *chunks), "there")
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 7].tolist() == [0, 255, 0]
