"""Atomic writing of a run's files: weights, states and JSON."""

import copy
import json
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lavender.runtime import distributed
from lavender.runtime.errors import TrainingError
from lavender.runtime.files import atomic_file, mistaken_file, unwritable_advice
from lavender.runtime.pickles import check_torch_file

_UNREADABLE = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(MemoryError, RecursionError, OverflowError, pickle.UnpicklingError, zipfile.BadZipFile),
)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turns a failed write into a TrainingError that gives the reason and a remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
        if isinstance(error, RuntimeError) and distributed.is_lost_peer(error):
            raise
        raise TrainingError(f"{path}: could not be written ({error}); {unwritable_advice(error)}") from error


@contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """Opens a file of the run for atomic writing."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            yield file


def save_tensors(value: Any, path: Path) -> None:
    """Saves dictionaries and lists of tensors and plain values with `torch.save`."""
    with _output(path) as file:
        torch.save(value, file)


def load_tensors(path: Path) -> Any:
    """Loads a file of `save_tensors`; no code in the file can run.

    Raises:
        TrainingError: the file is missing or damaged.
    """
    if fault := mistaken_file(path, zipped=True):
        raise TrainingError(f"{path}: {fault}; or resume from another state")
    try:
        check_torch_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise TrainingError(f"{path}: this state cannot be read ({reason}); resume from another") from error


def copy_to_host(value: Any) -> Any:
    """Deep copy with all tensors on the CPU; what shares memory in dictionaries, lists and tuples shares it here."""
    copies: dict[tuple, Tensor] = {}

    def copied(part: Any) -> Any:
        if isinstance(part, Tensor):
            place = (part.device, part.data_ptr(), part.dtype, part.shape, part.stride())
            if place not in copies:
                copies[place] = part.detach().to("cpu", copy=True)
            return copies[place]
        if isinstance(part, dict):
            same = copy.copy(part)  # of its kind, and in its order
            same.update((key, copied(one)) for key, one in part.items())
            return same
        if isinstance(part, (list, tuple)):
            kind = type(part)
            return kind._make(map(copied, part)) if hasattr(kind, "_make") else kind(map(copied, part))
        return copy.deepcopy(part)

    return copied(value)


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """Saves a plain `state_dict` with CPU tensors, as in the released checkpoints."""
    with _output(path) as file:
        torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, file)


def write_json(value: Any, path: Path) -> None:
    """Writes indented JSON."""
    with _output(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_array(array: np.ndarray, path: Path) -> None:
    """Writes a `.npy` file."""
    with _output(path) as file:
        np.save(file, array, allow_pickle=False)


def write_jsonl(rows: list[Any], path: Path) -> None:
    """Writes one JSON value per line."""
    with _output(path) as file:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)
