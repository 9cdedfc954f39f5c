"""Random numbers: one seed for the process, and a stream of its own for each sample.

A sample's stream depends on the seed, the epoch and the sample's number alone: not on the worker that reads it, the
process that trains on it, or what came before. So runs repeat, whatever the number of workers, and so do evaluations,
whatever the number of processes.
"""

import random

import numpy as np
import torch

EVALUATION = 2**31 - 1  # stands for the epoch in evaluation, where every round draws the same numbers


def seed_process(seed: int, rank: int) -> None:
    """Seeds Python, NumPy and torch; each process gets numbers of its own (for dropout)."""
    own = (seed + rank) % 2**32  # NumPy's seeds end there
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def sample_stream(seed: int, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
    """The random stream of sample `index` in `epoch`; `purpose` tells independent uses of one sample apart."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index, purpose))))
