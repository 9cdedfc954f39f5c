"""Lazy import of timm: its models by name, and their pretrained weights from the hub."""

import difflib
from types import ModuleType

from lavender.models.checkpoint_file import State, reason
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.runtime.torchvision_ops import ensure_torchvision

TIMM = "timm:"  # prefix of timm model names


def import_timm() -> ModuleType:
    """Imports timm, which takes seconds; a run with Video Swin does not need it.

    Raises:
        ConfigError: timm is not installed.
    """
    try:
        ensure_torchvision()
        import timm
    except ImportError as error:
        raise ConfigError(f"timm cannot be imported ({reason(error)}): pip install -r requirements.txt") from error
    return timm


def check_timm_name(name: str) -> None:
    """Raises ConfigError if timm has no model of this name; a tag, as in `resnet50.a1_in1k`, is not checked."""
    timm = import_timm()
    known, bare = timm.list_models(), name.partition(".")[0]
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=4, cutoff=0.6)
        advice = f"did you mean {', '.join(near)}?" if near else "timm.list_models() in Python lists them"
        raise ConfigError(f'timm {timm.__version__} has no model "{bare}"; {advice}')


def fetch_timm(name: str, **options: object) -> State:
    """Fetches the weights of a model from timm's cache or the hub; no code in them can run.

    Args:
        name: timm's name, with or without a tag; options: constructor options of the model.

    Raises:
        WeightsError: there are no such weights, or the hub cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        return dict(import_timm().create_model(name, pretrained=True, **options).state_dict())
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f'"{TIMM}{name}" could not be fetched from the hub ({reason(error)}); fetch it where there is a '
            "network, and name the file with --vis_backbone_path (its .safetensors is read as it is)"
        ) from error
