"""Timers, peak memory and matrix rate, shared by all measurements."""

import ctypes
import gc
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Duration of the work, including that of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def turns(works: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """Best time of each work in seconds; they alternate, so that other load affects all alike."""
    times = [[seconds(work, device) for work in works] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def reset_peak(device: torch.device) -> None:
    """Resets the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux only
            REFERENCES.write_text("5")


def peak(device: torch.device) -> float | None:
    """Peak memory since `reset_peak` in GiB: of torch on the GPU, or of this process. None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return None


def release(device: torch.device) -> None:
    """Returns freed memory to the system, so that the next peak is not that of the work before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int, rounds: int) -> float:
    """FLOP/s of a square matrix product, best of `rounds`."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b  # warm-up: kernels are chosen
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(rounds))
