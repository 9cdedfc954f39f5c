"""Models that several files of tests compare with."""

import lavender.models  # noqa: F401 — makes torchvision, and so timm, importable beside a CPU-only torch

# isort: split

import pytest
from torch import nn
from torchvision.models import video as torchvision_video

from tests.unit.models.foreign_world import drawn


@pytest.fixture(scope="module")
def swin3d_t() -> nn.Module:
    return drawn(torchvision_video.swin3d_t())
