"""Videos as phones, broken disks and attackers write them."""

import logging
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lavender.data.video import sample_frames
from lavender.runtime.errors import DataError

av = pytest.importorskip("av")


def write_clip(
    path: Path, *, rotation: int = 0, aspect: Fraction | None = None, codec: str = "libx264", **options
) -> Path:
    """40 frames of 64x48; frame i has the grey level 5*i, its upper left corner is white."""
    times = options.pop("times", range(40))
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "10"})
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, time in enumerate(times):
            picture = np.full((48, 64, 3), 5 * number, np.uint8)
            picture[:16, :16] = 255
            picture[16:36, 50:60] = np.random.default_rng(number).integers(0, 200, (20, 10, 3))  # fills the file
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [round(float(frame[20:44, 20:44].mean()) / 5) for frame in frames]


@pytest.mark.parametrize(
    ("rotation", "shape", "corner"),
    [(0, (48, 64), (0, 0)), (90, (64, 48), (1, 0)), (180, (48, 64), (1, 1)), (-90, (64, 48), (0, 1))],
)
def test_rotated_clips_are_upright(tmp_path: Path, rotation: int, shape: tuple, corner: tuple):
    """A display matrix of 90 degrees turns counterclockwise: the upper left corner comes to the lower left."""
    (frame,) = sample_frames(write_clip(tmp_path / "a.mp4", rotation=rotation), 1)
    assert frame.shape == (*shape, 3)
    for row in (0, 1):
        for column in (0, 1):
            patch = frame[row * (shape[0] - 12) :, column * (shape[1] - 12) :][:12, :12]
            assert (patch.mean() > 220) == ((row, column) == corner)


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Writes (p, q) → (ap+cq, bp+dq) into the header of the only track of an MP4."""
    data, matrix = path.read_bytes(), (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    at = data.index(b"tkhd") + 44
    path.write_bytes(data[:at] + struct.pack(">9i", *matrix) + data[at + 36 :])


ORIENTATIONS = [(x, 0, 0, y) for x in (1, -1) for y in (1, -1)] + [(0, x, y, 0) for x in (1, -1) for y in (1, -1)]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_mirrored_and_turned_clips_are_as_a_player_shows_them(tmp_path: Path, matrix: tuple[int, int, int, int]):
    """Every pixel is where the matrix sends it."""
    path = write_clip(tmp_path / "a.mp4")
    plain = sample_frames(path, 1)[0].astype(int)
    set_display_matrix(path, *matrix)
    a, b, c, d = matrix
    shown = sample_frames(path, 1)[0].astype(int)
    rows, columns = np.mgrid[:48, :64] * 2 - np.array([47, 63])[:, None, None]  # doubled, from the middle
    x, y = a * columns + c * rows, b * columns + d * rows
    np.testing.assert_array_equal(shown[(y - y.min()) // 2, (x - x.min()) // 2], plain)


@pytest.mark.parametrize("aspect", [Fraction(2, 1), Fraction(1, 2)])
def test_pixels_become_square(tmp_path: Path, aspect: Fraction):
    (frame,) = sample_frames(write_clip(tmp_path / "a.mp4", aspect=aspect), 1)
    assert frame.shape == (48, 64 * aspect, 3)
    (frame,) = sample_frames(write_clip(tmp_path / "b.mp4", aspect=aspect, rotation=90), 1)
    assert frame.shape == (64 * aspect, 48, 3)


@pytest.mark.parametrize(
    "manifest",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
        "file '{}'\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
        "<Representation><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.m3u8", "clip.ffconcat", "clip.mpd"])
def test_playlists_are_refused(tmp_path: Path, manifest: str, name: str):
    other = write_clip(tmp_path / "other.ts", codec="mpeg2video")
    for target in (other.name, f"file://{other}"):
        (tmp_path / name).write_text(manifest.format(target))
        with pytest.raises(DataError, match=name):
            sample_frames(tmp_path / name, 1)


@pytest.mark.parametrize("name", ["concat:a.mp4|b.mp4", "a%03d.mp4", "file:c.mp4", "http:d.mp4"])
def test_a_name_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "a.mp4").rename(name)
    assert numbers(sample_frames(name, 1)) == [20]


def test_a_damaged_packet_costs_its_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write_clip(tmp_path / "a.avi", codec="mjpeg")
    data = path.read_bytes()
    chunks = [i for i in range(data.index(b"movi"), data.index(b"idx1")) if data.startswith(b"00dc", i)]
    assert len(chunks) == 40
    with caplog.at_level(logging.WARNING):
        assert numbers(sample_frames(path, 5)) == [6, 13, 20, 26, 33]
    assert not caplog.text
    path.write_bytes(data[: chunks[5] + 8] + bytes(chunks[6] - chunks[5] - 8) + data[chunks[6] :])
    with caplog.at_level(logging.WARNING):
        assert numbers(sample_frames(path, 5)) == [7, 14, 20, 27, 33]  # of the 39 others
    assert "a.avi: 39 of about 40 frames" in caplog.text
    with pytest.raises(DataError, match=r"a\.avi: only 39 of about 40"):
        sample_frames(path, 5, min_decoded=0.99)


@pytest.mark.parametrize(
    ("name", "options"), [("a.avi", {"codec": "mpeg4"}), ("a.mkv", {}), ("a.mp4", {"movflags": "faststart"})]
)
def test_a_cut_file_says_what_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, options: dict):
    path = write_clip(tmp_path / name, **options)
    whole = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        sample_frames(path, 3)
    assert not caplog.text
    path.write_bytes(whole[: len(whole) * 7 // 10])
    with caplog.at_level(logging.WARNING):
        found = numbers(sample_frames(path, 3, min_decoded=0.1))
    assert all(abs(number - expected) <= 1 for number, expected in zip(found, (7, 13, 20), strict=True))  # of some 27
    assert f"{name}: " in caplog.text
    assert "missing" in caplog.text
    with pytest.raises(DataError, match=name):
        sample_frames(path, 3, min_decoded=0.95)


@pytest.mark.parametrize("count", [2, 7, 30])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.flv", "flv1"), ("b.flv", "libx264"), ("a.wmv", "wmv2"), ("a.mkv", "libx264"), ("a.ts", "libx264")],
)
def test_of_a_short_whole_clip_nothing_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, codec: str, count: int
):
    """FLV and ASF say no length of their last frame, and FLV counts its duration from 0, wherever the clip begins."""
    path = write_clip(tmp_path / name, codec=codec, times=range(count))
    with caplog.at_level(logging.WARNING):
        assert numbers(sample_frames(path, 1, min_decoded=1)) == [count // 2]
    assert not caplog.text


@pytest.mark.parametrize("share", [0.7, 0.97])
@pytest.mark.parametrize(("name", "options"), [("a.mp4", {"movflags": "faststart"}), ("a.flv", {}), ("a.mkv", {})])
def test_frames_of_a_cut_file_do_not_depend_on_the_threads(tmp_path: Path, name: str, options: dict, share: float):
    """All that one thread decodes are used: those of the packets that are whole."""
    path = write_clip(tmp_path / name, **options)
    path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    one = numbers(sample_frames(path, 40, threads=1))
    total = one[-1] + 1
    assert 20 <= total < 40
    assert one == [int(total / 41 * (i + 1)) for i in range(40)]
    for threads in (2, 4, 8):
        assert numbers(sample_frames(path, 40, threads=threads)) == one


def test_spread_over_time(tmp_path: Path):
    """20 frames in the first 20/25 s, 20 more a second apart."""
    path = write_clip(tmp_path / "a.mp4", times=[*range(20), *range(25, 525, 25)])
    assert numbers(sample_frames(path, 3)) == [10, 20, 30]
    assert numbers(sample_frames(path, 3, spread="time")) == [24, 29, 34]
    path = write_clip(tmp_path / "b.mp4")
    assert numbers(sample_frames(path, 3, spread="time")) == numbers(sample_frames(path, 3))
