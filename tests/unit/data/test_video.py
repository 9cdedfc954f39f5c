import base64
import io
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavender.data import video
from lavender.data.video import encode_jpeg, extract_frames, sample_frames
from lavender.data.video_processes import in_processes
from lavender.runtime.errors import DataError

av = pytest.importorskip("av")


def write_clip(path: Path, frames: int, codec: str = "libx264", **options: str) -> Path:
    """A clip whose frame i has the grey level 5·i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 4_000_000
        for number in range(frames):
            picture = np.full((48, 64, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbers(frames: list[np.ndarray]) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in frames]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264")])
@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(40, 5, [6, 13, 20, 26, 33]), (40, 1, [20]), (6, 5, [1, 2, 3, 4, 5]), (3, 5, [0, 1, 1, 2, 2]), (1, 3, [0, 0, 0])],
)
def test_frames_are_those_of_the_original_tool(tmp_path: Path, name, codec, total, count, expected):
    frames = sample_frames(write_clip(tmp_path / name, total, codec), count)
    assert frames[0].shape == (48, 64, 3)
    assert numbers(frames) == expected
    assert expected == [int(total / (count + 1) * (i + 1)) for i in range(count)]


def test_frames_the_decoder_holds_back_are_not_lost(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", 30, bf="3", g="30")
    assert numbers(sample_frames(path, 29))[-1] == 29
    assert numbers(sample_frames(path, 29, threads=1)) == numbers(sample_frames(path, 29, threads=4))


@pytest.mark.parametrize("guess", [0, 1, 39, 41, 100])
def test_a_wrong_guess_of_the_length_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guess: int):
    path = write_clip(tmp_path / "a.mp4", 40)
    monkeypatch.setattr(video, "survey_packets", lambda *_: video._Survey([0.0] * guess, 0))
    assert numbers(sample_frames(path, 5)) == [6, 13, 20, 26, 33]


def test_faults_name_the_file(tmp_path: Path):
    whole = write_clip(tmp_path / "whole.mp4", 40, g="40").read_bytes()
    for name, data in {
        "empty": b"",
        "text": b"hello " * 100,
        "cut": whole[: len(whole) // 2],
        "damaged": whole[:100] + bytes(1500) + whole[1600:],
    }.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{name}.mp4"):
            sample_frames(path, 5)
    with pytest.raises(DataError, match=r"missing\.mp4 cannot be decoded: No such file"):
        sample_frames(tmp_path / "missing.mp4", 5)


def test_a_file_without_video(tmp_path: Path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate, sound.time_base = 8000, Fraction(1, 8000)
        container.mux(stream.encode(sound))
    with pytest.raises(DataError, match=r"sound\.wav has no video stream"):
        sample_frames(path, 5)


def test_encode_jpeg_is_pils_default():
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=75)
    assert base64.b64decode(encode_jpeg(frame)) == file.getvalue()


def test_extract_frames_is_sample_and_encode(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", 12)
    assert extract_frames(path, 3) == [encode_jpeg(frame) for frame in sample_frames(path, 3)]


WORK = """
import os, signal
from lavender.runtime.errors import DataError
def work(path):
    if path.name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "broken":
        raise DataError(f"{path} is broken")
    return path.name.upper()
"""


@pytest.mark.parametrize("workers", [1, 3])
def test_a_killed_worker_costs_its_own_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int):
    (tmp_path / "work_that_kills.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))  # spawned workers get this path too
    from work_that_kills import work

    names = ["a", "killer1", "b", "broken", "c", "killer2"]
    results = {path.name: result for path, result in in_processes(work, map(Path, names), workers)}
    sys.modules.pop("work_that_kills")
    assert {name: results[name] for name in "abc"} == {"a": "A", "b": "B", "c": "C"}
    assert str(results["broken"]) == "broken is broken"
    for name in ("killer1", "killer2"):
        assert isinstance(results[name], DataError)
        assert str(results[name]).startswith(f"{name}: the process that decoded it was killed")
    assert len(results) == 6
