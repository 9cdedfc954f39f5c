"""What people hand over as a video."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavender.inference.clips import is_frames, open_video
from lavender.runtime.errors import DataError
from tests.unit.prepare.clip_world import write_video

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 12, 20, 3), np.uint8)
CHANNELS_FIRST = np.ascontiguousarray(FRAMES.transpose(0, 3, 1, 2))
IMAGES = [Image.fromarray(frame) for frame in FRAMES]


@pytest.mark.parametrize(
    "video",
    [
        FRAMES,
        CHANNELS_FIRST,
        torch.from_numpy(FRAMES),
        torch.from_numpy(CHANNELS_FIRST),
        list(FRAMES),
        tuple(CHANNELS_FIRST),
        list(torch.from_numpy(CHANNELS_FIRST)),
        IMAGES,
        [IMAGES[0], *FRAMES[1:]],
    ],
)
def test_frames_in_all_their_forms(video: Any):
    opened = open_video(video, "video 0", 5)
    assert len(opened) == 4
    for number, frame in enumerate(opened.frames(range(4))):
        assert (frame == FRAMES[number]).all()


def test_images_are_seen_as_files_are(tmp_path: Path):
    half = Image.fromarray(np.full((8, 6, 4), (10, 20, 30, 0), np.uint8))
    turned, exif = Image.new("RGB", (8, 6), "red"), Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    palette, grey = IMAGES[0].convert("P"), IMAGES[0].convert("L")
    turned = Image.open(tmp_path / "turned.jpg")
    frames = open_video([half, palette, grey, turned], "video 0", 5).frames(range(4))
    assert (frames[0] == 255).all()
    assert [frame.shape for frame in frames] == [(8, 6, 3), (12, 20, 3), (12, 20, 3), (8, 6, 3)]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_images_of_16_bits_are_seen_as_files_are(tmp_path: Path, byte_order: str):
    """The upper 8 bits, as of a PNG; Pillow itself would make white of all above 255."""
    deep = Image.fromarray(np.array([[0, 300, 40_000, 65_535]] * 3, f"{byte_order}u2"))
    deep.save(tmp_path / "deep.png")
    (frame,) = open_video([deep], "video 0", 5).frames([0])
    (stored,) = open_video(tmp_path / "deep.png", "deep", 5).frames([0])
    assert frame[0].tolist() == stored[0].tolist() == [[value] * 3 for value in (0, 1, 156, 255)]
    for mode in ("I", "F"):
        with pytest.raises(DataError, match=f"video 0: .*mode {mode} .*RGB"):
            open_video([Image.new(mode, (4, 4))], "video 0", 5)


@pytest.mark.parametrize(
    ("video", "words"),
    [
        ((frame for frame in FRAMES), ["generator", "list("]),
        (IMAGES[0], ["list of PIL images"]),
        (io.BytesIO(b"x"), ["BytesIO", "bytes"]),
        (None, ["NoneType", "path"]),
        (7, ["int"]),
        ([], ["list"]),
        (torch.from_numpy(FRAMES).float(), ["torch.float32", "uint8", "(T, 3, H, W)"]),
        (torch.zeros(4, 4, 20, 20, dtype=torch.uint8), ["(4, 4, 20, 20)"]),
        (FRAMES[0], ["(12, 20, 3)"]),
        (FRAMES[:0], ["(0, 12, 20, 3)"]),
        ([FRAMES[0], FRAMES[1].astype(np.float64)], ["float64", "(H, W, 3)"]),
        ("a" * 5000, ["too long"]),
    ],
)
def test_what_is_no_video(video: Any, words: list[str]):
    with pytest.raises(DataError) as caught:
        open_video(video, "video 0", 5)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_list_of_videos_is_none_of_frames():
    assert not is_frames([FRAMES, FRAMES])
    assert not is_frames(["a.mp4", FRAMES[0]])
    assert not is_frames([])
    assert not is_frames("abc")


def test_a_folder_of_videos(tmp_path: Path):
    write_video(tmp_path / "a.mp4")
    with pytest.raises(DataError, match="holds videos"):
        open_video(tmp_path, "video 0", 5)


KINDS = {  # extension → codec, pixel format
    "webm": ("libvpx-vp9", "yuv420p"),
    "gif": ("gif", "rgb8"),
    "mkv": ("libx264", "yuv420p"),
    "mov": ("mpeg4", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "MP4": ("libx264", "yuv420p"),
    "WebM": ("libvpx", "yuv420p"),
}


def write_kind(path: Path, codec: str, pixels: str) -> Path:
    """Twelve frames that grow lighter."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", format=path.suffix[1:].lower().replace("mkv", "matroska")) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for number in range(12):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(picture.reformat(format=pixels)))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("extension", "codec", "pixels"), [(name, *kind) for name, kind in KINDS.items()])
def test_containers(tmp_path: Path, extension: str, codec: str, pixels: str):
    path = write_kind(tmp_path / f"clip.{extension}", codec, pixels)
    for video in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        frames = open_video(video, "video 0", 3).frames(range(3))
        assert [frame.shape for frame in frames] == [(48, 64, 3)] * 3
        assert [round(float(frame.mean())) for frame in frames] == pytest.approx([60, 120, 180], abs=25)
