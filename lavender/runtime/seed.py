"""Random numbers: one seed for the process, and a stream of its own for each sample.

A sample's stream depends on the seed, the epoch and the sample's number alone: not on the worker that reads it, the
process that trains on it, or what came before. So runs repeat, whatever the number of workers, and so do evaluations,
whatever the number of processes.
"""

import random
from typing import Any

import numpy as np
import torch

EVALUATION = 2**31 - 1  # stands for the epoch in evaluation, where every round draws the same numbers


def seed_process(seed: int, rank: int) -> None:
    """Seeds Python, NumPy and torch; each process gets numbers of its own (for dropout)."""
    own = (seed + rank) % 2**32  # NumPy's seeds end there
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators in this process, in plain values and tensors."""
    kind, keys, *numbers = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *numbers),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Puts back what `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def sample_stream(seed: int, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
    """The random stream of sample `index` in `epoch`; `purpose` tells independent uses of one sample apart."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index, purpose))))
