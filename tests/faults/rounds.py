"""Rounds of an evaluation loader with workers and a gathering: torchrun tests/faults/rounds.py ROUNDS N_WORKERS

Worker processes are started while gloo's threads run, as in every evaluation of a run of several processes.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from lavender.config.schema import Config
from lavender.data.loaders import evaluation_loader
from lavender.data.samples import ClipDataset, Guard
from lavender.data.sources.base import StoredVideo
from lavender.runtime import distributed
from lavender.runtime.errors import DataError
from lavender.runtime.launchers import leave

SAMPLES = 8


class Numbers(ClipDataset):
    """Samples that are their numbers."""

    def __len__(self) -> int:
        return SAMPLES

    def video(self, index: int) -> StoredVideo:
        raise DataError("a number has no frames")

    def clip(self, index: int, stream: np.random.Generator) -> torch.Tensor:
        return torch.full((1,), index, dtype=torch.uint8)

    def text(self, index: int, stream: np.random.Generator, guard: Guard) -> dict:
        return {}


def main(rounds: int, workers: int) -> None:
    distributed.start(torch.device("cpu"))
    dataset = Numbers(Config(n_workers=workers, size_batch=2), training=False, size_frame=1)
    start = time.monotonic()
    for number in range(1, rounds + 1):
        own = [index for batch in evaluation_loader(dataset) for index in batch["index"].tolist()]
        shares = distributed.gather_objects(own)
        assert sorted(index for share in shares for index in share) == list(range(SAMPLES))
        if distributed.is_main() and number % 10 == 0:
            print(f"{number} rounds, {time.monotonic() - start:.1f} s", flush=True)
    distributed.barrier()
    distributed.stop()
    leave()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
