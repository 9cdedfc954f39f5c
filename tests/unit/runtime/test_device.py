import ctypes
import re

import pytest
import torch

from lavender.runtime import device as device_module
from lavender.runtime.device import (
    PRECISIONS,
    choose_device,
    choose_precision,
    keep_freed_memory,
    memory_in_use,
    to_device,
)
from lavender.runtime.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs, as far as `choose_device` can tell; holds the devices made current."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu():
    assert choose_device() == choose_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r'"device" is "cuda".*no GPU.*--device cpu'):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_takes_its_own_gpu(two_gpus: list, monkeypatch: pytest.MonkeyPatch, name: str):
    assert choose_device(name) == torch.device("cuda", 0)
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    assert choose_device(name) == torch.device("cuda", 1)
    assert two_gpus == [torch.device("cuda", 0), torch.device("cuda", 1)]


def test_more_processes_than_gpus(two_gpus: list, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("RANK", "2"), ("LOCAL_RANK", "2"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"process 2 .*it has 2; .*--nproc_per_node"):
        choose_device()
    assert choose_device("cpu") == CPU
    assert two_gpus == []


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_precision_that_is_asked_for_is_taken(name: str):
    assert choose_precision(name, CPU) == name
    assert isinstance(PRECISIONS[name], torch.dtype)


def test_automatic_precision(monkeypatch: pytest.MonkeyPatch):
    assert choose_precision("auto", CPU) == "fp32"
    for supported, expected in [(True, "bf16"), (False, "fp16")]:
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=supported: including_emulation or has
        )
        assert choose_precision("auto", torch.device("cuda", 0)) == expected


def test_to_device_moves_tensors_and_nothing_else():
    batch: dict = {"img": torch.ones(2), "video": ["a", "b"], "faults": [], "size": 3}
    meta = to_device(batch, torch.device("meta"))
    assert meta["img"].device.type == "meta"
    assert {key: meta[key] for key in ("video", "faults", "size")} == {"video": ["a", "b"], "faults": [], "size": 3}
    assert batch["img"].device == CPU


def test_memory_in_use():
    figure = re.fullmatch(r"(\d+\.\d) GiB of memory", memory_in_use(CPU))
    assert figure
    assert 0.05 < float(figure[1]) < 100


@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_freed_memory_is_kept_with_glibc_alone(monkeypatch: pytest.MonkeyPatch, library: str):
    calls = []

    class FakeLibc:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            calls.append((name, value))
            return 1

    monkeypatch.setattr(device_module.platform, "libc_ver", lambda: (library, "2"))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibc())
    keep_freed_memory()
    # malloc.h: M_TRIM_THRESHOLD is -1, M_MMAP_MAX is -4
    assert calls == ([(-4, 0), (-1, 2**31 - 1)] if library == "glibc" else [])
