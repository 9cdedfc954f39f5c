"""Download and upload of exported models on the Hugging Face hub: only safetensors, JSON and text."""

import json
import re
from pathlib import Path
from typing import Any

from lavender.config.load import read_object
from lavender.inference.model_card import CARD_FILE, without_folders
from lavender.models.checkpoint_folder import WEIGHTS_FILE
from lavender.models.pretrained import ARGUMENTS_FILE, CONFIG_FILE, VOCABULARY
from lavender.runtime.errors import ConfigError, WeightsError
from lavender.runtime.files import looked_from

_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
_SHARED = (CARD_FILE, CONFIG_FILE, ARGUMENTS_FILE, *VOCABULARY, WEIGHTS_FILE)


def download(name: str) -> Path:
    """Downloads an exported model from the hub into the cache and returns its folder; never reads pickles.

    Raises:
        WeightsError: there is no such model, or no network.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.safetensors"], etag_timeout=10))
    except _faults() as error:
        raise WeightsError(
            f"{name}: no such checkpoint here{looked_from(name)}, and none of that name could be fetched from the hub "
            f"({_reason(error)})"
        ) from error


def check_upload(name: str) -> None:
    """Checks an upload as far as possible before a model is exported.

    Raises:
        ConfigError: the name is not OWNER/NAME, or there is no login.
    """
    from huggingface_hub import get_token

    if not _NAME.fullmatch(name):
        raise ConfigError(f"--push {name}: a name on the hub is OWNER/NAME, of letters, digits, - _ and .")
    if not get_token():
        raise ConfigError(f"--push {name}: nobody is logged in to the hub; {_LOGIN}")


def push(folder: Path, name: str, private: bool = False) -> str:
    """Uploads an exported folder in one commit. In `args.json`, absolute paths are reduced to their last part.

    Args:
        name: OWNER/NAME; created if missing. private: visible to its owner only.

    Returns:
        the URL of the model

    Raises:
        ConfigError: private was requested, but the model is public. WeightsError: the hub refused, or is unreachable.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    operations = [CommitOperationAdd(file, _content(folder / file)) for file in _SHARED if (folder / file).is_file()]
    api = HfApi()
    try:
        address = str(api.create_repo(name, private=private or None, exist_ok=True))
        if private and not api.repo_info(name).private:
            raise ConfigError(
                f"--private: {name} is on the hub and public; make it private there, or choose another name"
            )
        api.create_commit(name, operations, commit_message="A model exported by _tools/export.py")
    except _faults() as error:
        raise WeightsError(
            f"{folder} is whole, but could not be uploaded to {name} ({_reason(error)}); check the network and "
            f"the name, or {_LOGIN}"
        ) from error
    return address


def _content(path: Path) -> Any:
    if path.name != ARGUMENTS_FILE:
        return str(path)
    return json.dumps(without_folders(read_object(path)), indent=2).encode()


def _faults() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HFValidationError, HTTPError

    return HTTPError, HFValidationError, OSError


def _reason(error: Exception) -> str:
    return str(error).split("\n")[0][:120]
