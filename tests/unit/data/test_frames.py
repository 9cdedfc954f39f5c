import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavender.data import frames
from lavender.data.frames import decode_image, evaluation_indices, number_of_clips, training_indices
from lavender.data.tsv import TSVReader, split_columns
from lavender.runtime.errors import DataError

KIT = Path(__file__).parents[2] / "conformance" / "kit"


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def field(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))


@pytest.fixture(params=["quick", "substitutes"])
def _decoders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Both sets of libraries: with simplejpeg and pybase64, and without."""
    if request.param == "substitutes":
        monkeypatch.setattr(frames, "simplejpeg", None)
        monkeypatch.setattr(frames, "b64decode", base64.b64decode)


pytestmark = pytest.mark.usefixtures("_decoders")


@pytest.mark.parametrize("video", [0, 2, 5])
def test_pixels_equal_the_kit(video: int):
    _, _, stored = split_columns(TSVReader(KIT / "data" / "img_toy.tsv").row(video), "")
    expected = np.load(KIT / "cases" / f"transform_vid{video}.npz")["decoded"]
    image = decode_image(stored[0], "")
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_becomes_rgb(noise: Image.Image, mode: str, progressive: bool):
    data = encoded(noise.convert(mode), "JPEG", progressive=progressive)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    image = decode_image(field(data), "")
    assert image.shape == (30, 40, 3)
    assert np.abs(image - expected).max() <= (1 if mode == "CMYK" else 0)


def test_exif_orientation_is_obeyed(noise: Image.Image):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    assert decode_image(field(encoded(noise, "JPEG", exif=exif)), "").shape == (40, 30, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_every_cut_is_noticed(noise: Image.Image, kind: str):
    data = encoded(noise, kind)
    decode_image(field(data), "")
    decode_image(field(data + b"trailing"), "")
    for length in [0, 1, 3, 10, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 9]:
        with pytest.raises(DataError, match=r"x\.tsv, line 3: "):
            decode_image(field(data[:length]), "x.tsv, line 3")
    for length in range(1, 4):  # a line that was cut inside the base64
        with pytest.raises(DataError, match=r"x\.tsv, line 3: "):
            decode_image(field(data)[: -length - 40], "x.tsv, line 3")


@pytest.mark.parametrize("garbage", ["", "hello world", "/9j/\n", "/9j/é", "/9j/AAAA", "iVBORw0KGgoA", "R0lGODlh"])
def test_garbage_is_refused_where_it_stands(garbage: str):
    with pytest.raises(DataError, match=r"^there: "):
        decode_image(garbage, "there")


@pytest.mark.usefixtures("_decoders")
def test_image_bombs_are_refused_by_their_header(noise: Image.Image, monkeypatch: pytest.MonkeyPatch):
    exif = Image.Exif()
    exif[0x010E] = "words"
    jpegs = [encoded(noise, "JPEG"), encoded(noise, "JPEG", exif=exif), encoded(noise, "JPEG", progressive=True)]
    files = [(data, b"\x00\x1e\x00\x28", b"\x75\x30\x75\x31") for data in jpegs]
    files.append((encoded(noise, "PNG"), bytes([0, 0, 0, 40, 0, 0, 0, 30]), bytes([0, 0, 117, 49, 0, 0, 117, 48])))
    for data, size, claimed in files:
        assert decode_image(field(data), "there").shape == (30, 40, 3)
        bomb = data.replace(size, claimed, 1)
        assert bomb != data
        with monkeypatch.context() as patch:
            patch.setattr(frames, "_decode", lambda _: pytest.fail("the bomb is decoded"))
            with pytest.raises(DataError, match="there: an image of 30001×30000 is too large"):
                decode_image(field(bomb), "there")
    progressive = jpegs[-1]
    scan = progressive.rindex(b"\xff\xda")
    bomb = progressive[:scan] + progressive[scan:-2] * 300 + progressive[-2:]
    with pytest.raises(DataError, match="there: the JPEG has more than 200 scans"):
        decode_image(field(bomb), "there")


def test_damaged_png_and_elongated_image_are_refused(noise: Image.Image):
    data = bytearray(encoded(noise, "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="there: the image is damaged"):
        decode_image(field(bytes(data)), "there")
    assert decode_image(field(encoded(Image.new("RGB", (100, 1)), "PNG")), "").shape == (1, 100, 3)
    with pytest.raises(DataError, match="there: an image of 101×1 is too elongated"):
        decode_image(field(encoded(Image.new("RGB", (101, 1)), "PNG")), "there")


def test_indices_of_a_few_known_cases():
    assert evaluation_indices(10, 4) == [0, 3, 6, 9]
    assert evaluation_indices(6, 1) == [2]
    assert [training_indices(5, 4, start) for start in range(number_of_clips(5, 4))] == [[0, 1, 3, 4], [1, 2, 3, 4]]
    assert json.dumps(training_indices(32, 4, 7)) == "[7, 15, 23, 31]"


def test_too_few_frames():
    for select in (evaluation_indices, lambda *a, **k: training_indices(a[0], a[1], 0, *a[2:], **k)):
        with pytest.raises(DataError, match=r"x\.tsv, line 1: 5 frames are asked for, 3 are stored"):
            select(3, 5, where="x.tsv, line 1")
        assert select(3, 5, True) == [0, 1, 2, 2, 2]
        with pytest.raises(DataError, match="0 are stored"):
            select(0, 5, True)
    assert number_of_clips(3, 5) == 1
