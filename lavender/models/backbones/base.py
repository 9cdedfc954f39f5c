"""Protocol of a video backbone; the rest of the code uses only these methods."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.models.checkpoint_file import State
from lavender.runtime.errors import ConfigError

Color = tuple[float, float, float]  # red, green, blue

IMAGENET_MEAN: Color = (0.485, 0.456, 0.406)
IMAGENET_STD: Color = (0.229, 0.224, 0.225)
NO_DECAY = ("bias", "LayerNorm.bias", "LayerNorm.weight")  # so Swin's `norm1.weight` and `enc_img.norm.weight` decay


def decays_as_released(name: str) -> bool:
    """Whether the released optimizer applies weight decay to the weight of this name."""
    return not any(part in name for part in NO_DECAY)


class VideoBackbone(nn.Module, ABC):
    """Frames (B, T, 3, H, W) → features (B, T, H / pixels, W / pixels, width), one token per patch.

    A new backbone is a subclass in its own file and a row of `table.BACKBONES`.

    Attributes:
        place: name of the module in the video encoder; its weights in checkpoints begin with `enc_img.<place>.`.
        width: width of the features.
        pixels: side in pixels of the patch of one token.
        mean, std: the normalisation of frames in [0, 1] that the weights expect.
    """

    place: ClassVar[str]
    width: int
    pixels: int
    mean: Color = IMAGENET_MEAN
    std: Color = IMAGENET_STD

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config) -> Self:
        """Builds the backbone of a configuration with random weights.

        Raises:
            ConfigError: the backbone is unknown, or does not support frames of this size.
        """

    @abstractmethod
    def forward(self, img: Tensor) -> Tensor:
        """Normalised frames (B, T, 3, H, W) → (B, T, h, w, C)."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Repeated modules in forward order: the units of activation checkpointing and compilation."""

    @abstractmethod
    def read_weights(self, config: Config) -> tuple[State, str] | None:
        """Reads the weights selected by `vis_backbone_init` and `vis_backbone_path`.

        Args:
            config: vis_backbone_init, vis_backbone_path, and the options that determine the file name.

        Returns:
            the weights under this module's names, and their source; None for random weights.

        Raises:
            WeightsError: the weights are missing, damaged, or of another kind of model.
        """

    @classmethod
    @abstractmethod
    def describe(cls, state: Mapping[str, Tensor], config: Config, source: Path) -> dict[str, Any]:
        """Options that rebuild the backbone of a checkpoint, as stored in `config.json` of an exported folder.

        Args:
            state: the tensors of the whole checkpoint.
            config: options of the run that wrote the checkpoint; defaults if unknown.
            source: the checkpoint's file, for messages.

        Raises:
            WeightsError: the checkpoint has no backbone of this kind.
        """

    def compile_blocks(self, backend: str) -> None:
        """Compiles the blocks in place with a backend of `torch.compile`; names of weights do not change."""
        for block in self.blocks():
            block.compile(backend=backend)

    def initialise(self, std: float) -> None:
        """Draws random weights again for `initializer_range` = `std`; by default keeps those of the constructor."""

    def decays(self, name: str, weight: nn.Parameter) -> bool:
        """Whether weight decay applies to a parameter, by its name in this module; by default as released."""
        return decays_as_released(name)

    def resize(self, state: State) -> State:
        """Adapts weights trained for another frame size; by default weights do not depend on it."""
        return state

    def check_frames(self, config: Config) -> None:
        """Raises ConfigError if the position table has too few rows for frames of `size_img`."""
        patches = config.size_img // self.pixels
        if patches > config.max_size_patch and not config.swinbert:  # SwinBERT has no position tables
            raise ConfigError(
                f"size_img {config.size_img} has {patches} patches a side in {config.vis_backbone}; set max_size_patch "
                f"to {patches} or more"
            )

    def repeated(self) -> tuple[str, ...]:
        """Name prefixes of the blocks: a file with more blocks belongs to another model."""
        blocks = {id(block) for block in self.blocks()}
        names = (name for name, module in self.named_modules() if id(module) in blocks)
        return tuple(dict.fromkeys(re.split(r"(?<=\.)\d", name)[0] for name in names))
