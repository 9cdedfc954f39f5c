"""Which backbone `vis_backbone` names. A module is imported when its backbone is asked for, not before."""

import pkgutil
from pathlib import Path
from typing import Any

from lavender.config.schema import Config
from lavender.models.backbones.base import VideoBackbone
from lavender.models.checkpoint_file import State

# The value of `vis_backbone` up to its colon → the class.
BACKBONES = {
    "vidswin": "lavender.models.backbones.video_swin:VideoSwin",
    "timm": "lavender.models.backbones.timm_image:TimmImage",
}


def backbone_class(config: Config) -> type[VideoBackbone]:
    """The class of the backbone that `vis_backbone` names."""
    return pkgutil.resolve_name(BACKBONES[config.vis_backbone.split(":")[0]])


def build_backbone(config: Config) -> VideoBackbone:
    """The backbone of a configuration, with random weights.

    Raises:
        ConfigError: there is no such backbone, or not for these frames.
    """
    return backbone_class(config).from_config(config)


def describe_backbone(state: State, config: Config, source: Path) -> dict[str, Any]:
    """The options that build the backbone of a checkpoint again; see `VideoBackbone.describe`."""
    return backbone_class(config).describe(state, config, source)
