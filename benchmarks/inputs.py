"""Input pipeline: frames of a TSV to a uint8 batch on one core, against bare JPEG decoding and plain code."""

import base64
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.plain import read_clip
from benchmarks.rows import BERT, Machine, Row
from benchmarks.timing import turns
from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.data.tsv import TSVWriter
from lavender.tasks.qaoe import QAOETask

FRAMES, WIDTH, HEIGHT, BATCH = 5, 320, 240, 20
CPU = torch.device("cpu")


def jpegs(rng: np.random.Generator) -> list[bytes]:
    """Frames of a made-up clip: smooth colours with a little noise, of typical JPEG size."""
    import cv2

    grid = rng.integers(0, 256, (FRAMES, 12, 16, 3), dtype=np.uint8)
    found = []
    for small in grid:
        frame = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = np.clip(frame + rng.integers(-12, 13, frame.shape), 0, 255).astype(np.uint8)
        found.append(cv2.imencode(".jpg", noisy)[1].tobytes())
    return found


def write_clips(folder: Path, videos: int) -> list[list[bytes]]:
    """`img_bench.tsv` and `txt_bench.json`; returns the JPEGs of each clip."""
    rng = np.random.default_rng(0)
    clips = [jpegs(rng) for _ in range(videos)]
    with TSVWriter(folder / "img_bench.tsv") as writer:
        for number, frames in enumerate(clips):
            writer.write([f"video{number}", "{}", *(base64.b64encode(frame).decode() for frame in frames)])
    items = [{"video": f"video{number}", "question": "is it so", "answer_text": "true"} for number in range(videos)]
    (folder / "txt_bench.json").write_text(json.dumps({"train": items, "test": items}))
    return clips


def decode(data: bytes) -> np.ndarray:
    """Decodes a JPEG with the decoder of the data sets."""
    try:
        import simplejpeg
    except ImportError:
        import cv2

        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return simplejpeg.decode_jpeg(data)


class Clips:
    """Made-up clips in a folder, and all ways of reading them."""

    def __init__(self, folder: Path, videos: int, side: int):
        self.jpegs, self.side = write_clips(folder, videos), side
        words = {"txt_backbone": str(BERT), "fusion_encoder": str(BERT)}
        config = Config(
            **words, data_dir=str(folder), dataset="bench", task="bench", size_img=side, size_frame=FRAMES, n_workers=0
        )
        self.sets = QAOETask(config).datasets
        self.file = open(folder / "img_bench.tsv", "rb")  # noqa: SIM115 (stays open as long as the clips)
        self.starts = [int(line) for line in (folder / "img_bench.lineidx").read_text().split()]
        self.rng = np.random.default_rng(0)

    def ours(self, split: str) -> None:
        """Reads all clips in batches, like the training loop."""
        dataset = self.sets[split]
        for start in range(0, len(dataset), BATCH):
            keys = [SampleKey(0, number) for number in range(start, min(start + BATCH, len(dataset)))]
            dataset.collate([dataset[key] for key in keys])

    def plain(self, split: str) -> None:
        """Reads all clips with plain code."""
        for first in range(0, len(self.starts), BATCH):
            clips = []
            for start in self.starts[first : first + BATCH]:
                self.file.seek(start)
                corner = tuple(self.rng.random(2).tolist()) if split == "train" else None
                clips.append(read_clip(self.file.readline(), self.side, corner))  # type: ignore[arg-type]
            torch.stack(clips)

    def bare(self) -> None:
        """Only decodes the JPEGs."""
        for frames in self.jpegs:
            for frame in frames:
                decode(frame)


def measure(machine: Machine) -> list[Row]:
    """Frames per second: training and evaluation transforms, bare decoding."""
    import cv2

    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measure(Clips(Path(folder), machine.videos, machine.model.side), machine.rounds)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(cv_threads)


def _measure(clips: Clips, rounds: int) -> list[Row]:
    frames, unit = len(clips.jpegs) * FRAMES, "frames/s core"
    rows, bare_times = [], []
    for split, name in (("train", "training"), ("test", "evaluation")):
        clips.ours(split)
        works = (lambda s=split: clips.ours(s), lambda s=split: clips.plain(s), clips.bare)
        ours, plain, bare = turns(works, rounds, CPU)
        bare_times.append(bare)
        note = f"plain {frames / plain:.0f}; {bare / ours:.0%} of bare decoding; {WIDTH}×{HEIGHT} to {clips.side}"
        rows.append(Row(f"input, {name} transform", frames / ours, unit, plain / ours, note=note))
    clips.file.close()
    rows.append(Row("input, bare JPEG decoding", frames / min(bare_times), unit))
    return rows
