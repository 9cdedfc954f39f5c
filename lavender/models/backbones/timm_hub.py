"""timm, imported when it is needed: its models by name, and their pretrained weights from the hub."""

import difflib
from types import ModuleType

from lavender.models.checkpoint_file import State, reason
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.runtime.torchvision_ops import ensure_torchvision

TIMM = "timm:"  # before the name of one of its models


def import_timm() -> ModuleType:
    """The package. Its import takes seconds, and a run with Video Swin does not need it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        ensure_torchvision()
        import timm
    except ImportError as error:
        raise ConfigError(f"timm cannot be imported ({reason(error)}): pip install -r requirements.txt") from error
    return timm


def check_timm_name(name: str) -> None:
    """Raises ConfigError where timm has no model of this name; a tag, as in `resnet50.a1_in1k`, is not looked at."""
    timm = import_timm()
    known, bare = timm.list_models(), name.partition(".")[0]
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=4, cutoff=0.6)
        advice = f"did you mean {', '.join(near)}?" if near else "timm.list_models() in Python lists them"
        raise ConfigError(f'timm {timm.__version__} has no model "{bare}"; {advice}')


def fetch_timm(name: str, **options: object) -> State:
    """The weights of a model, from timm's cache or the hub; no code in them is run.

    Args:
        name: as timm has it, with or without a tag; options: of the model that is to be filled.

    Raises:
        WeightsError: there are none, or the hub cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        return dict(import_timm().create_model(name, pretrained=True, **options).state_dict())
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
        raise WeightsError(
            f'"{TIMM}{name}" could not be fetched from the hub ({reason(error)}); fetch it where there is a '
            "network, and name the file with --vis_backbone_path (its .safetensors is read as it is)"
        ) from error
