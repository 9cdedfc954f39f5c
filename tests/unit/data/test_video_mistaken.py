"""What stands in a video's place: pages, pipes, empty files, and headers that claim more than the memory holds."""

import logging
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lavender.data.video import sample_frames
from lavender.runtime.errors import DataError

av = pytest.importorskip("av")


def write_clip(path: Path, codec: str, layout: str, frames: int = 3, **options: str) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, layout
        for number in range(frames):
            picture = np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "HTML page"),
        (b'{"error": "rate limit"}', "error message"),
        (b"PK\x03\x04" + bytes(60), "zip"),
        (b"plain text\n", "no video"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\1\0mdat" + bytes(500), "cut"),
    ],
)
def test_what_is_no_video_is_called_by_its_name(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError) as raised:
        sample_frames(tmp_path / "a.mp4", 2)
    assert f"{tmp_path / 'a.mp4'}" in str(raised.value)
    assert words in str(raised.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4.*pipe"):
        sample_frames(tmp_path / "a.mp4", 2)


def test_a_frame_that_decodes_with_faults_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    data = bytearray(write_clip(tmp_path / "a.mkv", "mpeg4", "yuv420p", frames=12))
    with caplog.at_level(logging.WARNING):
        sample_frames(tmp_path / "a.mkv", 2)
    assert not caplog.text
    with av.open(str(tmp_path / "a.mkv")) as container:
        packet = list(container.demux(video=0))[5]
        start, third = packet.pos + packet.size // 2, packet.size // 3
    data[start : start + third] = third * b"\xff"
    (tmp_path / "a.mkv").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert len(sample_frames(tmp_path / "a.mkv", 2)) == 2
    assert "a.mkv" in caplog.text
    assert "1 decode with faults" in caplog.text


BOMB = """
import sys
from lavender.data.video import sample_frames
from lavender.runtime.errors import DataError

def highest():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1])

sample_frames(sys.argv[1], 1, 1)
start = highest()
try:
    sample_frames(sys.argv[2], 1, 1, max_pixels=1_000_000)
except DataError as fault:
    print(highest() - start, fault)
sample_frames(sys.argv[2], 1, 1, max_pixels=2**26)
print(highest() - start)
"""


def test_a_bomb_costs_no_memory(tmp_path: Path):
    """A GIF of a few KB that claims 4,000 by 4,000 pixels: 64 MB as FFmpeg holds it."""
    data = write_clip(tmp_path / "a.gif", "gif", "rgb8")
    (tmp_path / "bomb.gif").write_bytes(data[:6] + struct.pack("<HH", 4000, 4000) + data[10:])
    command = [sys.executable, "-c", BOMB, str(tmp_path / "a.gif"), str(tmp_path / "bomb.gif")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    refused, admitted = done.stdout.splitlines()
    kilobytes, words = refused.split(" ", 1)
    assert "bomb.gif" in words
    assert "max_pixels 1000000" in words
    assert int(kilobytes) < 30_000
    assert int(admitted) > 60_000, "a true bomb"
