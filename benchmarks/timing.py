"""Clocks, memory and operations: what all measurements share."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def turns(works: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """The best time of each, in seconds; they take turns, so that a busy machine is busy for all."""
    times = [[seconds(work, device) for work in works] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]


def reset_peak(device: torch.device) -> None:
    """Peak memory counts from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # Linux alone has it
            REFERENCES.write_text("5")


def peak(device: torch.device) -> float | None:
    """Peak memory since `reset_peak`, in GiB: of torch on the GPU, or of this process. None where it is not known."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    return None


def matrix_rate(dtype: torch.dtype, device: torch.device, side: int, rounds: int) -> float:
    """FLOP/s of the product of two square matrices, best of `rounds`."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    a @ b  # kernels are chosen
    return 2 * side**3 / min(seconds(lambda: a @ b, device) for _ in range(rounds))
