"""Made-up clips."""

from pathlib import Path

import numpy as np
import pytest

from tests.unit.data.sources.shard_world import png


def write_video(path: Path, frames: int = 12, grey: int = 0, rate: int = 25) -> Path:
    """A video that grows lighter."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), (grey + 5 * number) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_images(folder: Path, *greys: int) -> Path:
    """A folder of images."""
    folder.mkdir(parents=True)
    for number, grey in enumerate(greys):
        (folder / f"{number}.png").write_bytes(png(grey))
    return folder
