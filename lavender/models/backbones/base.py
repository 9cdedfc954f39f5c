"""The protocol of a video backbone. The rest of the code knows a backbone by these methods alone."""

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
    """Whether the released optimizer decays the weight of this name."""
    return not any(part in name for part in NO_DECAY)


class VideoBackbone(nn.Module, ABC):
    """Frames (B, T, 3, H, W) → features (B, T, H / pixels, W / pixels, width), one token a patch.

    A new backbone is a subclass in a file of its own and a row of `table.BACKBONES`.

    Attributes:
        place: name of the module in the video encoder; checkpoints have its weights under `enc_img.<place>.`.
        width: width of the features.
        pixels: pixels a side of the patch that one token stands for.
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
        """The backbone of a configuration, with random weights.

        Raises:
            ConfigError: there is no such backbone, or not for frames of this size.
        """

    @abstractmethod
    def forward(self, img: Tensor) -> Tensor:
        """Normalised frames (B, T, 3, H, W) → (B, T, h, w, C)."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The repeated modules, in the order of the forward pass: units of activation checkpointing and compilation."""

    @abstractmethod
    def read_weights(self, config: Config) -> tuple[State, str] | None:
        """The weights that `vis_backbone_init` and `vis_backbone_path` name.

        Args:
            config: vis_backbone_init, vis_backbone_path, and what a backbone's file name depends on.

        Returns:
            the weights under this module's names, and what they are from; None where they are to be random.

        Raises:
            WeightsError: missing, broken, or of another kind of model.
        """

    @classmethod
    @abstractmethod
    def describe(cls, state: Mapping[str, Tensor], config: Config, source: Path) -> dict[str, Any]:
        """The options that build the backbone of a checkpoint again, as `config.json` of an exported folder holds them.

        Args:
            state: the tensors of the whole checkpoint.
            config: options of the run that wrote the checkpoint; defaults where they are not known.
            source: the checkpoint's file, for messages.

        Raises:
            WeightsError: the checkpoint has no backbone of this kind.
        """

    def compile_blocks(self, backend: str) -> None:
        """Compiles the blocks in place, by a backend of `torch.compile`; names of weights stay."""
        for block in self.blocks():
            block.compile(backend=backend)

    def initialise(self, std: float) -> None:
        """Draws random weights anew, for `initializer_range` = `std`; by default the constructor's stay."""

    def decays(self, name: str, weight: nn.Parameter) -> bool:
        """Whether weight decay applies to a parameter (its name is this module's); by default as released."""
        return decays_as_released(name)

    def resize(self, state: State) -> State:
        """Weights of this module for another size of frame → for this one; by default they do not depend on it."""
        return state

    def check_frames(self, config: Config) -> None:
        """Raises ConfigError where the table of patch positions has too few rows for frames of `size_img`."""
        patches = config.size_img // self.pixels
        if patches > config.max_size_patch and not config.swinbert:  # SwinBERT has no position tables
            raise ConfigError(
                f"size_img {config.size_img} has {patches} patches a side in {config.vis_backbone}; set max_size_patch "
                f"to {patches} or more"
            )

    def repeated(self) -> tuple[str, ...]:
        """What the names of the blocks begin with: a file with more of them is of another model."""
        blocks = {id(block) for block in self.blocks()}
        names = (name for name, module in self.named_modules() if id(module) in blocks)
        return tuple(dict.fromkeys(re.split(r"(?<=\.)\d", name)[0] for name in names))
