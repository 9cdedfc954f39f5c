"""Checkpoints by path: a file, or a folder with one file, with shards, from FSDP, or from DeepSpeed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lavender.models.checkpoint_file import (
    UNREADABLE,
    State,
    find_state,
    load_checkpoint_file,
    plain_tensors,
    reason,
)
from lavender.models.dcp import CONVERTER, METADATA, PIECES, read_dcp
from lavender.runtime.errors import WeightsError
from lavender.runtime.files import looked_from, mistaken_file
from lavender.runtime.logging import LOGGER
from lavender.runtime.shards import Shards, find_shards, part_of

WEIGHTS_FILE = "model.safetensors"  # weights in an exported folder
WHOLE_FILES = (WEIGHTS_FILE, "pytorch_model.bin")
DEEPSPEED_FILE = "mp_rank_00_model_states.pt"
SPLIT_STATES, OPTIMIZER_STATES = "zero_pp_rank_*_model_states.pt", "*zero_pp_rank_*_optim_states.pt"


def read_state(path: Path) -> State:
    """Reads the tensors of a checkpoint; no code in it can run.

    Args:
        path: a `.pt`/`.pth` file (the tensors themselves, or under a key such as `state_dict`), a `.safetensors` file,
            an index of shards, or a folder: exported, with shards (with or without an index), of
            torch.distributed.checkpoint (FSDP), or of DeepSpeed.

    Raises:
        WeightsError: the checkpoint is missing, incomplete, of another kind, or not a dictionary of tensors.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such checkpoint{looked_from(path)}; check --path_ckpt (or the file under _models/)"
        )
    if path.name.endswith(".index.json"):
        return _read_parts(find_shards(path.parent, WeightsError, path), path.parent)
    _refuse_piece(path)
    return _read_file(path)


def _read_file(file: Path) -> State:
    if fault := mistaken_file(file, zipped=True):
        raise WeightsError(f"{file}: {fault}")
    load: Callable[[Path], Any] = load_file if _is_safetensors(file) else load_checkpoint_file
    try:
        content = load(file)
    except UNREADABLE as error:
        raise WeightsError(f"{file}: cannot be read as a file of weights alone ({reason(error)})") from error
    return plain_tensors(find_state(content, file), file)


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins like safetensors, whatever its name: a length of eight bytes, then JSON.

    Raises:
        WeightsError: it is a torch file with the extension of safetensors, by which torch would load it.
    """
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[8:] != b"{" and file.suffix == ".safetensors" and head.startswith((b"PK", b"\x80")):  # a zip, a pickle
        raise WeightsError(f"{file}: it is a file of torch.save, not of safetensors; rename it to {file.stem}.pt")
    return head[8:] == b"{" or file.suffix == ".safetensors"


def _refuse_piece(file: Path) -> None:
    """Raises WeightsError if a file is only a part of a checkpoint; the message names the whole."""
    number, count = part_of(file)
    if count > 1:
        raise WeightsError(f"{file}: part {number} of {count}; give the folder that has all of them: {file.parent}")
    if file.match(PIECES) or file.name == METADATA:
        raise WeightsError(f"{file}: a piece of a checkpoint of FSDP; give its folder: {file.parent}")
    if file.match(SPLIT_STATES) or file.match(OPTIMIZER_STATES):
        raise WeightsError(f"{file}: a piece of a checkpoint of DeepSpeed; give its folder: {file.parent}")


# --- folders ----------------------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> State:
    for name in WHOLE_FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
    if shards := find_shards(folder, WeightsError):
        return _read_parts(shards, folder)
    if (folder / METADATA).is_file() or any(folder.glob(PIECES)):
        return _read_pieces(folder)
    return _read_file(_deepspeed_file(folder))


def _read_parts(shards: Shards, folder: Path) -> State:
    """Reads all shards as one state; each tensor must be in the shard that the index names."""
    state: State = {}
    for file, names in shards.items():
        part = _read_file(file)
        if absent := [name for name in names if name not in part]:
            raise WeightsError(
                f"{file}: lacks {absent[0]}, which the index says is in it; copy or download the folder again"
            )
        if twice := state.keys() & part.keys():
            raise WeightsError(f"{file}: {min(twice)} is in another part too; copy or download the folder again")
        state |= part
    LOGGER.info("%s: %d tensors from %d files", folder, len(state), len(shards))
    return state


def _read_pieces(folder: Path) -> State:
    if not (folder / METADATA).is_file():
        raise WeightsError(
            f"{folder}: a checkpoint of FSDP (torch.distributed.checkpoint) without its {METADATA}: it was not saved "
            "to its end, or not copied whole (names that begin with a dot are left out by `cp *`)"
        )
    for file in (folder / METADATA, *sorted(folder.glob(PIECES))):
        if fault := mistaken_file(file, zipped=True):
            raise WeightsError(f"{file}: {fault}")
    try:
        content = read_dcp(folder)
    except UNREADABLE as error:
        raise WeightsError(
            f"{folder}: a checkpoint of FSDP (torch.distributed.checkpoint) that cannot be read here ({reason(error)}"
            f"); make one file of it, if you trust it, with `{CONVERTER} {folder} weights.pt`, and give --path_ckpt "
            "weights.pt"
        ) from error
    LOGGER.info("%s: a checkpoint of FSDP (torch.distributed.checkpoint) is read", folder)
    return plain_tensors(find_state(content, folder), folder)


def _deepspeed_file(folder: Path) -> Path:
    """File of weights in a DeepSpeed checkpoint.

    Raises:
        WeightsError: the weights are sharded, or the folder is something else; the message says what to give instead.
    """
    latest = folder / "latest"
    if latest.is_file() and (fault := mistaken_file(latest)):
        raise WeightsError(f"{latest}: {fault}")
    tag = latest.read_text(errors="replace").strip()[:200] if latest.is_file() else ""
    step = folder / tag if tag and tag == Path(tag).name else folder
    if not step.is_dir():
        raise WeightsError(f"{latest} names {tag}, which is not in {folder}: copy it too, or give one that is")
    split, optimizers = sorted(step.glob(SPLIT_STATES)), sorted(step.glob(OPTIMIZER_STATES))
    join = (
        f"join them with DeepSpeed's `python zero_to_fp32.py {folder} joined`, and give --path_ckpt what it writes, "
        "joined"
    )
    if split:
        raise WeightsError(f"{step}: its weights are split over {len(split)} files (ZeRO 3): {join}")
    found = step / DEEPSPEED_FILE
    if found.is_file():
        if len(list(step.glob("mp_rank_*_model_states.pt"))) > 1:
            raise WeightsError(f"{step}: its weights are split by model parallelism; join them and give one file")
        LOGGER.info("%s: DeepSpeed's %s is read", folder, found.relative_to(folder))
        return found
    if optimizers:
        raise WeightsError(
            f"{step}: a checkpoint of DeepSpeed with {len(optimizers)} files of optimizer states, such as "
            f"{optimizers[0].name}, and without those of the weights (*_model_states.pt): copy these too; of ZeRO 3, "
            f"{join}"
        )
    if any(step.glob("zero/*/fp32.pt")):
        raise WeightsError(f"{step}: a universal checkpoint of DeepSpeed; give the one that it was made from")
    raise WeightsError(_what_is_there(folder))


def _what_is_there(folder: Path) -> str:
    steps = sorted({path.parent.name for path in folder.glob("*/*_states.pt")})
    if steps:
        return f"{folder}: checkpoints of DeepSpeed are in it; give one of {', '.join(steps[-5:])}"
    inner = sorted({path.parent.name for kind in (METADATA, *WHOLE_FILES) for path in folder.glob(f"*/{kind}")})
    if inner:
        return f"{folder}: folders of weights are in it; give one of {', '.join(inner[-5:])}"
    files = sorted(path.name for kind in ("pt", "pth", "bin", "safetensors") for path in folder.glob(f"*.{kind}"))
    if files:
        return f"{folder}: a folder; give one of its files to --path_ckpt: {', '.join(files[-5:])}"
    return (
        f"{folder}: no such checkpoint{looked_from(folder)}; check --path_ckpt (or the file under _models/); this "
        f"folder has no weights, and a folder of weights holds {WEIGHTS_FILE}"
    )
