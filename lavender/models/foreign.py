"""Weights from outside: files of any kind read, and SwinBERT's weights under our names."""

import pickle
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file

from lavender.models.checkpoint_file import (
    State,
    file_in_folder,
    find_state,
    load_checkpoint_file,
    plain_tensors,
)
from lavender.runtime.errors import WeightsError
from lavender.runtime.files import mistaken_file

WEIGHTS_FILE = "model.safetensors"  # of an exported folder
SWINBERT = {  # beginnings of the names in a SwinBERT checkpoint → of ours
    "swin.backbone.": "enc_img.swin.",
    "fc.": "enc_img.fc.",
    "trans_encoder.bert.img_embedding.": "enc_img.img_embedding.",
    "trans_encoder.bert.embeddings.": "enc_txt.emb_txt.",
    "trans_encoder.bert.encoder.": "trsfr.",
    "trans_encoder.cls.": "fc_mtm.",
}
# What torch, safetensors and transformers raise at a cut, damaged or hostile file, as tried with many of them.
UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, AssertionError),
    *(OSError, TypeError, SafetensorError, StrictDataclassError, zipfile.BadZipFile),
    *(MemoryError, RecursionError, OverflowError),
)


def reason(error: BaseException) -> str:
    """A library's message in a few words: what was met, without its advice to switch the safeguard off."""
    met = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
    if met and isinstance(error, pickle.UnpicklingError):
        return f"it asks for {met.group(1) or met.group(2)}, which is no weight"
    first, *more = str(error).strip().split("\n")
    if first.endswith(":") and more:
        first = f"{first} {more[0].strip()}"
    return (first or type(error).__name__)[:160]


def read_state(path: Path) -> State:
    """The tensors of a checkpoint; no code in it is run.

    Args:
        path: a `.pt`/`.pth` file (the tensors themselves, or under `state_dict`, `model` or `module`), a
            `.safetensors` file, or an exported folder.

    Raises:
        WeightsError: missing, not such a file, or not a dictionary of tensors.
    """
    file = file_in_folder(path, WEIGHTS_FILE) if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"{path}: no such checkpoint; check --path_ckpt (or the file under _models/)")
    if fault := mistaken_file(file, zipped=True):
        raise WeightsError(f"{file}: {fault}")
    try:
        content = load_file(file) if file.suffix == ".safetensors" else load_checkpoint_file(file)
    except UNREADABLE as error:
        raise WeightsError(f"{file}: cannot be read as a file of weights alone ({reason(error)})") from error
    return plain_tensors(find_state(content, file), file)


# --- SwinBERT ---------------------------------------------------------------------------------------------------------


def is_swinbert(state: State) -> bool:
    """Whether a checkpoint has SwinBERT's own names (one that was trained further here has ours)."""
    return any(name.startswith("trans_encoder.") for name in state)


def swinbert_names(own: Iterable[str]) -> list[str]:
    """Our names as a SwinBERT checkpoint has them."""
    pairs = SWINBERT.items()
    return [theirs + name.removeprefix(ours) for name in own for theirs, ours in pairs if name.startswith(ours)]


def from_swinbert(state: State) -> State:
    """A SwinBERT checkpoint under our names; what has no place here keeps its own, and is reported as left over."""
    renamed = {}
    for name, tensor in state.items():
        theirs = next((prefix for prefix in SWINBERT if name.startswith(prefix)), "")
        renamed[SWINBERT.get(theirs, "") + name.removeprefix(theirs)] = tensor
    return renamed
