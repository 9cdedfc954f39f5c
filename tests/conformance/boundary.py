"""The conformance suite on another device, or in another precision than that of the recorded numbers.

    LAVENDER_TEST_DEVICE=cuda LAVENDER_TEST_PRECISION=bf16 python -m pytest tests/conformance

Tests keep their tensors on the CPU. What they call of the model and of the tasks gets them on the device, runs there in
this precision, and gives back float32 on the CPU.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from lavender.models.lavender import Lavender
from lavender.runtime.device import autocast
from lavender.tasks.base import Trainable

DEVICE = torch.device(os.environ.get("LAVENDER_TEST_DEVICE") or "cpu")
PRECISION = os.environ.get("LAVENDER_TEST_PRECISION") or "fp32"
IS_RECORDED = (DEVICE.type, PRECISION) == ("cpu", "fp32")  # where the numbers of the kit were measured
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 1e-2}[PRECISION]  # elsewhere: of the largest number (no TF32)

MODEL = ("encode_video", "encode_text", "prompt", "task_token", "fuse", "classify")
TASK = {
    *("loss", "logits", "outputs", "predict", "states", "answer_states", "match_matrix", "match_logits"),
    *("option_scores", "true_false"),
}
FUNCTIONS = ("generate",)  # of a test's module
OWN_DEVICE = ("encode_videos", "encode_texts", "score_pairs")  # they are given the device: nothing is moved for them


def moved(value: Any, to: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """A value with all its tensors moved: in dictionaries, lists, tuples and data classes, too."""
    if isinstance(value, torch.Tensor):
        return to(value)
    if isinstance(value, dict):
        return {key: moved(item, to) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(item, to) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(moved(item, to) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        tensors = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        found = {name: to(item) for name, item in tensors.items() if isinstance(item, torch.Tensor)}
        return dataclasses.replace(value, **found) if found else value
    return value


def back(tensor: torch.Tensor) -> torch.Tensor:
    """To where tests compare: the CPU, in float32."""
    return tensor.cpu().float() if tensor.is_floating_point() else tensor.cpu()


class Boundary:
    """Functions that move their tensors to the device and back; those that they call find them there."""

    def __init__(self) -> None:
        self.depth = 0

    def crossing(self, function: Callable, moves: bool = True) -> Callable:
        """The function behind the boundary."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            if self.depth:
                return function(*arguments, **options)
            self.depth += 1
            try:
                if not moves:
                    return function(*arguments, **options)
                arguments, options = moved((arguments, options), lambda tensor: tensor.to(DEVICE))
                with autocast(PRECISION, DEVICE):
                    return moved(function(*arguments, **options), back)
            finally:
                self.depth -= 1

        return call

    def put_up(self, monkeypatch: Any, module: Any) -> None:
        """Around the model, the tasks, and what a test's module has imported."""
        monkeypatch.setattr(nn.Module, "__call__", self.crossing(nn.Module.__call__))
        for name in MODEL:
            monkeypatch.setattr(Lavender, name, self.crossing(getattr(Lavender, name)))
        for kind in _kinds(Trainable):
            for name in TASK & kind.__dict__.keys():
                monkeypatch.setattr(kind, name, self.crossing(kind.__dict__[name]))
        for name in (*FUNCTIONS, *OWN_DEVICE):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, self.crossing(getattr(module, name), moves=name in FUNCTIONS))


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)
