"""`torch.compile` of the most expensive modules: blocks of the video encoder and layers of the BERTs."""

import shutil

import torch
from torch import nn

from lavender.models.bert import BertLayer
from lavender.models.lavender import Lavender
from lavender.runtime.errors import TrainingError

VARIANTS = 64  # compiled variants per function: stage sizes × gradients × training or evaluation


def compile_model(model: Lavender, device: torch.device, backend: str = "inductor") -> None:
    """Compiles modules in place, at the first step of each shape; names of weights do not change.

    Args:
        device: device of the model; backend: backend of `torch.compile`.

    Raises:
        TrainingError: the compiler needs a package for this device that is not installed.
    """
    missing = _missing(device) if backend == "inductor" else ""
    if missing:
        raise TrainingError(f'"compile" is true, but {missing}, or train with --compile false')
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    model.backbone.compile_blocks(backend)
    for layer in layers_of(model):
        layer.compile(backend=backend)


def layers_of(model: nn.Module) -> list[nn.Module]:
    """All BERT layers of a model."""
    return [module for module in model.modules() if isinstance(module, BertLayer)]


def _missing(device: torch.device) -> str:
    """Message if the compiler cannot work on this device; else ""."""
    if device.type == "cpu":
        found = any(map(shutil.which, ("g++", "clang++")))
        return "" if found else "there is no C++ compiler: install g++ (apt-get install g++)"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed: pip install triton"
    return ""
