"""Processes of a run: ranks from the environment of any launcher, gathering, and what only the first one does."""

import os
import sys
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

# torchrun, torch.distributed.launch and deepspeed set the first names; mpirun the second.
_RANK_VARIABLES = {
    "rank": ("RANK", "OMPI_COMM_WORLD_RANK"),
    "local_rank": ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "world_size": ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"),
}
_object_group: Any = None


def _from_environment(name: str, default: int) -> int:
    for variable in _RANK_VARIABLES[name]:
        if variable in os.environ:
            return int(os.environ[variable])
    return default


def rank() -> int:
    """Number of this process among all, from 0."""
    return _from_environment("rank", 0)


def local_rank() -> int:
    """Number of this process on its machine, from 0: the GPU that it takes."""
    return _from_environment("local_rank", 0)


def world_size() -> int:
    """How many processes run together."""
    return _from_environment("world_size", 1)


def is_main() -> bool:
    """Whether this process writes the logs, the bars and the files."""
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher started this process, be it the only one."""
    return any(variable in os.environ for variable in _RANK_VARIABLES["world_size"])


def uses_cuda() -> bool:
    """Whether the processes talk over GPUs (and batches should be pinned)."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def start(device: torch.device, minutes: float = 30) -> None:
    """Joins the processes of a run: nccl on CUDA, gloo on a CPU; does nothing without a launcher."""
    global _object_group
    if not is_launched() or dist.is_initialized():
        return
    for name, variables in _RANK_VARIABLES.items():  # mpirun sets its own names alone; torch reads the first
        os.environ.setdefault(variables[0], str(_from_environment(name, 0)))
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "5566")
    timeout = timedelta(minutes=minutes)
    if device.type == "cuda":
        dist.init_process_group("nccl", timeout=timeout, device_id=device)
        _object_group = dist.new_group(backend="gloo", timeout=timeout)
    else:
        dist.init_process_group("gloo", timeout=timeout)


def stop() -> None:
    """Leaves the group, at the end of a run that went well."""
    global _object_group
    if dist.is_initialized():
        dist.destroy_process_group()
    _object_group = None


def leave(code: int = 0) -> NoReturn:
    """Ends this process at once, with what it has printed.

    For processes that a launcher started: where an interpreter winds down, a thread of gloo that still holds a tensor
    may abort it (PyTorch issue 190489), and a run that went well would seem to have failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether torch reports that another process has gone in the middle of a collective operation."""
    return dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())


def barrier() -> None:
    """Waits for all processes."""
    if dist.is_initialized():
        dist.barrier(group=_object_group)


def gather_objects(value: Any) -> list[Any]:
    """`value` of every process, by rank, on all processes (pickled: for small things and for records)."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value, group=_object_group)
    return gathered


def broadcast_object(value: Any) -> Any:
    """The first process's `value`, on all."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_object_group)
    return box[0]


def mean(values: torch.Tensor) -> torch.Tensor:
    """Elementwise mean of a tensor over the processes; NaN anywhere is NaN everywhere."""
    if dist.is_initialized() and world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world_size()
    return values
