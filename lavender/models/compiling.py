"""`torch.compile` of the parts that a step spends its time in: blocks of the video encoder, layers of the BERTs."""

import shutil

import torch
from torch import nn

from lavender.models.bert import BertLayer
from lavender.models.lavender import Lavender
from lavender.runtime.errors import TrainingError

VARIANTS = 64  # of one piece of code: sizes of a stage, with and without gradients, in training and evaluation


def compile_model(model: Lavender, device: torch.device, backend: str = "inductor") -> None:
    """Compiles in place, at the first step of each shape; names of weights, states and checkpoints stay.

    Args:
        device: where the model will run; backend: of `torch.compile`.

    Raises:
        TrainingError: what the compiler needs on this device is not installed.
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
    """All layers of BERT in a model."""
    return [module for module in model.modules() if isinstance(module, BertLayer)]


def _missing(device: torch.device) -> str:
    """What to tell where the compiler cannot work; else ""."""
    if device.type == "cpu":
        found = any(map(shutil.which, ("g++", "clang++")))
        return "" if found else "there is no C++ compiler: install g++ (apt-get install g++)"
    try:
        import triton  # noqa: F401
    except ImportError:
        return "Triton is not installed: pip install triton"
    return ""
