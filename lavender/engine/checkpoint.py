"""Files that a run writes, whole or not at all: weights and JSON."""

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
def told_as_unwritable(path: Path) -> Iterator[None]:
    """A file that cannot be written is an error that says why, and what helps."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as a RuntimeError
        if isinstance(error, RuntimeError) and distributed.is_lost_peer(error):
            raise
        raise TrainingError(f"{path}: could not be written ({error}); {unwritable_advice(error)}") from error


@contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """A file of the run, whole or as it was before."""
    with told_as_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            yield file


def save_tensors(value: Any, path: Path) -> None:
    """Tensors and plain values in dictionaries and lists, as `torch.save` writes them."""
    with _output(path) as file:
        torch.save(value, file)


def load_tensors(path: Path) -> Any:
    """What `save_tensors` wrote; nothing in the file can run code.

    Raises:
        TrainingError: it is missing or damaged.
    """
    if fault := mistaken_file(path, zipped=True):
        raise TrainingError(f"{path}: {fault}; or resume from another state")
    try:
        check_torch_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise TrainingError(f"{path}: this state cannot be read ({reason}); resume from another") from error


def save_weights(state: dict[str, Tensor], path: Path) -> None:
    """A plain `state_dict`, on the CPU, as the released checkpoints are."""
    with _output(path) as file:
        torch.save({name: tensor.detach().cpu() for name, tensor in state.items()}, file)


def write_json(value: Any, path: Path) -> None:
    """Indented JSON."""
    with _output(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_array(array: np.ndarray, path: Path) -> None:
    """A `.npy` file."""
    with _output(path) as file:
        np.save(file, array, allow_pickle=False)


def write_jsonl(rows: list[Any], path: Path) -> None:
    """One JSON value a line."""
    with _output(path) as file:
        file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)
