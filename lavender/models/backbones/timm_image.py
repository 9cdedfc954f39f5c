"""Any timm image model with a feature map or patch tokens, applied to each frame separately."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lavender.config.schema import Config
from lavender.models.backbones.base import VideoBackbone
from lavender.models.backbones.timm_hub import TIMM, check_timm_name, fetch_timm, import_timm
from lavender.models.checkpoint_file import UNREADABLE, State, plain_names, reason
from lavender.models.checkpoint_folder import read_state
from lavender.runtime.errors import ConfigError, WeightsError

ITSELF = "model."  # name prefix of timm's model in this module
SEQUENCES = (nn.Sequential, nn.ModuleList)


class TimmImage(VideoBackbone):
    """A timm image model as a video backbone: frames (B, T, 3, H, W) → (B, T, h, w, C).

    The features are those of timm's `forward_features`, without prefix tokens such as [CLS]. Each frame is encoded
    separately; only the fusion encoder relates frames. Weights that do not affect the features, such as those of a
    pooling head, are frozen.

    Args:
        name: as for `timm.create_model`, with or without a tag of its weights.
        size_img: side of the frames in pixels; models of fixed size are built for it.
        drop_path: stochastic depth rate, for models that support it.

    Raises:
        ConfigError: timm has no such model, or the model gives no feature map of such frames.
    """

    place = "timm"

    def __init__(self, name: str, size_img: int = 224, drop_path: float = 0.2):
        super().__init__()
        check_timm_name(name)
        self.name = name
        self.options: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path}
        try:
            self.model = self._create(size_img)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"{TIMM}{name}, {size_img}×{size_img} pixels: timm says {reason(error)}") from error
        self.mean, self.std = (tuple(self.model.pretrained_cfg[key]) for key in ("mean", "std"))
        self.channels_last = getattr(self.model, "output_fmt", "") == "NHWC"
        self.tokens: dict[str, Any] = {}  # options of `forward_intermediates`, for models without feature maps
        self._measure(size_img)
        spared = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else ()
        self._no_decay = {ITSELF + parameter for parameter in spared}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(config.vis_backbone.removeprefix(TIMM), config.size_img, config.vis_backbone_drop_path)

    def _create(self, size_img: int) -> Any:
        """Creates the model with random weights; removes options that its constructor lacks from `self.options`."""
        timm = import_timm()
        released = timm.get_pretrained_cfg(self.name)
        if released is not None and released.fixed_input_size:
            self.options["img_size"] = size_img
        while True:
            try:
                return timm.create_model(self.name, pretrained=False, **self.options)
            except TypeError as error:  # such as: VGG.__init__() got an unexpected keyword argument 'drop_path_rate'
                unknown = self.options.keys() & set(re.findall(r"'(\w+)'", str(error)))
                if "unexpected keyword" not in str(error) or not unknown:
                    raise
                self.options = {name: value for name, value in self.options.items() if name not in unknown}

    def _measure(self, size_img: int) -> None:
        """Sets `width` and `pixels`, determines the layout of features, and freezes weights that do not affect them.

        Two images are passed through on the meta device, which computes only shapes.
        """
        weights = {name: weight.detach().to("meta").requires_grad_() for name, weight in self.named_parameters()}
        tensors = weights | {name: buffer.to("meta") for name, buffer in self.named_buffers()}
        images = torch.empty(2, 1, 3, size_img, size_img, device="meta")
        try:
            features = functional_call(self, tensors, (images,))
            if features.dim() == 4:  # (B, T, tokens, C)
                features = self._as_map(tensors, images)
            gradients = torch.autograd.grad(features.sum(), list(weights.values()), allow_unused=True)
            height, self.width = features.shape[2], features.shape[4]
        except (*UNREADABLE, NotImplementedError) as error:
            raise ConfigError(
                f"{TIMM}{self.name} has no feature map of {size_img}×{size_img} pixels ({reason(error)}): choose "
                "another size_img, or another model"
            ) from error
        self.pixels = size_img // height
        for weight, gradient in zip(self.parameters(), gradients, strict=True):
            weight.requires_grad_(gradient is not None)

    def _as_map(self, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
        """Sets `self.tokens`: timm arranges tokens as a map. Models with their last norm in the head lack `norm`."""
        self.tokens = {"indices": 1, "output_fmt": "NCHW", "intermediates_only": True, "norm": True}
        try:
            return functional_call(self, tensors, (images,))
        except AssertionError:
            self.tokens["norm"] = False
            return functional_call(self, tensors, (images,))

    def forward(self, img: Tensor) -> Tensor:
        images = img.flatten(0, 1)  # (B·T, 3, H, W)
        if self.tokens:
            features = self.model.forward_intermediates(images, **self.tokens)[-1]
        else:
            features = self.model.forward_features(images)
        if features.dim() == 4 and not (self.channels_last and not self.tokens):
            features = features.permute(0, 2, 3, 1)
        return features.unflatten(0, img.shape[:2])  # (B, T, h, w, C)

    def blocks(self) -> list[nn.Module]:
        return list(named_blocks(self.model)) or list(innermost_blocks(self.model))

    def decays(self, name: str, weight: nn.Parameter) -> bool:
        """Weight decay by timm's rule: none for vectors and for tables that the model names."""
        return weight.dim() > 1 and name not in self._no_decay

    def read_weights(self, config: Config) -> tuple[State, str] | None:
        if config.vis_backbone_init == "random":
            return None
        named = config.vis_backbone_path
        if named and not named.startswith(TIMM):
            state, source = plain_names(read_state(Path(named)), self.model.state_dict().keys(), named), named
        elif config.vis_backbone_init == "timm" and not named:
            state, source = fetch_timm(self.name, **self.options), TIMM + self.name
        else:
            raise WeightsError(
                f"vis_backbone_init is {config.vis_backbone_init} and vis_backbone_path {named or 'empty'}, which does "
                f"not say where to find the weights of {TIMM}{self.name}: name them with --vis_backbone_path, "
                "let timm fetch them: --vis_backbone_init timm, or start without: --vis_backbone_init random"
            )
        classifier = self.model.pretrained_cfg["classifier"] or ()
        heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
        state = {name: weight for name, weight in self._converted(state).items() if not name.startswith(heads)}
        return {ITSELF + name: weight for name, weight in state.items()}, source

    def resize(self, state: State) -> State:
        own = {name.removeprefix(ITSELF): weight for name, weight in state.items()}
        return {ITSELF + name: weight for name, weight in self._converted(own).items()}

    def _converted(self, state: State) -> State:
        """Converts weights of the original repository, or for another frame size, by timm's own rules."""
        fits = (name in state and state[name].shape == weight.shape for name, weight in self.model.state_dict().items())
        convert = getattr(sys.modules[type(self.model).__module__], "checkpoint_filter_fn", None)
        if convert is None or all(fits):
            return state
        try:
            return dict(convert(dict(state), self.model))
        except UNREADABLE:  # not a file of this model: loading reports what is missing
            return state

    @classmethod
    def describe(cls, state: Mapping[str, Tensor], config: Config, source: Path) -> dict[str, Any]:
        if not any(name.startswith(f"enc_img.{cls.place}.") for name in state):
            raise WeightsError(
                f"{source} has no model of timm under enc_img.{cls.place}; --vis_backbone says which backbone it has"
            )
        return {"vis_backbone": config.vis_backbone, "size_img": config.size_img}


def named_blocks(module: nn.Module, name: str = "") -> Iterator[nn.Module]:
    """Members of every sequence named `blocks`, timm's usual name."""
    inner = [block for name, child in module.named_children() for block in named_blocks(child, name)]
    yield from inner or (_members(module) if name == "blocks" else ())


def _members(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children() if isinstance(module, SEQUENCES) else ():
        if isinstance(child, SEQUENCES):
            yield from _members(child)
        else:
            yield child


def innermost_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Members of sequences that have several layers but contain no such members themselves."""
    for child in module.children():
        inner = list(innermost_blocks(child))
        if inner or not isinstance(module, SEQUENCES) or isinstance(child, SEQUENCES) or not any(child.children()):
            yield from inner
        else:
            yield child
