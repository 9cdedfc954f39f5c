"""Location of a BERT model: a folder, a folder under `_models`, or the Hugging Face hub."""

import json
from pathlib import Path

from lavender.config.schema import Config
from lavender.runtime.errors import WeightsError
from lavender.runtime.files import looked_from, mistaken_file, read_text
from lavender.runtime.jsons import load_json
from lavender.runtime.logging import LOGGER
from lavender.runtime.shards import find_shards, has_shards

LOCAL_MODELS = Path("_models/huggingface_transformers")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_OTHER_WEIGHTS = ("*.h5", "*.msgpack", "*.onnx", "*.ckpt*", "*.pt", "*.pth", "*.bin", "*.safetensors")
_TEXT_FILES = ["config.json", "vocab.txt", "tokenizer_config.json"]


def bert_of(config: Config, option: str) -> Path:
    """Folder of `txt_backbone` or `fusion_encoder`; errors mention a checkpoint's `args.json` if that named it."""
    try:
        return find_bert(getattr(config, option))
    except WeightsError as error:
        source = config.given.get(option, "")
        if "args.json" not in source:
            raise
        raise WeightsError(f"{error}; {source} names it as {option}: name your own with --{option}") from error


def find_bert(name: str) -> Path:
    """Finds the folder of a BERT model (config, vocabulary and, optionally, weights).

    Args:
        name: a folder; else a name under `_models/huggingface_transformers/`; else a name on the hub.

    Raises:
        WeightsError: none of the three exists; the message says where to put the folder.
    """
    for folder in (Path(name), LOCAL_MODELS / name):
        if folder.is_dir():
            return _checked(folder)
    return _checked(_download(name))


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights besides config and vocabulary."""
    return any((folder / name).is_file() for name in WEIGHT_FILES) or has_shards(folder)


def lowercases(folder: Path) -> bool:
    """`do_lower_case` of the folder's tokenizer; true by default."""
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return True
    try:
        settings = load_json(read_text(path, WeightsError))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(settings, dict):
        raise WeightsError(f"{path}: an object of settings is expected")
    return bool(settings.get("do_lower_case", True))


def _checked(folder: Path) -> Path:
    for name in ("config.json", "vocab.txt"):
        if not (folder / name).is_file():
            raise WeightsError(
                f"{folder}: no {name}{looked_from(folder)}; a BERT folder holds config.json, vocab.txt and its weights"
            )
    whole = any((folder / name).is_file() for name in WEIGHT_FILES)
    parts = () if whole else (path.name for path in find_shards(folder, WeightsError))
    for name in (*_TEXT_FILES, *WEIGHT_FILES, *parts):
        path = folder / name
        if path.is_file() and path.stat().st_size and (fault := mistaken_file(path, zipped=name.endswith(".bin"))):
            raise WeightsError(f"{path}: {fault}")
    others = sorted(path.name for kind in _OTHER_WEIGHTS for path in folder.glob(kind))
    if others and not has_weights(folder):
        LOGGER.warning(
            "%s: its weights (%s) are not read, so they stay random; put model.safetensors or pytorch_model.bin there",
            *(folder, ", ".join(others[:3])),
        )
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        for weights in WEIGHT_FILES:  # the second only if the hub lacks the first
            folder = Path(snapshot_download(name, allow_patterns=[*_TEXT_FILES, weights], etag_timeout=10))
            if has_weights(folder):
                break
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError) as error:
        reason = str(error).split("\n")[0][:120]
        raise WeightsError(
            f'"{name}" is not a folder here{looked_from(name)}, not one under {LOCAL_MODELS}/, and could not be '
            f"fetched from the hub ({reason}); put config.json, vocab.txt and model.safetensors into "
            f"{LOCAL_MODELS / name}/"
        ) from error
    return folder
