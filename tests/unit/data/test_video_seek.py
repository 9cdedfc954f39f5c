"""Frames that are sought are those of a decode from the start; where that is not sure, that decode gives them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavender.data import video_seek
from lavender.data.frames import MAX_PIXELS
from lavender.data.video import ClipBytes, sample_frames
from lavender.data.video_seek import _turns, _units, read_frames

av = pytest.importorskip("av")


def write_moving(path: Path, codec: str = "libx264", frames: int = 150, **options: str) -> Path:
    """A noisy picture that moves, so that no frame is another one's copy and each needs the ones before it."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 128, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 300_000
        for number in range(frames):
            picture = np.ascontiguousarray(noise[:, 3 * number % 64 :][:, :64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def sought(path: Any, count: int, numbers: Sequence[int]) -> dict[int, np.ndarray] | None:
    return video_seek._by_seeking(path, count, numbers, MAX_PIXELS)


def check_same(found: Sequence[np.ndarray], plain: Sequence[np.ndarray], numbers: Sequence[int]) -> None:
    assert len(found) == len(numbers)
    for frame, number in zip(found, numbers, strict=True):
        np.testing.assert_array_equal(frame, plain[number])


SURE = {
    "b-frames.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "one group.mp4": ("libx264", {"g": "1000"}),
    "slices.mov": ("libx264", {"g": "20", "x264-params": "slices=4:bframes=2:ref=6:b-pyramid=normal"}),
    "matroska.mkv": ("libx264", {"g": "25", "bf": "2"}),
    "open groups.mp4": ("libx264", {"g": "20", "x264-params": "open-gop=1:bframes=3"}),
    "refresh.mp4": ("libx264", {"g": "20", "x264-params": "intra-refresh=1"}),
    "every one.mp4": ("libx264", {"g": "1"}),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=20:min-keyint=20:bframes=3:log-level=none"}),
    "led hevc.mp4": (
        "libx265",
        {"x265-params": "keyint=20:min-keyint=20:open-gop=0:radl=2:bframes=4:b-adapt=0:log-level=none"},
    ),
    "open hevc.mkv": ("libx265", {"x265-params": "keyint=20:min-keyint=20:open-gop=1:bframes=4:log-level=none"}),
}
UNSURE = {
    "stream.ts": ("libx264", {"g": "12"}),
    "old.avi": ("mpeg4", {"g": "12"}),
    "other.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "web.webm": ("libvpx-vp9", {"g": "12"}),
}


SLOW = ("led hevc.mp4", "open hevc.mkv", "open groups.mp4", "slices.mov")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in SURE]
)
def test_sought_frames_are_the_same(tmp_path: Path, name: str):
    codec, options = SURE[name]
    path = write_moving(tmp_path / name, codec, frames=60, **options)
    for count in (1, 5, 11, 80):
        plain = sample_frames(path, count, threads=1)
        for numbers in ([*range(count)], [count - 1], [count // 2, 0, count // 2]):
            found = sought(path, count, numbers)
            assert found is not None
            check_same([found[number] for number in numbers], plain, numbers)
            check_same(read_frames(ClipBytes(path.read_bytes(), "x"), count, numbers, MAX_PIXELS), plain, numbers)


@pytest.mark.parametrize("name", UNSURE)
def test_other_formats_are_decoded_from_the_start(tmp_path: Path, name: str):
    codec, options = UNSURE[name]
    path = write_moving(tmp_path / name, codec, **options)
    assert sought(path, 5, [0, 4]) is None
    check_same(read_frames(path, 5, [4, 0, 4], MAX_PIXELS), sample_frames(path, 5, threads=1), [4, 0, 4])


def test_few_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_moving(tmp_path / "a.mp4", g="10", bf="0", sc_threshold="0")
    decoded: list[int] = []
    plain = video_seek._from

    def count(*words: Any):
        for frame in plain(*words):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_seek, "_from", count)
    monkeypatch.setattr(video_seek, "sample_frames", lambda *_, **__: pytest.fail("it is decoded from the start"))
    read_frames(path, 5, [0, 1, 2, 3, 4], MAX_PIXELS)  # frames 25, 50, 75, 100, 125
    assert len(decoded) == 6 + 1 + 6 + 1 + 6


def packet_places(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("harm", ["zeros", "cut", "noise"])
def test_a_damaged_file(tmp_path: Path, harm: str):
    """Damage in what is decoded, or that the packets show, is dealt with as it is without seeking."""
    path = write_moving(tmp_path / "a.mkv", g="10", bf="0", sc_threshold="0")
    data = bytearray(path.read_bytes())
    place, size = packet_places(path)[25]  # frame 0 of the 5
    if harm == "zeros":
        data[place + 20 : place + size] = bytes(size - 20)
    elif harm == "noise":
        data[place + 40 : place + size] = np.random.default_rng(1).bytes(size - 40)
    else:
        del data[len(data) * 2 // 3 :]
    path.write_bytes(data)
    plain = sample_frames(path, 5, threads=1)
    check_same(read_frames(path, 5, [0, 1, 2, 3, 4], MAX_PIXELS), plain, [0, 1, 2, 3, 4])


def test_frames_outside_the_edit_list(tmp_path: Path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(60):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * number, np.uint8), format="rgb24")
            frame.pts = number - 15
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert sought(path, 5, [0]) is None
    check_same(read_frames(path, 5, [0, 4], MAX_PIXELS), sample_frames(path, 5, threads=1), [0, 4])


def test_larger_frames_than_allowed_are_refused_alike(tmp_path: Path):
    path = write_moving(tmp_path / "a.mp4", g="10")
    with pytest.raises(video_seek.DataError, match=r"a\.mp4.*max_pixels 100"):
        read_frames(path, 5, [0], 100)


def test_units_of_a_packet():
    assert _units(b"\0\x02ab\0\x01c", 2) == [b"ab", b"c"]
    for broken in (b"\0\x02ab\0\x02c", b"\0\x02ab\0", b"\0\0\0\0\0"):
        assert b"" in _units(broken, 2), broken


def test_messages_that_turn_the_picture():
    assert _turns(bytes([47, 2, 1, 2, 0x80]))
    assert _turns(bytes([5, 3, 47, 47, 47, 47, 1, 0, 0x80]))
    assert not _turns(bytes([5, 3, 47, 2, 0, 6, 1, 0, 0x80]))
    assert _turns(bytes([5, 255, 3, *[0] * 258, 47, 0, 0x80]))
