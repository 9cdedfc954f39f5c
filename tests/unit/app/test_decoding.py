"""Clips are decoded in a process of their own, within limits; a clip that breaks it gives one line."""

import dataclasses
import os
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lavender.app.decoding import Decoder, Limits, _answers
from lavender.data.frames import MAX_PIXELS
from lavender.data.video_seek import read_frames
from lavender.runtime.errors import DataError
from tests.unit.prepare.clip_world import write_video

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(Limits())
    yield decoder
    decoder.close()


@pytest.fixture
def within(decoder: Decoder) -> Iterator:
    """`within(seconds=1)`: the decoder with other limits."""
    limits = decoder.limits

    def change(**values: float) -> Decoder:
        decoder.limits = dataclasses.replace(limits, **values)
        return decoder

    yield change
    decoder.limits = limits


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 1024 * number, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_large(path: Path, width: int, height: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def test_the_frames_are_those_of_a_predictor(decoder: Decoder, tmp_path: Path):
    clip = write_video(tmp_path / "a.mp4", frames=30)
    frames = decoder.frames(clip, 5)
    assert np.array_equal(frames, np.stack(read_frames(clip, 5, range(5), MAX_PIXELS)))
    assert frames.shape == (5, 48, 64, 3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.mp4", b"this is no video\n" * 50, ["no video"]),
        ("zero.mp4", b"", ["own.mp4"]),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", ["own.mp4"]),
        ("list.mkv", b"ffconcat version 1.0\nfile '/etc/passwd'\n", ["own.mp4"]),
    ],
)
def test_what_is_no_video(decoder: Decoder, tmp_path: Path, name: str, content: bytes, words: list[str]):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        decoder.frames(tmp_path / name, 4, "own.mp4")
    assert [word for word in [*words, "own.mp4"] if word not in str(caught.value)] == []
    assert str(tmp_path) not in str(caught.value)


def test_a_playlist_opens_no_other_file(decoder: Decoder, tmp_path: Path):
    clip = write_video(tmp_path / "secret.mp4")
    for name, text in (
        ("list.mp4", f"#EXTM3U\n#EXTINF:1,\n{clip}\n"),
        ("list.mkv", f"ffconcat version 1.0\nfile {clip}\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError):
            decoder.frames(tmp_path / name, 4)


def test_a_cut_file_and_sound_alone(decoder: Decoder, tmp_path: Path):
    clip = write_video(tmp_path / "a.mp4", frames=30)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:600])
    with pytest.raises(DataError, match=r"cut\.mp4"):
        decoder.frames(tmp_path / "cut.mp4", 4)
    with pytest.raises(DataError, match="no video stream"):
        decoder.frames(write_sound(tmp_path / "sound.mp4"), 4)


def test_the_limits(within, tmp_path: Path):
    clip = write_video(tmp_path / "a.mp4", frames=50)
    with pytest.raises(DataError, match=r"2 seconds.*at most 1 "):
        within(seconds=1).frames(clip, 4)
    with pytest.raises(DataError, match=r"50 frames.*at most 40"):
        within(frames=40).frames(clip, 4)
    with pytest.raises(DataError, match="64×48"):
        within(pixels=1000).frames(clip, 4)
    with pytest.raises(DataError, match=r"longer than 0\.01 seconds"):
        within(wait=0.01).frames(clip, 4)
    assert within().frames(clip, 4).shape == (4, 48, 64, 3)


def test_frames_of_8k(within, tmp_path: Path):
    clip = write_large(tmp_path / "8k.mp4", 7680, 4320)
    with pytest.raises(DataError, match="larger than --max_pixels"):
        within().frames(clip, 4)
    with pytest.raises(DataError, match="memory"):  # the page of an operator who allows them still holds
        within(pixels=7680 * 4320, memory=700).frames(clip, 8)


def test_a_process_that_is_killed(decoder: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = write_video(tmp_path / "a.mp4")
    decoder.prepare()
    assert decoder._ready is not None
    decoder._ready.stdin.close()  # it ends without an answer
    decoder._ready.wait(60)
    assert decoder.frames(clip, 2).shape[0] == 2  # one that has ended is noticed
    decoder._ready.kill()
    monkeypatch.setattr(decoder, "prepare", lambda: None)  # not noticed: killed while it works
    with pytest.raises(DataError, match=r"a\.mp4: decoding failed"):
        decoder.frames(clip, 2)
    monkeypatch.undo()
    assert decoder.frames(clip, 2).shape[0] == 2


def test_several_clips(decoder: Decoder, tmp_path: Path):
    clips = [write_video(tmp_path / f"{number}.mp4", grey=20 * number) for number in range(3)]
    first, gone, last = decoder.each([clips[0], tmp_path / "gone.mp4", clips[2]], 1)
    assert isinstance(gone, DataError)
    assert np.array_equal(first[0], read_frames(clips[0], 1, [0], MAX_PIXELS)[0])
    assert np.array_equal(last[0], read_frames(clips[2], 1, [0], MAX_PIXELS)[0])
    assert decoder.each([], 1) == []


def test_nothing_is_left_running(tmp_path: Path):
    decoder = Decoder(Limits())
    decoder.prepare()
    process = decoder._ready
    decoder.close()
    assert process is not None
    assert process.poll() is not None


def test_it_takes_no_secrets_along(decoder: Decoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    decoder.close()
    decoder.prepare()
    assert decoder._ready is not None
    environment, deadline = b"", time.monotonic() + 30
    while not environment and time.monotonic() < deadline:  # empty until it has started
        environment = Path(f"/proc/{decoder._ready.pid}/environ").read_bytes()
    assert b"PYTHONPATH" in environment
    assert b"HF_TOKEN" not in environment
    assert "HF_TOKEN" in os.environ


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"nonsense\n",
        b'{"shape": [1, 2]}\n',
        b'{"shape": [1, 2, 2, 3]}\nabc',
        b'{"shape": [-1, -2, 2, 3]}\nabc',
        b"[]\n",
    ],
)
def test_what_is_no_answer(output: bytes):
    assert _answers(output) == []
