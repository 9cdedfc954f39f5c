"""Random numbers: one seed per process, and a random generator per sample.

A sample's generator depends only on the seed, the epoch and the sample's number: not on the worker, the process, or
earlier samples. So runs are reproducible with any number of workers, and evaluations with any number of processes.
"""

import random
from typing import Any

import numpy as np
import torch

EVALUATION = 2**31 - 1  # replaces the epoch in evaluation, which always draws the same numbers


def seed_process(seed: int, rank: int) -> None:
    """Seeds Python, NumPy and torch, differently on each process (for dropout)."""
    own = (seed + rank) % 2**32  # NumPy's largest seed
    random.seed(own)
    np.random.seed(own)
    torch.manual_seed(own)


def random_state() -> dict[str, Any]:
    """State of the generators of Python, NumPy and torch in this process, as plain values and tensors."""
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
    """Restores a state of `random_state`."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def sample_rng(seed: int, epoch: int, index: int, purpose: int = 0) -> np.random.Generator:
    """Random generator of sample `index` in `epoch`; `purpose` separates independent uses."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch, index, purpose))))
