"""Choice of device and precision."""

import ctypes
import platform
from contextlib import AbstractContextManager
from functools import lru_cache

import torch
from torch import Tensor

from lavender.runtime import distributed
from lavender.runtime.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is this process's GPU if there is one, else the CPU; a CUDA device becomes the current one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError('"device" is "cuda", but torch finds no GPU: use --device cpu, or a CUDA build of torch')
    number, count, launch = distributed.local_rank(), torch.cuda.device_count(), distributed.launch()
    if launch and launch.binds_gpus:  # e.g. srun --gpus-per-task=1: each process sees only its own; `start` checks
        number %= count
    if number >= count:
        raise ConfigError(
            f"process {number} of this machine has no GPU of its own: it has "
            f"{count}; start that many processes (--nproc_per_node)"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory for the next step instead of returning it to the system.

    A training step on a CPU frees and allocates gigabytes; page faults would take a third of a small model's step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        mmap_max, trim_threshold = -4, -1  # constants of malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is bf16 on a GPU with native support (V100 and T4 emulate it), fp16 on other GPUs, fp32 on a CPU."""
    if name != "auto":
        return name
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Autocast context for `precision`, one of `PRECISIONS`; no effect for fp32."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def to_device(batch: dict, device: torch.device) -> dict:
    """Moves the tensors of a batch to the device (asynchronously from pinned memory); other values are unchanged."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Tensor of numbers on a device, (n,), cached: each copy would make the host wait for the device."""
    with torch.inference_mode(False):  # cached: it may be used in training later
        return torch.tensor(values, device=device)


def memory_in_use(device: torch.device) -> str:
    """Peak memory so far, as text in GiB: of the GPU, or of this process on a CPU."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    import resource

    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB of memory"
