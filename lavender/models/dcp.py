"""Checkpoints of torch.distributed.checkpoint (FSDP): a folder of `.metadata` and `*.distcp`, read by one process.

torch's own reader unpickles `.metadata` without restrictions. Here its classes become inert records, and each piece of
a tensor is read like any other file of weights.
"""

import io
import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lavender.models.checkpoint_file import OTHERS, Inert, Survey, load_checkpoint_file
from lavender.runtime.pickles import check_pickle

METADATA, PIECES = ".metadata", "*.distcp"
CONVERTER = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
_LARGEST = 64 << 20  # maximum bytes of `.metadata`
_DEEPEST = 8  # maximum nesting of keys above a tensor


class _Record(Inert):
    """Object in the metadata: the state that its class would have received."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def field(self, name: str, kind: type) -> Any:
        value = self.state.get(name) if isinstance(self.state, dict) else None
        if not isinstance(value, kind):
            raise ValueError(f"{METADATA} has no {name}")
        return value


class _Metadata(Survey):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if (module, name) == ("torch", "Size"):
            return tuple
        kind = super().find_class(module, name)
        return type(name, (_Record, kind), {}) if module.startswith("torch.distributed.") else kind


def read_dcp(folder: Path) -> dict[str, Any]:
    """Reads the tensors of such a folder into their original nested dictionaries, without optimizer states.

    Raises:
        ValueError, pickle.UnpicklingError, errors of torch and the system: pieces are missing, damaged or hostile.
    """
    metadata = _read_metadata(folder / METADATA)
    paths = metadata.state.get("planner_data")
    pieces: dict[str, dict[tuple, _Record]] = {}
    for index, info in metadata.field("storage_data", dict).items():
        if isinstance(index.state, dict) and index.state.get("offset") is not None:
            pieces.setdefault(index.field("fqn", str), {})[index.field("offset", tuple)] = info
    content: dict[str, Any] = {}
    for name, about in metadata.field("state_dict_metadata", dict).items():
        keys = paths.get(name) if isinstance(paths, dict) else None
        if not (isinstance(keys, tuple) and 0 < len(keys) <= _DEEPEST and all(isinstance(key, str) for key in keys)):
            keys = (str(name),)
        if "size" in (about.state or {}) and not keys[0].startswith(OTHERS):  # else an object, not a tensor
            place = content
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = _tensor(folder, str(name), about, pieces.get(name, {}))
    return content


def _read_metadata(path: Path) -> _Record:
    size = path.stat().st_size
    if size > _LARGEST:
        raise ValueError(f"{METADATA} has {size:,} bytes, which are too many")
    stream = io.BytesIO(path.read_bytes())
    check_pickle(stream)
    stream.seek(0)
    metadata = _Metadata(stream, size).load()
    if not isinstance(metadata, _Record) or not isinstance(metadata.state, dict):
        raise ValueError(f"{METADATA} does not describe a checkpoint")
    return metadata


def _tensor(folder: Path, name: str, about: _Record, pieces: dict[tuple, _Record]) -> Tensor:
    """Assembles a tensor from its pieces, which must cover it."""
    size, dtype = about.field("size", tuple), about.field("properties", _Record).state[0]
    chunks = [(chunk.field("offsets", tuple), chunk.field("sizes", tuple)) for chunk in about.field("chunks", list)]
    numbers = [number for shape in (size, *(part for chunk in chunks for part in chunk)) for number in shape]
    if not isinstance(dtype, torch.dtype) or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError(f"{METADATA} does not say what {name} is")
    if sum(math.prod(sizes) for _, sizes in chunks) != math.prod(size) or len(dict(chunks)) < len(chunks):
        raise ValueError(f"the pieces of {name} do not make the whole")
    loaded = []
    for offsets, sizes in chunks:
        if offsets not in pieces:
            raise ValueError(f"{METADATA} does not say where a piece of {name} is")
        piece = _piece(folder, name, pieces[offsets])
        ends = [offset + length for offset, length in zip(offsets, sizes, strict=True)]
        if tuple(piece.shape) != sizes or piece.dtype != dtype or any(map(int.__gt__, ends, size)):
            raise ValueError(f"a piece of {name} is not as {METADATA} says")
        loaded.append((tuple(map(slice, offsets, ends)), piece))
    whole = torch.full(size, math.nan if dtype.is_floating_point else 0, dtype=dtype)  # NaN marks holes
    for place, piece in loaded:
        whole[place] = piece
    return whole


def _piece(folder: Path, name: str, info: _Record) -> Tensor:
    file, start, length = (
        info.field(key, kind) for key, kind in (("relative_path", str), ("offset", int), ("length", int))
    )
    if file != Path(file).name:
        raise ValueError(f"{METADATA} says that {name} is outside the folder")
    if info.state.get("transform_descriptors"):
        raise ValueError(f"{name} is compressed")
    path = folder / file
    if not path.is_file():
        raise ValueError(f"{file} is not there; copy all files of the folder")
    if start < 0 or length < 0 or start + length > path.stat().st_size:
        raise ValueError(f"{file} is cut: {name} ends after the end of the file")
    with open(path, "rb") as stream:
        stream.seek(start)
        value = load_checkpoint_file(io.BytesIO(stream.read(length)))
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        raise pickle.UnpicklingError(f"{name} in {file} is no tensor")
    return value
