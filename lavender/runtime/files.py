"""Text files of any editor, and files that are written whole or not at all."""

import codecs
import fcntl
import glob
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lavender.runtime.errors import LavenderError

_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | Path, error: type[LavenderError]) -> str:
    """The text of a UTF-8 file without its byte order mark; line ends are as they stand in the file.

    Raises:
        error: names the file: it is missing, cannot be read, or is not UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as fault:
        raise error(f"{path}: no such file") from fault
    except OSError as fault:
        raise error(f"{path}: cannot be read: {fault.strerror}") from fault
    if found := other_encoding(content):
        raise error(f"{path}: the text is {found}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{path}: byte {fault.start} is not UTF-8 text; save the file as UTF-8") from fault


def other_encoding(beginning: bytes) -> str:
    """The encoding of a text that starts with these bytes; "" where it may be UTF-8."""
    if beginning.startswith(_UTF32):
        return "UTF-32"
    return "UTF-16" if beginning.startswith(_UTF16) or b"\0" in beginning[:2] else ""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file opened for writing bytes that becomes `path` only once it is whole and on disk.

    On an exception `path` is as it was before, and nothing is left beside it. What a killed process left of the same
    file is removed.
    """
    path = Path(path)
    remove_leftovers(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))
    temporary, file = _locked(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(temporaries: Iterable[Path]) -> None:
    """Removes those temporary files of `atomic_file` whose process is dead; a live one holds a lock on its file."""
    for temporary in temporaries:
        # Locked, gone already, not ours, or a file system without locks: it is left alone.
        with suppress(OSError), open(temporary, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


def _locked(path: Path) -> tuple[Path, BinaryIO]:
    """A new temporary file beside `path`, with the lock that says that its process lives."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(temporary, "xb")  # noqa: SIM115 (closed by the caller)
        with suppress(OSError):  # a file system without locks: nobody can lock it, so nobody removes it
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process removed it before it was locked
