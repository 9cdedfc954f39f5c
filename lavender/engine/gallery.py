"""Retrieval evaluation: every video and text is encoded once and every pair is scored, on any number of processes.

Each process scores all texts against its share of the videos; only scores are exchanged. Videos are assigned in tiles,
and each computation stays within a tile, so the scores are bit-identical on any number of processes.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.data.loaders import evaluation_loader
from lavender.data.retrieval import Gallery
from lavender.engine.gallery_output import ScoreFile, fingerprint, write_results
from lavender.engine.output import RunFolder
from lavender.engine.run import run
from lavender.models.all_pairs import TextGroup, blocks, encode_texts, unpadded
from lavender.models.encoders import Encoded
from lavender.models.lavender import Lavender
from lavender.models.pairs import select_rows
from lavender.models.weights import build_model
from lavender.runtime import distributed
from lavender.runtime.device import PRECISIONS, autocast, choose_precision, memory_in_use, to_device
from lavender.runtime.errors import ConfigError, TrainingError
from lavender.runtime.logging import LOGGER, progress
from lavender.runtime.run_processes import launch_command
from lavender.tasks.base import GalleryTask

PAIRS_AT_ONCE = {"cpu": 8, "cuda": 256}
TILE = 8  # videos that are encoded, moved to the device and scored together
SHARE_OF_MEMORY = 0.5  # of free device memory: larger features stay in host memory


def evaluate(task: type[GalleryTask], config: Config) -> None:
    """Work of a retrieval evaluation script. Without a launcher it starts one process per visible GPU.

    Raises:
        ConfigError: no checkpoint is named.
    """
    if not config.path_ckpt:
        raise ConfigError("--path_ckpt is empty: name the checkpoint to evaluate")
    config.size_epoch = 0  # so that frame and text sizes are taken from the checkpoint
    config.deepspeed = False
    if config.device != "cpu" and not distributed.is_launched() and torch.cuda.device_count() > 1:
        sys.stdout.flush()
        os.execv(sys.executable, launch_command(torch.cuda.device_count(), sys.argv))
    run(task, config, work=evaluate_gallery)


def evaluate_gallery(task: GalleryTask, config: Config, device: torch.device, folder: RunFolder) -> dict:
    """Ranks all videos of a split for every text and all texts for every video; returns the results.

    Raises:
        DataError: texts or frames of the split are missing. TrainingError: a score is not finite.
    """
    gallery, precision = task.gallery, choose_precision(config.precision, device)
    gallery.check_frames()
    folder.write("args.json", config.to_dict())
    model = build_model(config, task.heads).to(device).eval()
    LOGGER.info("%s: %d texts, %d videos; %s", gallery.where, len(gallery.captions), len(gallery), precision)
    with torch.inference_mode():
        share = encode_videos(model, gallery, device, precision)
        groups = encode_texts(model, (task.encode_caption(text) for text, _ in gallery.captions), device, precision)
        model.trsfr.to(PRECISIONS[precision])
        shape = (len(gallery.captions), len(gallery))
        file = ScoreFile(config, fingerprint(task, gallery, precision), shape, share.columns)
        score_pairs(task, model, share, groups, file, device, config.size_pairs)
    scores = file.collect()
    LOGGER.info("scored; %s", memory_in_use(device))
    metrics = write_results(config, gallery, scores, folder, share.replaced) if distributed.is_main() else None
    results = distributed.broadcast_object(metrics)
    file.remove()
    return results


@dataclass(frozen=True)
class Share:
    """Videos of this process: their columns in the score matrix, their features (n, L, D), and the tile of each."""

    columns: np.ndarray
    features: Encoded
    tiles: np.ndarray
    replaced: int  # videos of the whole gallery that were replaced by zeros

    def by_tile(self) -> Iterator[tuple[np.ndarray, Encoded]]:
        """Yields columns and features of one tile after another."""
        for tile in np.unique(self.tiles):
            first, last = np.flatnonzero(self.tiles == tile)[[0, -1]]
            rows = slice(first, last + 1)
            yield self.columns[rows], Encoded(*(part[rows] for part in self.features))


def encode_videos(model: Lavender, gallery: Gallery, device: torch.device, precision: str) -> Share:
    """Computes the features of this process's share of the videos.

    Unreadable videos are left out of the gallery with `allow_missing` and replaced by zeros with `on_bad_sample zero`.
    Otherwise they end the evaluation with one error that names them all.
    """
    loader = evaluation_loader(gallery, TILE)
    numbers: list[int] = []
    faults: dict[int, str] = {}
    store: FeatureStore | None = None
    for batch in progress(loader, desc="encoding videos", unit="batch", leave=False):
        absent = batch["index"][~batch["present"]].tolist()
        faults.update(zip(absent, batch["faults"], strict=True))
        numbers += batch["index"].tolist()
        batch = to_device(batch, device)
        with autocast(precision, device):
            clips = model.encode_video(batch["img"], batch["present"].repeat_interleave(batch["clips"]))
        states = torch.stack([clip.float().mean(dim=0) for clip in clips.states.split(batch["clips"].tolist())])
        store = store or FeatureStore(len(loader) * TILE, states[0], PRECISIONS[precision], device)
        store.add(states)
    features = store.encoded() if store else unpadded(torch.empty(0, 1, 1))
    all_faults = {number: fault for share in distributed.gather_objects(faults) for number, fault in share.items()}
    tiles = np.asarray(numbers, dtype=np.int64) // TILE
    if all_faults and gallery.config.on_bad_sample == "zero" and not gallery.config.allow_missing:
        LOGGER.warning("%d videos replaced by zeros: %s", len(all_faults), "; ".join([*all_faults.values()][:10]))
    elif all_faults:
        gallery.refuse_missing([all_faults[number] for number in sorted(all_faults)], f"of {len(gallery)} videos")
        renumbered = gallery.without(set(all_faults))
        kept = [row for row, number in enumerate(numbers) if number in renumbered]
        features = select_rows(features, torch.tensor(kept, dtype=torch.long, device=features.states.device))
        numbers, tiles, all_faults = [renumbered[numbers[row]] for row in kept], tiles[kept], {}
    return Share(np.asarray(numbers, dtype=np.int64), features, tiles, len(all_faults))


class FeatureStore:
    """Features of up to n videos: in device memory if they fit, else in pinned host memory."""

    def __init__(self, count: int, example: Tensor, dtype: torch.dtype, device: torch.device):
        needed = count * example.numel() * dtype.itemsize
        fits = device.type == "cpu" or needed < SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]
        place = {"device": device} if fits else {"pin_memory": True}
        if not fits:
            LOGGER.info("the features of the videos take %.1f GiB: they stay in host memory", needed / 2**30)
        self.states = torch.empty(count, *example.shape, dtype=dtype, **place)
        self.filled = 0

    def add(self, states: Tensor) -> None:
        """Appends the features of the next videos, (B, L, D)."""
        self.states[self.filled : self.filled + len(states)] = states.to(self.states.dtype)
        self.filled += len(states)

    def encoded(self) -> Encoded:
        """All features added so far, without padding tokens."""
        return unpadded(self.states[: self.filled])


def score_pairs(
    task: GalleryTask,
    model: Lavender,
    share: Share,
    groups: Sequence[TextGroup],
    file: ScoreFile,
    device: torch.device,
    size_pairs: int = 0,
) -> None:
    """Fills this process's columns of the score matrix block by block; scores that exist already are kept."""
    size_pairs = size_pairs or PAIRS_AT_ONCE[device.type]
    missing = np.isnan(file.values[:, share.columns])
    if not missing.all():
        LOGGER.info("resuming a stopped evaluation: %d of %d pairs are scored", (~missing).sum(), missing.size)
    title = f"scoring (1 of {distributed.world_size()} processes)" if distributed.world_size() > 1 else "scoring"
    waiting: tuple[np.ndarray, np.ndarray, Tensor] | None = None
    done = int(missing.size - missing.sum())
    with file, progress(desc=title, total=missing.size, initial=done, unit="pair", unit_scale=True) as bar:
        for columns, features in share.by_tile():
            videos = Encoded(*(part.to(device, non_blocking=True) for part in features))
            for rows, cells, texts, v, t in blocks(columns, groups, size_pairs):
                if not np.isnan(file.values[rows, cells]).any():
                    continue
                index = torch.from_numpy(np.stack([v, t])).to(device, non_blocking=True)
                scores = task.pair_scores(model, select_rows(videos, index[0]), select_rows(texts, index[1]))
                if waiting:  # the last block's scores are fetched while the device works on this one's
                    bar.update(file.put(*waiting))
                waiting = rows, cells, scores
        if waiting:
            bar.update(file.put(*waiting))
    if not np.isfinite(file.values[:, share.columns]).all():
        raise TrainingError(
            f"scores are NaN or Inf: the weights of {task.config.path_ckpt} are damaged, or overflow in this precision"
        )
