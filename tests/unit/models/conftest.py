"""Models that several files of tests compare with."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video as torchvision_video

from lavender.config.schema import Config
from tests.unit.models.backbones.foreign_world import drawn
from tests.unit.models.weights_world import backbone_state, save_bert


@pytest.fixture(scope="module")
def swin3d_t() -> nn.Module:
    return drawn(torchvision_video.swin3d_t())


@pytest.fixture
def bert(tmp_path: Path, kit: Path, config: Config) -> dict[str, Tensor]:
    """A folder with weights, which the configuration names for text and fusion."""
    config.txt_backbone = config.fusion_encoder = str(tmp_path / "bert")
    return save_bert(tmp_path / "bert", kit)


@pytest.fixture
def backbone(config: Config, tmp_path: Path) -> dict[str, Tensor]:
    """A Kinetics file as released, which the configuration names."""
    state = backbone_state()
    extras = {"cls_head.fc_cls.weight": torch.zeros(400, 128), "cls_head.fc_cls.bias": torch.zeros(400)}
    config.vis_backbone_init, config.vis_backbone_path = "3d", str(tmp_path / "swin.pth")
    torch.save({"meta": {"epoch": 30}, "state_dict": {**state, **extras}}, tmp_path / "swin.pth")
    return state
