"""The kit of numbers measured on the released code, and the micro model with the kit's weights."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from lavender.models.lavender import Heads, Lavender

KIT = Path(__file__).parent / "kit"


def _kit_weights():
    spec = importlib.util.spec_from_file_location("kit_weights", KIT / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kit:
    """Cases by name, made-up images by seed, and the agreement that is asked for."""

    folder = KIT
    data = KIT / "data"
    bert = KIT / "bert_micro"

    def case(self, name: str) -> dict[str, np.ndarray]:
        with np.load(KIT / "cases" / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    def json(self, name: str):
        return json.loads((KIT / "cases" / f"{name}.json").read_text())

    def images(self, seed: int, batch: int, time: int, size: int) -> torch.Tensor:
        stream = np.random.Generator(np.random.PCG64(int(seed)))
        return torch.from_numpy(stream.standard_normal((batch, time, 3, size, size)).astype(np.float32))

    def model(self, heads: Heads | None = None, **options) -> Lavender:
        """The micro model in evaluation mode, filled with the kit's weights."""
        bert = BertConfig.from_pretrained(self.bert)
        bert._attn_implementation = "sdpa"
        model = Lavender("micro", bert, bert, heads or Heads(), **options).eval()
        return _kit_weights().fill(model)

    @staticmethod
    def agrees(ours: torch.Tensor, reference: np.ndarray, tolerance: float = 1e-5) -> bool:
        """max|Δ| ≤ tolerance · max|reference|."""
        expected = torch.from_numpy(np.asarray(reference))
        assert ours.shape == expected.shape
        return bool((ours - expected).abs().max() <= tolerance * expected.abs().max())


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def micro(kit) -> Lavender:
    return kit.model()
