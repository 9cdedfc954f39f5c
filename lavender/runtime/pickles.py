"""A look at a pickle before it is loaded: would it take far more time, memory or stack than its size?"""

import io
import pickle
import pickletools
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

DEEPEST = 200  # containers in each other
HASHING = 100  # steps of hashing allowed for each byte read, as a container may be shared, and hashed again each time
CUT = "its end is missing, as after a download or copy that stopped: fetch it again"  # what messages say of a file
_MORE = 1_000_000
_PICKLE_LIMIT = 64 << 20  # bytes of a torch file's pickle, its tensors' data not counted
_LEGACY_PICKLES = 4  # before the tensors' data: magic number, version, system, content
_GET, _PUT = {"GET", "BINGET", "LONG_BINGET"}, {"PUT", "BINPUT", "LONG_BINPUT"}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD", "ADDITEMS", "FROZENSET"}
_NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "APPEND", "APPENDS", *_CALLS}
_GROWING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # of the value under what they add

Value = tuple[int, int]  # what a value on the stack is: its parts, shared ones counted each time; its depth


def check_pickle(file: BinaryIO) -> None:
    """Refuses a pickle that is small and costs much; reads one pickle from `file` and leaves it behind that pickle.

    Loading one may cost without end though no code of it runs: 40 nested tuples as a key are hashed in 2⁴⁰ steps,
    100,000 nested ones overflow the stack, and one number makes the table of repeated values as long as it says.

    Raises:
        pickle.UnpicklingError: it is such a pickle, or damaged.
    """
    start, nesting = file.tell(), False
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        nesting = nesting or opcode.name in _NESTING
        if opcode.name in _PUT and argument > 2 * count + 1000:
            raise pickle.UnpicklingError(f"it numbers a value {argument}, and has {count} before it")
    if nesting:  # else nothing in it lies deeper than a dictionary of dictionaries
        file.seek(start)
        _check_nesting(file, start)


def check_torch_file(path: Path) -> None:
    """`check_pickle` for a file of `torch.save`.

    Raises:
        pickle.UnpicklingError: it has a pickle that costs too much, or is damaged. OSError, zipfile.BadZipFile.
    """
    stream, count = torch_pickles(path)
    for _ in range(count):
        check_pickle(stream)


def file_size(path: Path | io.BytesIO) -> int:
    """Bytes of a file, or of what stands for one."""
    return path.getbuffer().nbytes if isinstance(path, io.BytesIO) else path.stat().st_size


def torch_pickles(path: Path | io.BytesIO) -> tuple[io.BytesIO, int]:
    """The pickles in a file of `torch.save`, one after another, and how many they are; no tensor's data is read.

    Raises:
        pickle.UnpicklingError: it is another kind of file, compressed, or has too much beside its tensors.
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
        if content.startswith(b"PK"):  # what a zip holds is listed at its end
            raise pickle.UnpicklingError(CUT)
        count = _LEGACY_PICKLES
    if len(content) > _PICKLE_LIMIT:
        raise pickle.UnpicklingError("it has more than 64 MiB beside its tensors")
    return io.BytesIO(content), count


def _check_nesting(file: BinaryIO, start: int) -> None:
    """Goes through the opcodes with the depth of each value on the stack, in place of the value."""
    stack: list[Value | None] = []  # None: a mark
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
    """Takes off the stack what an opcode does: so many values, or all down to the last mark and those under it."""
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
