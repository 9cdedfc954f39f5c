"""THE evaluation loop: every sample exactly once, on any number of processes, in the order of the split."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lavender.data.loaders import Loader, LoaderCache, evaluation_loader
from lavender.data.samples import ClipDataset
from lavender.engine.checkpoint import write_jsonl
from lavender.engine.engines import Engine
from lavender.engine.output import LATEST, RunFolder
from lavender.engine.trackers import EXAMPLES
from lavender.models.weights import weights_digest
from lavender.runtime import distributed
from lavender.runtime.device import to_device
from lavender.runtime.logging import LOGGER, progress
from lavender.tasks.base import Metrics, Record, Task, Trainable


def evaluate(
    task: Trainable,
    engine: Engine,
    split: str,
    dataset: ClipDataset,
    device: torch.device,
    folder: RunFolder,
    checkpoint: Path,
    step: int = 0,
    loaders: LoaderCache | None = None,
    weights: Callable[[], str] | None = None,
) -> Metrics:
    """Predicts and scores a whole split; writes the records to `predictions/<split>.latest.jsonl`.

    Args:
        checkpoint: file that holds the weights, or will hold them; step: optimizer step, for the trackers.
        loaders: loaders to reuse between evaluations; weights: returns the digest of the model's weights.

    Returns:
        the metrics, equal on all processes and for any number of them; a single NaN metric if a score is not finite.
    """
    weights = weights or digest_of(engine)
    title, (own, split) = split, task.responsible(split)
    earlier = own.earlier_records(split, checkpoint, weights) if distributed.is_main() else None
    if distributed.broadcast_object(earlier is not None):
        shares = [earlier or []]
        faults: list[str] = []
        frames: list[np.ndarray] = []
    else:
        make = functools.partial(evaluation_loader, dataset, lasting=loaders is not None)
        loader = loaders.of(title, dataset, make) if loaders else make()
        records, faults, frames = predict(own, engine, title, loader, device)
        shares = distributed.gather_on_main(records)
    bad = report_faults(distributed.gather_objects(faults), title)
    metrics: Metrics = {}
    if distributed.is_main():
        ordered = sorted((record for share in shares for record in share), key=lambda record: record["index"])
        lost = next((record for record in ordered if not _is_finite(record)), None)
        if lost is not None:  # an accuracy would hide the NaN
            metrics = {f"a score of item {lost['index']}": math.nan}
        else:
            metrics = {**own.metrics(ordered, split), **({"bad_samples": bad} if bad else {})}
            write_jsonl(ordered, folder.predictions(title, LATEST))
            own.publish(split, checkpoint, weights, ordered, metrics)
            folder.examples(f"{title}/examples", frames, shares[0][: len(frames)], step)
        counts = " + ".join(str(len(share)) for share in shares)
        LOGGER.info("%s: %d samples (%s by process): %s", title, len(ordered), counts, format_metrics(metrics))
    return distributed.broadcast_object(metrics)


def digest_of(engine: Engine) -> Callable[[], str]:
    """Returns a function that computes the digest of the weights at its first call, and then reuses it."""
    return functools.cache(lambda: weights_digest(engine.model))


def predict(
    task: Task, engine: Engine, split: str, loader: Loader, device: torch.device
) -> tuple[list[Record], list[str], list[np.ndarray]]:
    """Returns records and faults of this process's share, and the frames of its first samples, (T, H, W, 3) each."""
    engine.model.eval()
    records: list[Record] = []
    faults: list[str] = []
    frames: list[np.ndarray] = []
    with torch.inference_mode(), engine.evaluating():
        for batch in progress(loader, desc=f"evaluating {split}", unit="batch", leave=False):
            faults += batch["faults"]
            if not frames:
                frames = list(batch["img"][:EXAMPLES].permute(0, 1, 3, 4, 2).numpy())
            records += task.predict(engine.model, to_device(batch, device))
    return records, faults, frames


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a record are finite."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def format_metrics(metrics: Metrics) -> str:
    """Metrics as text for a log line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def report_faults(shares: list[list[str]], where: str) -> int:
    """Counts the bad samples that were replaced by zeros, and logs the first ten."""
    faults = [fault for share in shares for fault in share]
    if faults:
        LOGGER.warning("%s: %d bad samples, replaced by zeros (on_bad_sample: zero):", where, len(faults))
        for fault in faults[:10]:
            LOGGER.warning("  %s", fault)
    return len(faults)
