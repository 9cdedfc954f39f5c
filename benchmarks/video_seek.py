"""Reading 4 of 5 frames of a long video: with seeking against full decoding, on this machine.

    python benchmarks/video_seek.py
    python benchmarks/video_seek.py --seconds 300 --videos ../clips     # one of your own folder, too

Both ways take turns, so that a busy machine is busy for both; the frames are compared before anything is timed. What is
saved depends on how often a video starts afresh: x264 does so every 250 frames at least.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import av
import numpy as np

from lavender.data.frames import MAX_PIXELS
from lavender.data.video import sample_frames
from lavender.data.video_folders import find_videos
from lavender.data.video_seek import read_frames

STORED, TAKEN, ROUNDS = 5, [0, 1, 3, 4], 5
WIDTH, HEIGHT, RATE = 320, 240, 25


def write_clip(path: Path, seconds: int, group: int) -> Path:
    """Writes a clip of a moving picture with a keyframe every `group` frames."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 4, 3)).astype(np.uint8)
    picture = noise.repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": str(group), "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * RATE):
            shown = np.ascontiguousarray(picture[:, 2 * number % WIDTH :][:, :WIDTH])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode())
    return path


def compare(path: Path) -> str:
    """Milliseconds per read for both, best of some rounds, and their ratio."""
    best = {"all": float("inf"), "seeking": float("inf")}
    plain = sample_frames(path, STORED, threads=1)
    for frame, number in zip(read_frames(path, STORED, TAKEN, MAX_PIXELS), TAKEN, strict=True):
        np.testing.assert_array_equal(frame, plain[number])
    for _ in range(ROUNDS):
        for way in best:
            begin = time.perf_counter()
            if way == "all":
                sample_frames(path, STORED, threads=1)
            else:
                read_frames(path, STORED, TAKEN, MAX_PIXELS)
            best[way] = min(best[way], time.perf_counter() - begin)
    whole, part = best["all"], best["seeking"]
    return f"all {whole * 1e3:7.1f} ms   seeking {part * 1e3:7.1f} ms   ratio {whole / part:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="length of the made-up videos (default: %(default)s)")
    parser.add_argument("--videos", type=Path, help="a folder whose videos are read, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for group in (25, 250):
            path = write_clip(Path(folder, "x.mp4"), arguments.seconds, group)
            print(f"{arguments.seconds} s, a start every {group} frames: {compare(path)}")
    for name, path in (find_videos(arguments.videos) if arguments.videos else {}).items():
        print(f"{name}: {compare(path)}")


if __name__ == "__main__":
    main()
