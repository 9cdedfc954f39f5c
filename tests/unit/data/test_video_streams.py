"""Videos of unusual streams, sizes and times."""

import base64
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lavender.data.video import extract_frames, sample_frames
from lavender.runtime.errors import DataError

av = pytest.importorskip("av")


def add(container, size: tuple[int, int] = (64, 48), codec: str = "libx264", format: str = "yuv420p", **options: str):
    stream = container.add_stream(codec, rate=25, options={"g": "10", **options})
    stream.width, stream.height = size
    stream.pix_fmt, stream.bit_rate = format, 4_000_000
    return stream


def packets(stream, times=range(40), offset: int = 0) -> Iterator:
    """Frame i has the grey level offset + 5*i; its upper left quarter is white."""
    for number, time in enumerate(times):
        picture = np.full((stream.height, stream.width, 3), offset + 5 * number, np.uint8)
        picture[: stream.height // 2, : stream.width // 2] = 255
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = time, Fraction(1, 25)
        yield from stream.encode(frame)
    yield from stream.encode()


def write(path: Path, *, times=range(40), container_options: dict | None = None, **stream) -> Path:
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.mux(packets(add(container, **stream), times))
    return path


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [round(float(frame[-frame.shape[0] // 3 :, -frame.shape[1] // 3 :].mean()) / 5) for frame in frames]


@pytest.mark.parametrize("spread", ["number", "time"])
@pytest.mark.parametrize("bf", ["0", "2"])
@pytest.mark.parametrize("g", ["10", "40"])
def test_an_edit_list_hides_the_start(tmp_path: Path, spread: str, bf: str, g: str):
    """Frames 0 to 9 are before time 0: a player shows 10 to 39."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}) as container:
        for packet in packets(add(container, bf=bf, g=g)):
            shift = round(Fraction(10, 25) / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            container.mux(packet)
    assert numbers(sample_frames(path, 5, spread=spread)) == [15, 20, 25, 30, 35]
    assert numbers(sample_frames(path, 30))[::29] == [10, 39]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("spread", ["number", "time"])
@pytest.mark.parametrize("flag", [True, False])
def test_a_cover_picture_is_not_the_video(tmp_path: Path, name: str, spread: str, flag: bool):
    with av.open(str(tmp_path / name), "w") as container:
        cover = add(container, (320, 240), "mjpeg", "yuvj420p")
        if flag:
            cover.disposition = av.stream.Disposition.attached_pic
        else:
            cover.disposition = av.stream.Disposition.default
        film = add(container)
        container.mux(packets(cover, [0]))
        container.mux(packets(film))
    frames = sample_frames(tmp_path / name, 5, spread=spread)
    assert numbers(frames) == [6, 13, 20, 26, 33]
    assert frames[0].shape == (48, 64, 3)


@pytest.mark.parametrize("cover", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_alone(tmp_path: Path, name: str, cover: bool):
    with av.open(str(tmp_path / name), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        if cover and name == "a.mp4":
            picture = add(container, codec="mjpeg", format="yuvj420p")
            picture.disposition = av.stream.Disposition.attached_pic
        elif cover:
            container.add_attachment("cover.jpg", "image/jpeg", base64.b64decode(jpeg(tmp_path)))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
        if cover and name == "a.mp4":
            container.mux(packets(picture, [0]))
    with pytest.raises(DataError, match=rf"{name} has no video stream"):
        sample_frames(tmp_path / name, 3)


def jpeg(folder: Path) -> str:
    return extract_frames(write(folder / "still.avi", codec="mjpeg", format="yuvj420p", times=[0]), 1)[0]


def test_of_several_streams_the_default_or_the_one_with_packets(tmp_path: Path):
    for chosen in (0, 1):
        path = tmp_path / f"{chosen}.mkv"
        with av.open(str(path), "w") as container:
            streams = [add(container), add(container)]
            streams[chosen].disposition = av.stream.Disposition.default
            container.mux(packets(streams[0]))
            container.mux(packets(streams[1], offset=5))
        assert numbers(sample_frames(path, 1)) == [20 + chosen]
    for name in ("a.mp4", "a.mkv"):
        with av.open(str(tmp_path / name), "w") as container:
            add(container).disposition = av.stream.Disposition.default  # it stays empty
            container.mux(packets(add(container)))
        assert numbers(sample_frames(tmp_path / name, 1)) == [20]


def test_streams_without_a_frame(tmp_path: Path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        add(container)
        container.start_encoding()
    with pytest.raises(DataError, match=r"a\.mkv"):
        sample_frames(tmp_path / "a.mkv", 3)


@pytest.mark.parametrize("spread", ["number", "time"])
def test_missing_times(tmp_path: Path, spread: str):
    assert numbers(sample_frames(write(tmp_path / "a.h264"), 5, spread=spread)) == [6, 13, 20, 26, 33]


def test_times_that_run_backwards(tmp_path: Path):
    """The same 20 times twice, as in two recordings joined: the clip is 40 frames long."""
    for name in ("a.ts", "b.ts"):
        write(tmp_path / name, codec="mpeg2video", times=range(20))
    path = tmp_path / "joined.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    plain = sample_frames(path, 3)
    np.testing.assert_array_equal(sample_frames(path, 3, spread="time"), plain)
    assert numbers(plain) == [10, 0, 10]


@pytest.mark.parametrize("spread", ["number", "time"])
@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_interlaced_frames_are_counted_once(tmp_path: Path, codec: str, spread: str):
    options = {"flags": "+ildct+ilme"} if codec == "mpeg2video" else {"x264-params": "interlaced=1"}
    frames = sample_frames(write(tmp_path / "a.ts", codec=codec, **options), 5, spread=spread)
    assert numbers(frames) == [6, 13, 20, 26, 33]
    assert frames[0].shape == (48, 64, 3)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("spread", ["number", "time"])
def test_odd_sizes_turned_and_with_wide_pixels(tmp_path: Path, rotation: int, spread: str):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = add(container, (63, 47), format="yuv444p")
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        if rotation:
            stream.set_display_rotation(rotation)
        container.mux(packets(stream))
    (frame,) = sample_frames(path, 1, spread=spread)
    assert frame.shape == ((84, 47, 3) if abs(rotation) == 90 else (47, 84, 3))
    rows, columns = {0: (0, 0), 90: (1, 0), 180: (1, 1), -90: (0, 1)}[rotation]
    for row in (0, 1):
        for column in (0, 1):
            patch = frame[row * (frame.shape[0] - 12) :, column * (frame.shape[1] - 12) :][:12, :12]
            assert (patch.mean() > 220) == ((row, column) == (rows, columns))


def test_large_frames_are_refused(tmp_path: Path):
    path = write(tmp_path / "a.mp4")
    assert len(sample_frames(path, 1, max_pixels=64 * 48)) == 1
    with pytest.raises(DataError, match=r"a\.mp4: .*64×48.*max_pixels 3071"):
        sample_frames(path, 1, max_pixels=64 * 48 - 1)
    odd = write(tmp_path / "odd.mp4", size=(63, 47), format="yuv444p")  # H.264 codes whole blocks of 16
    assert len(sample_frames(odd, 1, max_pixels=63 * 47)) == 1
    assert len(sample_frames(odd, 1, max_pixels=2**40)) == 1  # more than FFmpeg knows
    with av.open(str(path), "w") as container:  # square only after it is stretched
        stream = add(container)
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        container.mux(packets(stream))
    with pytest.raises(DataError, match=r"a\.mp4: .*64×48.*max_pixels 6143"):
        sample_frames(path, 1, max_pixels=128 * 48 - 1)


@pytest.mark.parametrize("every", [True, False])
def test_a_frame_larger_than_the_container_says(tmp_path: Path, every: bool):
    """JPEGs that claim 30000×30000 in an AVI of 64×48: they are damaged frames."""
    path = write(tmp_path / "a.avi", codec="mjpeg", format="yuvj420p")
    head, *frames = path.read_bytes().split(b"\xff\xd8\xff")
    size, claimed = b"\x00\x30\x00\x40\x03", b"\x75\x30\x75\x30\x03"
    assert all(frame.count(size) == 1 for frame in frames)
    frames = [frame.replace(size, claimed) if every or number == 20 else frame for number, frame in enumerate(frames)]
    path.write_bytes(b"\xff\xd8\xff".join([head, *frames]))
    if every:
        with pytest.raises(DataError, match=r"a\.avi"):
            sample_frames(path, 3)
    else:
        assert numbers(sample_frames(path, 3)) == [9, 19, 30]  # of the 39 others
