"""Output of a retrieval evaluation: partial scores, from which it can be resumed, and results."""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lavender.config.comparisons import Counts
from lavender.config.options import counting
from lavender.config.schema import Config
from lavender.data.retrieval import Gallery
from lavender.data.sources.base import stamp
from lavender.engine.checkpoint import write_array, write_json, write_jsonl
from lavender.engine.evaluator import format_metrics
from lavender.engine.output import RunFolder
from lavender.metrics.retrieval import retrieval_metrics, text_ranks
from lavender.runtime import distributed
from lavender.runtime.errors import TrainingError
from lavender.runtime.logging import LOGGER
from lavender.tasks.base import GalleryTask


def fingerprint(task: GalleryTask, gallery: Gallery, precision: str) -> str:
    """Hash of an evaluation's inputs: equal for the same weights, texts, frames and options."""
    config = task.config
    facts: dict[str, Any] = {
        "task": type(task).__name__,
        "options": {name: getattr(config, name) for name in counting(Counts.SCORES)},
        "precision": precision,
        "files": [stamp(Path(config.path_ckpt)), *gallery.frames.stamps()],
        "captions": gallery.captions,
        "videos": gallery.videos,
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


class ScoreFile:
    """Score matrix (texts, videos), NaN for pairs not yet scored; each process saves its own every `save_minutes`.

    As a context manager it also saves when an exception leaves the block.

    Args:
        config: path_output, save_minutes.
        name: `fingerprint` of the evaluation.
        shape: (texts, videos); columns: columns of the videos of this process.
    """

    def __init__(self, config: Config, name: str, shape: tuple[int, int], columns: np.ndarray):
        self.folder = Path(config.path_output) / f"_retrieval_so_far_{name}"
        self.columns, self.seconds = columns, config.save_minutes * 60
        self.values = np.full(shape, np.nan, dtype=np.float32)
        for path in sorted(self.folder.glob("*.npy")):
            self._merge(path)
        distributed.barrier()  # no process writes before all have read
        self.saved = time.monotonic()

    def _merge(self, path: Path) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(self.values))
        content, start = path.read_bytes(), header.tell()
        if content[:start] != header.getvalue() or len(content) != start + self.values.nbytes:
            LOGGER.warning("%s: not the scores of these texts and videos; its pairs are scored again", path)
            return
        earlier = np.frombuffer(content[start:], dtype=self.values.dtype).reshape(self.values.shape)
        np.copyto(self.values, earlier, where=np.isnan(self.values))

    def put(self, rows: np.ndarray, columns: np.ndarray, scores: Tensor) -> int:
        """Stores the scores of a block of pairs; returns how many."""
        self.values[rows, columns] = scores.float().cpu().numpy()
        if time.monotonic() - self.saved > self.seconds:
            self.save()
        return len(rows)

    def save(self) -> None:
        """Saves this process's current matrix, including scores of earlier evaluations."""
        write_array(self.values, self.folder / f"process_{distributed.rank()}.npy")
        self.saved = time.monotonic()

    def __enter__(self) -> "ScoreFile":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None and not np.isnan(self.values).all():
            self.save()

    def collect(self) -> np.ndarray:
        """Collects the whole matrix on the main process; the others keep what they have."""
        if distributed.world_size() > 1:  # another process may fail while this one waits
            self.save()
        for columns, values in distributed.gather_on_main((self.columns, self.values[:, self.columns])):
            self.values[:, columns] = values
        return self.values

    def remove(self) -> None:
        """Removes the partial scores of a finished evaluation."""
        distributed.barrier()
        if distributed.is_main():
            shutil.rmtree(self.folder, ignore_errors=True)


def write_results(config: Config, gallery: Gallery, scores: np.ndarray, folder: RunFolder, bad: int) -> dict[str, Any]:
    """Writes metrics, score matrix and ids, one line per text, and the released script's file beside the checkpoint."""
    split, own = config.eval_split, [video for _, video in gallery.captions]
    metrics = retrieval_metrics(scores, own)
    metrics |= {"texts": float(scores.shape[0]), "videos": float(scores.shape[1])}
    metrics |= {"missing": float(len(gallery.missing))} if gallery.missing else {}
    metrics |= {"bad_samples": float(bad)} if bad else {}
    results = {"zero_shot": {split: metrics}, "epochs": []}
    LOGGER.info("%s: %s", split, format_metrics(metrics))
    texts = [{"video": gallery.videos[number], "caption": text} for text, number in gallery.captions]
    write_array(scores, folder.path / f"scores_{split}.npy")
    folder.write(f"scores_{split}.json", {"texts": texts, "videos": gallery.videos})
    write_jsonl(_lines(config, gallery, scores, own), folder.predictions(split))
    folder.write("results.json", results)
    _write_released(config, metrics, split)
    return results


def _lines(config: Config, gallery: Gallery, scores: np.ndarray, own: Sequence[int]) -> list[dict[str, Any]]:
    orders = np.argsort(-scores, axis=1, kind="stable")[:, : max(1, config.save_top_k)]
    ranks = text_ranks(scores, own)
    lines = []
    for index, ((text, number), rank, order) in enumerate(zip(gallery.captions, ranks, orders, strict=True)):
        line = {"index": index, "video": gallery.videos[number], "caption": text, "rank": float(rank)}
        line["prediction"] = gallery.videos[order[0]]
        if config.save_top_k:
            line["top"] = [{"video": gallery.videos[n], "score": float(scores[index, n])} for n in order]
        lines.append(line)
    return lines


def _write_released(config: Config, metrics: dict[str, float], split: str) -> None:
    """Writes `<ckpt>_results.json` in the released form: all text; percent with two decimals, integer median."""
    checkpoint = Path(config.path_ckpt)
    released = {name: f"{100 * metrics[name]:.2f}" for name in ("r@1", "r@5", "r@10")}
    released["median"] = f"{int(metrics['median_rank'])}"
    try:
        write_json(
            {split: released, "multi_clip_testing": config.multi_clip_testing},
            checkpoint.with_name(f"{checkpoint.stem}_results.json"),
        )
    except TrainingError as fault:  # the checkpoint's folder may be read-only
        LOGGER.warning("%s", fault)
