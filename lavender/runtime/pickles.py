"""Check of a pickle before loading: would it take far more time, memory or stack than its size?"""

import io
import pickle
import pickletools
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

DEEPEST = 200  # maximum nesting of containers
HASHING = 100  # hashing steps allowed per byte: a shared container is hashed each time
CUT = "its end is missing, as after a download or copy that stopped: fetch it again"  # message about a truncated file
_MORE = 1_000_000
_PICKLE_LIMIT = 64 << 20  # maximum bytes of a torch file's pickle, without tensor data
_LEGACY_PICKLES = 4  # pickles before the tensor data: magic number, version, system, content
_GET, _PUT = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD", "ADDITEMS", "FROZENSET"}
_NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "APPEND", "APPENDS", *_CALLS}
_GROWING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # they extend an earlier value

Value = tuple[int, int]  # (number of parts, shared ones counted each time; depth) of a value


def check_pickle(file: BinaryIO) -> None:
    """Rejects a pickle that is small but expensive; reads one pickle from `file` and stops after it.

    Loading can be unboundedly expensive even without running code: 40 nested tuples as a key take 2⁴⁰ hashing steps,
    100,000 nested ones overflow the stack, and one number sets the size of the memo table.

    Raises:
        pickle.UnpicklingError: the pickle is too expensive or damaged.
    """
    start, nesting = file.tell(), False
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        nesting = nesting or opcode.name in _NESTING
        if opcode.name in _PUT and argument > 2 * count + 1000:
            raise pickle.UnpicklingError(f"it numbers a value {argument}, and has {count} before it")
    if nesting:  # else nothing is nested deeper than a dictionary of dictionaries
        file.seek(start)
        _check_nesting(file, start)


def check_torch_file(path: Path) -> None:
    """Runs `check_pickle` on a file of `torch.save`.

    Raises:
        pickle.UnpicklingError: a pickle is too expensive, or the file is damaged. OSError, zipfile.BadZipFile.
    """
    stream, count = torch_pickles(path)
    for _ in range(count):
        check_pickle(stream)


def file_size(path: Path | io.BytesIO) -> int:
    """Bytes of a file or file-like object."""
    return path.getbuffer().nbytes if isinstance(path, io.BytesIO) else path.stat().st_size


def torch_pickles(path: Path | io.BytesIO) -> tuple[io.BytesIO, int]:
    """Pickles in a file of `torch.save`, concatenated, and their number; reads no tensor data.

    Raises:
        pickle.UnpicklingError: another kind of file, compressed, or with too much data besides tensors.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1:
                first = entries[0].filename if entries else "nothing"
                raise pickle.UnpicklingError(f"it is a zip archive of other files ({first}): unpack it")
            if sum(entry.file_size for entry in entries) > file_size(path):
                raise pickle.UnpicklingError("its zip is compressed, which torch's own never is")
            content, count = archive.read(pickles[0]), 1
    else:
        with nullcontext(path) if isinstance(path, io.BytesIO) else open(path, "rb") as file:
            content = file.read(_PICKLE_LIMIT)
        if content.startswith(b"PK"):  # the directory of a zip is at its end
            raise pickle.UnpicklingError(CUT)
        count = _LEGACY_PICKLES
    if len(content) > _PICKLE_LIMIT:
        raise pickle.UnpicklingError("it has more than 64 MiB beside its tensors")
    return io.BytesIO(content), count


def _check_nesting(file: BinaryIO, start: int) -> None:
    """Simulates the opcodes with the depth of each stack value instead of the value."""
    stack: list[Value | None] = []  # None is a mark
    memo: dict[int, Value | None] = {}
    hashed = 0
    argument: Any
    position: Any
    for opcode, argument, position in pickletools.genops(file):
        name = opcode.name
        if name in _GET:
            stack.append(memo[argument])
            continue
        if name == "DUP":
            stack.append(stack[-1])
            continue
        if name in _PUT or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            continue
        popped = _pop(stack, [kind.name for kind in opcode.stack_before])
        if not opcode.stack_after:
            continue
        if name == "MARK":
            stack.append(None)
            continue
        grows = name in _GROWING
        parts = 1 + sum(value[0] for value in popped)
        depth = 1 + max((value[1] for value in popped[grows:]), default=0)
        depth = max(depth, popped[0][1]) if grows else depth
        if depth > DEEPEST:
            raise pickle.UnpicklingError(f"it nests values more than {DEEPEST} deep")
        keys = popped[1::2] if name in ("SETITEM", "SETITEMS") else popped[::2] if name == "DICT" else ()
        hashed += sum(value[0] for value in keys) + (parts if name in _CALLS else 0)
        if hashed > _MORE + HASHING * (position - start):
            raise pickle.UnpicklingError("it has a key or an object of millions of nested values")
        stack.extend([(parts, depth)] * len(opcode.stack_after))


def _pop(stack: list[Value | None], before: list[str]) -> list[Value]:
    """Pops what an opcode takes from the stack: a number of values, or all down to the last mark and those below it."""
    popped: list[Value | None] = []
    if "mark" in before:
        mark = len(stack) - 1 - stack[::-1].index(None)
        popped, before = stack[mark + 1 :], before[: before.index("mark")]
        del stack[mark:]
    if len(before) > len(stack):
        raise pickle.UnpicklingError("it takes more values than it has")
    popped = stack[len(stack) - len(before) :] + popped
    del stack[len(stack) - len(before) :]
    return [value for value in popped if value is not None]
