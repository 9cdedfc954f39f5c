"""Table of the backbones that `vis_backbone` can name; their modules are imported on demand."""

import pkgutil
from pathlib import Path
from typing import Any

from lavender.config.schema import Config
from lavender.models.backbones.base import VideoBackbone
from lavender.models.checkpoint_file import State

# Value of `vis_backbone` up to its colon → class.
BACKBONES = {
    "vidswin": "lavender.models.backbones.video_swin:VideoSwin",
    "timm": "lavender.models.backbones.timm_image:TimmImage",
}


def backbone_class(config: Config) -> type[VideoBackbone]:
    """Class of the backbone that `vis_backbone` names."""
    return pkgutil.resolve_name(BACKBONES[config.vis_backbone.split(":")[0]])


def build_backbone(config: Config) -> VideoBackbone:
    """Builds the backbone of a configuration with random weights.

    Raises:
        ConfigError: the backbone is unknown, or does not support these frames.
    """
    return backbone_class(config).from_config(config)


def describe_backbone(state: State, config: Config, source: Path) -> dict[str, Any]:
    """Options that rebuild the backbone of a checkpoint; see `VideoBackbone.describe`."""
    return backbone_class(config).describe(state, config, source)
