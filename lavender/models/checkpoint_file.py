"""Safe loading of untrusted weight files: only tensors under plain names are used.

A file is first read with every class replaced by an inert one, which shows the classes and storage sizes that it
requests. Then torch loads it with `weights_only`, with the same inert classes for everything that is neither a tensor
nor a plain value. No class of the file is imported, and none of its code runs.
"""

import io
import pickle
import re
import sys
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor

from lavender.runtime.errors import WeightsError
from lavender.runtime.logging import LOGGER
from lavender.runtime.pickles import CUT, check_pickle, file_size, torch_pickles

State = dict[str, Tensor]

# Keys of the weights in a checkpoint, the likeliest first, and of a copy averaged over training.
WRAPPERS = ("model_state_dict", "state_dict", "model_state", "model", "module", "net", "network", "params", "weights")
AVERAGES = ("ema", "teacher", "averaged", "shadow", "momentum")
OTHERS = ("optim", "sched", "scaler", "rng", "amp", "args", "config")
# Name parts inserted by torch's wrappers: DDP, torch.compile, FSDP, activation checkpointing.
WRAPPER_PARTS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
SPLIT_TENSORS = (".DTensor", ".ShardedTensor", ".FlatParameter")  # sharded tensors, as of FSDP
FLAT = ("flat_param", "_flat_param")  # last name part of FSDP's concatenated weights
# Data classes of the standard library; a file that calls anything else in it is an attack.
_DATA_MODULES = {"collections", "pathlib", "datetime", "argparse", "types", "copyreg", "_codecs", "uuid", "decimal"}
_DATA_MODULES |= {"fractions", "enum", "ipaddress", "functools"}
_BUILTIN_DATA = {"set", "frozenset", "complex", "slice", "range", "object", "list", "dict", "tuple", "bytes", "int"}
_BUILTIN_DATA |= {"float", "str", "bool"}

# Errors of torch, safetensors and transformers for truncated, damaged or hostile files, found by experiment.
UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, AssertionError),
    *(OSError, TypeError, SafetensorError, StrictDataclassError, zipfile.BadZipFile),
    *(MemoryError, RecursionError, OverflowError),
)


def reason(error: BaseException) -> str:
    """Shortens a library's error message and drops its advice to disable the safeguard."""
    if isinstance(error, SafetensorError) and "not fully covered" in str(error):
        return CUT
    met = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", str(error))
    if met and isinstance(error, pickle.UnpicklingError):
        return f"it asks for {met.group(1) or met.group(2)}, which is no weight"
    refused = re.search(r"WeightsUnpickler error:\s*(.+)", str(error))
    first, *more = (refused[1] if refused else str(error)).strip().split("\n")
    if first.endswith(":") and more:
        first = f"{first} {more[0].strip()}"
    return (first or type(error).__name__)[:160]


class Inert:
    """Placeholder for an object of a class that is not loaded."""

    origin = ""  # module and name of the class

    def __new__(cls, *_: Any, **__: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> "Inert":
        return Inert()

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    add = append

    def extend(self, values: Any) -> None: ...


class Survey(pickle.Unpickler):
    """Unpickler that creates inert objects and records their classes."""

    def __init__(self, file: io.BytesIO, bytes_there: int):
        super().__init__(file, encoding="bytes")
        self.bytes_there = bytes_there
        self.classes: dict[str, type[Inert]] = {}

    def find_class(self, module: str, name: str) -> type[Inert]:
        origin = f"{module}.{name}"
        top = module.split(".")[0]
        known = name in _BUILTIN_DATA if top in ("builtins", "__builtin__") else top in _DATA_MODULES
        if (top in sys.stdlib_module_names or top == "__builtin__") and not known and top != "__main__":
            raise pickle.UnpicklingError(f"GLOBAL {origin} is refused")
        return self.classes.setdefault(origin, type("Inert", (Inert,), {"origin": origin}))

    def persistent_load(self, identity: Any) -> Inert:
        for number in identity if isinstance(identity, tuple) else ():
            if isinstance(number, int) and number > self.bytes_there:
                raise pickle.UnpicklingError(f"a tensor says it has {number:,} numbers, more than the file has bytes")
        return Inert()


def load_checkpoint_file(path: Path | io.BytesIO) -> Any:
    """Loads a file (or bytes) of `torch.save`; objects of non-tensor classes are `Inert`.

    Raises:
        pickle.UnpicklingError, and errors of torch: the file is damaged or hostile.
    """
    classes = _survey(path)
    if split := sorted(origin for origin in classes if origin.endswith(SPLIT_TENSORS)):
        raise pickle.UnpicklingError(
            f"its tensors are one process's pieces of the weights ({split[0]}): save a full state dict, or the folder "
            "of torch.distributed.checkpoint"
        )
    known = torch._weights_only_unpickler._get_allowed_globals()
    inert: list[Any] = [(kind, origin) for origin, kind in classes.items() if origin not in known]
    if isinstance(path, io.BytesIO):
        path.seek(0)
    with torch.serialization.safe_globals(inert):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if inert:
        names = sorted(origin for _, origin in inert)
        LOGGER.info("%s: holds objects beside its tensors, which are not loaded: %s", path, ", ".join(names[:5]))
    return content


def _survey(path: Path | io.BytesIO) -> dict[str, type[Inert]]:
    """Classes that a file requests, each with an inert placeholder."""
    size, classes = file_size(path), {}
    stream, count = torch_pickles(path)
    for _ in range(count):
        start = stream.tell()
        check_pickle(stream)
        stream.seek(start)
        survey = Survey(stream, size)
        survey.load()
        classes.update(survey.classes)
    return classes


# --- which tensors, under which names ---------------------------------------------------------------------------------


def find_state(content: Any, source: Path) -> State:
    """Weights in the content of a file: its own tensors, or those under a key such as `model_state_dict`.

    Raises:
        WeightsError: there are no weights, or several without a known key of the model's weights.
    """
    if isinstance(content, Inert):
        raise WeightsError(
            f"{source}: holds a whole object of {content.origin}, not its weights: save its state_dict() instead"
        )
    keys, state = _wrapped(content, source)
    if state is None:
        raise WeightsError(f"{source}: holds no dictionary of tensors, so it is not a checkpoint")
    if keys:
        LOGGER.debug("%s: its weights are under %s", source, ".".join(keys))
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _wrapped(content: Any, source: Path, depth: int = 4) -> tuple[list[str], dict | None]:
    """Dictionary of the weights, and the keys that lead to it."""
    if not isinstance(content, dict) or not depth:
        return [], None
    inner = {
        str(key): found
        for key, value in content.items()
        if isinstance(value, dict)
        and not str(key).startswith(OTHERS)
        and (found := _wrapped(value, source, depth - 1))[1]
    }
    averages = [key for key in inner if any(word in key for word in AVERAGES)]
    models = [key for key in inner if key not in averages]
    known = [key for key in WRAPPERS if key in models]
    own = sum(isinstance(value, Tensor) for value in content.values())  # e.g. a loss beside the weights
    if known or any(len(found or ()) > own for _, found in inner.values()):
        if len(models) > 1 and not known:
            raise WeightsError(f"{source}: holds the weights of several models ({', '.join(models)}): save one alone")
        key = (known or models or averages)[0]
        if averages and key not in averages:
            LOGGER.info("%s: an average of its weights (%s) is there too, and is not used", source, averages[0])
        elif key in averages:
            LOGGER.info("%s: the average of its weights (%s) is used, as it has no others", source, key)
        return [key, *inner[key][0]], inner[key][1]
    return [], content if own else None


def plain_names(state: State, own: Collection[str], source: Path | str) -> State:
    """Removes the prefix from the names of a state.

    Args:
        own: names in the model.

    Raises:
        WeightsError: two prefixes match equally many names of the model.
    """
    if flat := [name for name in state if name.rpartition(".")[2] in FLAT]:
        raise WeightsError(
            f"{source}: {flat[0]} is many weights in one, as FSDP keeps them for itself; save a full state dict "
            "(FSDP.state_dict_type with StateDictType.FULL_STATE_DICT)"
        )
    bare = {".".join(part for part in name.split(".") if part not in WRAPPER_PARTS): name for name in state}
    if len(bare) == len(state) and any(new != old for new, old in bare.items()):
        example = next(old for new, old in bare.items() if new != old)
        state = {new: state[old] for new, old in bare.items()}
        LOGGER.debug("%s: names such as %s are read without their wrappers' parts", source, example)
    counts: dict[str, int] = {}
    for name in state:
        for prefix in _prefixes(name):
            if name.removeprefix(prefix) in own:
                counts[prefix] = counts.get(prefix, 0) + 1
    most = max(counts.values(), default=0)
    best = [prefix for prefix, count in counts.items() if count == most]
    if "" in best or not best:
        return state
    models = [prefix for prefix in best if not any(word in prefix for word in AVERAGES)] or best
    if len(models) > 1:
        raise WeightsError(
            f"{source}: holds several models, whose names begin with {' and '.join(models)}: save one alone"
        )
    prefix = models[0]
    LOGGER.debug('%s: names are read without their prefix "%s" (such as %s)', source, prefix, next(iter(state)))
    own_names = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return own_names | {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}


def _prefixes(name: str) -> Iterator[str]:
    yield ""
    for place, letter in enumerate(name):
        if letter == ".":
            yield name[: place + 1]


def seen_names(state: Collection[str]) -> str:
    """Some names of a file and their prefixes, for a message."""
    prefixes = sorted({name.split(".")[0] for name in state})
    return f"its names begin with {', '.join(prefixes[:4])} (such as {', '.join(sorted(state)[:2])})"


# --- tensors that are no weights --------------------------------------------------------------------------------------

_TAKEN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def plain_tensors(state: State, source: Path) -> State:
    """Tensors of a file, after a check of each; double precision becomes single.

    Raises:
        WeightsError: a tensor cannot be a weight; the message gives its name.
    """
    plain = {}
    for name, tensor in state.items():
        if fault := _fault(tensor):
            raise WeightsError(f"{source}: {name} {fault}; save plain weights (float32, dense)")
        if tensor.dtype == torch.float64:
            tensor = tensor.float()
        plain[name] = tensor
    return plain


def refuse_not_finite(state: State, source: Path | str) -> None:
    """Raises WeightsError if a weight is NaN or infinite; names the first one."""
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if not broken:
        return
    half = state[broken[0]].dtype == torch.float16
    hint = " (float16 ends at 65,504: save them as float32 or bfloat16)" if half else ""
    raise WeightsError(
        f"{source}: {len(broken)} weights are not finite (the first: {broken[0]}){hint}; use an earlier one"
    )


def _fault(tensor: Tensor) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_nested:
        return f"is {str(tensor.layout).removeprefix('torch.')}, not dense"
    if tensor.is_quantized:
        return f"is quantized ({kind})"
    if tensor.is_meta:
        return "is a meta tensor, which has no numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        shape = "×".join(map(str, tensor.shape))
        return f"says it is {shape}, and the file has {tensor.untyped_storage().nbytes():,} bytes for it"
    if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype not in _TAKEN):
        return f"is {kind}"
    return ""
