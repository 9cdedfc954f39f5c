"""Long videos: memory does not grow with them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import KIT, ROOT

LIMIT = 1024  # MiB by which the peak may grow
MEASURE = """
import resource, sys
from lavender.config.schema import Config
from lavender.inference.predictor import Predictor
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.lavender import Heads, Lavender
from lavender.models.weights import bert_config

bert, video, warm = sys.argv[1:]
options = {"type": "retrieval", "size_img": 64, "txt_backbone": bert, "fusion_encoder": bert}
berts = bert_config(bert, "text"), bert_config(bert, "fusion")
predictor = Predictor(Lavender(VideoSwin("micro"), *berts, Heads()), Config(**options), device="cpu")
predictor.features(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert predictor.features(video).shape[1] == 64
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def write_long(path: Path, frames: int, rate: int, width: int, height: int) -> Path:
    """A noisy picture that moves, quickly encoded."""
    av = pytest.importorskip("av")
    picture = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    picture = picture.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 8 * number, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "rate", "width", "height"),
    [(600, 1, 1920, 1080), (5000, 25, 320, 240)],
    ids=["ten minutes of 1080p", "5,000 frames"],
)
def test_memory(tmp_path: Path, frames: int, rate: int, width: int, height: int):
    video = write_long(tmp_path / "long.mp4", frames, rate, width, height)
    warm = write_long(tmp_path / "warm.mp4", 12, 25, 320, 240)
    words = [sys.executable, "-c", MEASURE, str(KIT / "bert_micro"), str(video), str(warm)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < LIMIT
