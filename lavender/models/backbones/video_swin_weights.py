"""Pretrained weights for Video Swin: the released files, 2D Swin (inflated) and torchvision's Video Swin.

Layouts of other projects follow their public code; tests compare them with the installed timm and torchvision.
"""

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from lavender.config.schema import Config
from lavender.models.backbones.timm_hub import TIMM, fetch_timm, import_timm
from lavender.models.backbones.video_swin_sizes import SWIN_SIZES, Size3, swin_size
from lavender.models.checkpoint_file import State, plain_names, reason
from lavender.models.checkpoint_folder import read_state
from lavender.runtime.errors import WeightsError
from lavender.runtime.files import looked_from
from lavender.runtime.torchvision_ops import ensure_torchvision

VIDEO_SWIN_FOLDER = Path("_models/video_swin_transformer")
SWIN_FOLDER = Path("_models/swin_transformer")
PATCH_FRAMES = 2  # frames in Video Swin's patch kernel
PATCH_KERNEL = "patch_embed.proj.weight"
TORCHVISION = {  # our size → torchvision's model and its Kinetics-400 weights
    "tiny": ("swin3d_t", "KINETICS400_V1"),
    "small": ("swin3d_s", "KINETICS400_V1"),
    "base": ("swin3d_b", "KINETICS400_IMAGENET22K_V1"),
}


def read_backbone(config: Config, own: Iterable[str]) -> tuple[State, str]:
    """Reads the weights of the video backbone by `vis_backbone_init`, under our names, with their source.

    Args:
        own: names in a Video Swin of this size.

    Raises:
        WeightsError: the weights are missing, damaged, or of another kind than `vis_backbone_init`.
    """
    kind = config.vis_backbone_init
    state, source = _read_backbone(config)
    state = plain_names(state, backbone_names(own), source)
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    found = backbone_kind(state)
    if found != kind:
        what = f"is for --vis_backbone_init {found}" if found else "is no Swin whose names are known"
        raise WeightsError(f"{source} {what}, and vis_backbone_init is {kind}; name another with --vis_backbone_path")
    return to_video_swin(state, kind, SWIN_SIZES[swin_size(config)].window), source


def _read_backbone(config: Config) -> tuple[State, str]:
    """Reads the tensors under their original names, with their source."""
    kind, named = config.vis_backbone_init, config.vis_backbone_path
    if named.startswith(TIMM):
        if kind != "2d":
            raise WeightsError(f"{named} is a model of images: set --vis_backbone_init 2d")
        return fetch_timm_swin(named.removeprefix(TIMM)), named
    if kind == "timm":
        raise WeightsError(
            "vis_backbone_init is timm, and vis_backbone is Video Swin: a 2D Swin of timm is read with "
            f"--vis_backbone_init 2d --vis_backbone_path {TIMM}swin_base_patch4_window7_224"
        )
    path = Path(named or backbone_file(config))
    if kind == "torchvision" and not named and not path.is_file():
        return fetch_torchvision(config.vis_backbone_size), torchvision_weights(config.vis_backbone_size)[1]
    if not path.exists():
        raise WeightsError(
            f"{path}: the weights of the video backbone are not there{looked_from(path)}; put the file there, "
            "name another with --vis_backbone_path, take torchvision's: --vis_backbone_init torchvision, or start "
            "without them: --vis_backbone_init random"
        )
    return read_state(path), str(path)


def backbone_file(config: Config) -> Path:
    """Path of the released weights, such as `swin_base_patch244_window877_kinetics600_22k.pth`."""
    if config.vis_backbone_init == "torchvision":
        return VIDEO_SWIN_FOLDER / torchvision_weights(config.vis_backbone_size)[0]
    if config.vis_backbone_init == "2d":
        return _first_there(*(SWIN_FOLDER / name for name in swin_files(config)))
    return VIDEO_SWIN_FOLDER / video_swin_file(config)


def swin_files(config: Config) -> list[str]:
    """Released file names of an ImageNet backbone, such as `swin_base_patch4_window7_224_22k.pth`; usual one first."""
    window = "window12_384" if swin_size(config) == "large_384" else "window7_224"
    name = f"swin_{config.vis_backbone_size}_patch4_{window}"
    if config.vis_backbone_size in ("base", "large"):
        return [f"{name}_22k.pth"]
    return [f"{name}.pth", f"{name}_22k.pth"]  # the released code uses the second for size small


def _first_there(*paths: Path) -> Path:
    return next((path for path in paths if path.is_file()), paths[0])


def video_swin_file(config: Config) -> str:
    """Released file name of a Kinetics backbone, e.g. `swin_base_patch244_window877_kinetics600_22k.pth`."""
    pretraining = "22k" if config.vis_backbone_size in ("base", "large") else "1k"
    size, window = swin_size(config), "window81212" if swin_size(config) == "large_384" else "window877"
    return f"swin_{size}_patch244_{window}_kinetics{config.kinetics}_{pretraining}.pth"


# --- names of others --------------------------------------------------------------------------------------------------


def backbone_kind(state: State) -> str:
    """Value of `vis_backbone_init` for a state: 3d, 2d, torchvision; "" if it is not a known Swin."""
    kernel = state.get(PATCH_KERNEL)
    if kernel is None or kernel.dim() not in (4, 5):
        return ""
    if any(name.startswith("features.") for name in state):
        return "torchvision"
    return "2d" if kernel.dim() == 4 else "3d"


def backbone_names(own: Iterable[str]) -> set[str]:
    """Names in files of all kinds for the weights `own` of our Video Swin; for `plain_names`."""
    merging, blocks = re.compile(r"layers\.(\d+)\.downsample\.(.+)"), re.compile(r"layers\.(\d+)\.blocks\.(.+)")
    names = set(own)
    for name in list(names):
        if match := merging.fullmatch(name):
            stage = int(match[1])
            names |= {f"layers.{stage + 1}.downsample.{match[2]}", f"features.{2 * stage + 1}.{match[2]}"}
        elif match := blocks.fullmatch(name):
            rest = match[2].replace("mlp.fc1.", "mlp.0.").replace("mlp.fc2.", "mlp.3.")
            names.add(f"features.{2 * int(match[1])}.{rest}")
    return names


def to_video_swin(state: State, kind: str, window: Size3) -> State:
    """Converts a backbone of any kind to the names of our Video Swin, without its classification head.

    Args:
        kind: result of `backbone_kind`; window: (time, height, width) of the target model.

    Raises:
        WeightsError: a bias table is not square.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith(("head.", "cls_head."))}
    if kind == "torchvision":
        return from_torchvision(state)
    return inflate(from_timm(state), window) if kind == "2d" else state


def from_torchvision(state: State) -> State:
    """Renames torchvision's `swin3d_*`: even numbers of `features` are blocks, odd ones patch merging."""
    return {_from_torchvision(name): tensor for name, tensor in state.items()}


def _from_torchvision(name: str) -> str:
    match = re.fullmatch(r"features\.(\d+)\.(.+)", name)
    if not match:
        return name
    stage, merging = divmod(int(match[1]), 2)
    rest = match[2].replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
    return f"layers.{stage}.downsample.{rest}" if merging else f"layers.{stage}.blocks.{rest}"


def from_timm(state: State) -> State:
    """Renames timm's 2D Swin to its original names: timm (from 0.9) counts patch merging to the next stage.

    The four patches are merged in the same order, so no weight is permuted.
    """
    if any(name.startswith("layers.0.downsample.") for name in state):
        return state
    merging = re.compile(r"layers\.(\d+)\.downsample\.(.+)")
    matches = {name: merging.fullmatch(name) for name in state}
    return {
        f"layers.{int(match[1]) - 1}.downsample.{match[2]}" if match else name: state[name]
        for name, match in matches.items()
    }


def inflate(state: State, window: Size3) -> State:
    """Inflates a 2D Swin to Video Swin (Liu et al., Video Swin Transformer, "Initialization from Pre-trained Model").

    The patch kernel (C, 3, 4, 4) is repeated over its two frames and halved, so that two equal frames give the same
    output as one frame before. A bias table ((2h−1)(2w−1), heads) is repeated for the 2·time−1 temporal offsets, after
    bicubic resizing if the window differs.
    """
    inflated = {}
    for name, tensor in state.items():
        if name.endswith(("attn_mask", "relative_position_index")):
            continue
        if name == PATCH_KERNEL:
            tensor = tensor[:, :, None].repeat(1, 1, PATCH_FRAMES, 1, 1) / PATCH_FRAMES  # (C, 3, 2, 4, 4)
        elif name.endswith("relative_position_bias_table"):
            tensor = resize_bias(name, tensor, window[1], window[2]).repeat(2 * window[0] - 1, 1)
        inflated[name] = tensor
    return inflated


def resize_bias(name: str, table: Tensor, height: int, width: int) -> Tensor:
    """Resizes biases of a square window, ((2n−1)², heads), to height × width: ((2h−1)(2w−1), heads)."""
    side, size = math.isqrt(table.shape[0]) if table.dim() == 2 else 0, (2 * height - 1, 2 * width - 1)
    if not side or side**2 != len(table):
        shape = "×".join(map(str, table.shape))
        raise WeightsError(f"{name} is {shape}, which is no table of a square window: this is no 2D Swin")
    if (side, side) == size:
        return table
    grid = table.float().t().reshape(1, -1, side, side)  # (1, heads, 2n−1, 2n−1)
    return F.interpolate(grid, size=size, mode="bicubic").flatten(2)[0].t()


# --- from the network -------------------------------------------------------------------------------------------------


def torchvision_weights(size: str) -> tuple[str, str]:
    """File name and URL of torchvision's weights for one of our sizes.

    Raises:
        WeightsError: torchvision has no such size.
    """
    url = _torchvision(size).url
    return url.rsplit("/", 1)[-1], url


def _torchvision(size: str) -> Any:  # an enum of torchvision, which has no types
    ensure_torchvision()
    from torchvision.models import get_model_weights

    if size not in TORCHVISION:
        raise WeightsError(
            f'torchvision has no Video Swin of size "{size}": set vis_backbone_size to {", ".join(TORCHVISION)}, '
            "or name a file with --vis_backbone_path"
        )
    model, weights = TORCHVISION[size]
    return get_model_weights(model)[weights]


def fetch_torchvision(size: str) -> State:
    """Fetches torchvision's weights for one of our sizes from its cache or the network; no code in them can run."""
    weights = _torchvision(size)
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"{weights.url} could not be fetched ({reason(error)}); put it elsewhere on this machine and name it "
            "with --vis_backbone_path, or start without it: --vis_backbone_init random"
        ) from error


def fetch_timm_swin(name: str) -> State:
    """Fetches the state of a 2D Swin through timm, from the hub or its cache.

    Raises:
        WeightsError: timm does not know the name, the model is not a Swin, or the hub cannot be reached.
    """
    known = import_timm().list_models("swin_*")
    if name.split(".")[0] not in known:
        raise WeightsError(f'"{TIMM}{name}" is no 2D Swin of timm; it has {", ".join(known)}')
    return fetch_timm(name)
