"""Models that several files of tests compare with."""

import pytest
from torch import nn
from torchvision.models import video as torchvision_video

from tests.unit.models.backbones.foreign_world import drawn


@pytest.fixture(scope="module")
def swin3d_t() -> nn.Module:
    return drawn(torchvision_video.swin3d_t())
