"""Reading of text in any encoding, atomic writing, and detection of files that are not what their names say."""

import codecs
import errno
import fcntl
import glob
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from lavender.runtime.errors import LavenderError

_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def looked_from(*paths: str | Path) -> str:
    """Message part about a missing file: the folder to which a relative path refers; "" for absolute paths."""
    if all(map(os.path.isabs, paths)):
        return ""
    try:
        return f" (looked for from {Path.cwd()})"
    except OSError:  # the folder was removed
        return " (looked for from a folder that is gone)"


def read_text(path: str | Path, error: type[LavenderError]) -> str:
    """Reads a UTF-8 file without its byte order mark; line ends are unchanged.

    Raises:
        error: with the file's name: it is missing, unreadable, not UTF-8, or another kind (a web page, an LFS pointer).
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as fault:
        raise error(f"{path}: no such file{looked_from(path)}") from fault
    except OSError as fault:
        raise error(f"{path}: cannot be read: {fault.strerror}") from fault
    if mistake := mistaken_file(path):
        raise error(f"{path}: {mistake}")
    if found := other_encoding(content):
        raise error(f"{path}: the text is {found}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise error(f"{path}: byte {fault.start} is not UTF-8 text; save the file as UTF-8") from fault


def other_encoding(beginning: bytes) -> str:
    """Encoding of a text that starts with these bytes; "" if it may be UTF-8."""
    if beginning.startswith(_UTF32):
        return "UTF-32"
    return "UTF-16" if beginning.startswith(_UTF16) or b"\0" in beginning[:2] else ""


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file for writing bytes that replaces `path` only when it is complete and on disk.

    After an exception `path` is unchanged, and no temporary file remains. Temporary files that a killed process left
    of the same file are removed.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
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


def refuse_overwriting(
    output: str | Path, *inputs: str | Path, error: type[LavenderError], option: str = "--output"
) -> None:
    """Raises `error` if an output file is one of its input files, also through links."""
    for path in map(Path, inputs):
        if path.exists() and Path(output).exists() and path.samefile(output):
            raise error(f"{output} would overwrite {path}, which it is made from; give another {option}")


def lock_file(file: BinaryIO, path: str | Path, error: type[LavenderError]) -> None:
    """Locks an open file for writing until it is closed; has no effect on file systems without locks.

    Raises:
        error: another process holds the lock; `path` names the file in the message.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise error(f"{path}: another process is writing it; wait for it, or end it") from None
    except OSError:
        pass


_FREE_SPACE = "free space, or choose another --path_output"
_NO_RIGHT = "choose a --path_output that this user may write to"
_ADVICE = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: "the quota of this user is used up: delete files of your own, or choose another --path_output",
    errno.EFBIG: "files of this size are not allowed here: see `ulimit -f`, or choose another --path_output",
    errno.EROFS: "the file system is read-only: choose another --path_output",
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
}


def unwritable_advice(error: BaseException) -> str:
    """Advice for the reason why an output of a run could not be written.

    torch's writer raises its own error without errno; then the system's error is its cause.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _ADVICE:
            return _ADVICE[cause.errno]
        cause = cause.__cause__ or cause.__context__
    return _FREE_SPACE if isinstance(error, RuntimeError) else "choose another --path_output"


def remove_leftovers(temporaries: Iterable[Path]) -> None:
    """Removes temporary files of `atomic_file` whose process is dead; a live process holds a lock on its file."""
    for temporary in temporaries:
        # Locked, gone already, not ours, or no file locks: left alone.
        with suppress(OSError), open(temporary, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


def _locked(path: Path) -> tuple[Path, BinaryIO]:
    """Creates a temporary file beside `path`, locked while its process lives."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            file = open(temporary, "xb")  # noqa: SIM115 (closed by the caller)
        except OSError as error:
            error.filename = str(path)  # the name known to the user
            raise
        with suppress(OSError):  # without file locks no other process can lock it, so none removes it
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # removed by another process before it was locked


# Contents after a failed download or clone: the first bytes, and what to do.
_IN_ITS_PLACE = {
    rb"version https://(git-lfs|hawser)": "it is a Git-LFS pointer; the file itself is still on the server: run "
    "`git lfs pull` where it was cloned, or download it again",
    rb"(?i)\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body|title|script|meta)\b": "it is an HTML page: the link "
    "leads to a page about the file, or asks for a login; download it again with the direct link",
    rb"(?i)(?![^\n]*\t)\s*(<(\?xml|error|!doctype)\b|\{\s*\"(error\w*|message|code|status\w*|detail)\"\s*:"
    rb"|access ?denied|(entry |repository |file )?not found|forbidden|unauthorized|invalid (username|credentials)"
    rb"|quota exceeded|too many requests|(http/[\d.]+ )?[45]\d\d:? [a-z])": "it is a server's error message; download "
    "it again, with the right link and access",
    rb"\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!|.{257}ustar": "it is an archive: unpack it, "
    "and name the file in it",
}
_ZIP = rb"PK[\x03\x05]"
_OFFICE = (
    rb"PK\x03\x04.{0,900}(\[Content_Types\]\.xml|xl/|word/|mimetypeapplication/vnd\.oasis)|\xd0\xcf\x11\xe0"  # new, old
)
_HEAD = 1024  # bytes that are checked


def mistaken_file(path: str | Path, zipped: bool = False) -> str:
    """Describes a file that is not what it should be, with advice: empty, a Git LFS pointer, a web page, an archive.

    Args:
        zipped: the file may be a zip, as files of torch are.

    Returns:
        words to follow the file's name; "" for other files and for a missing file.
    """
    try:
        refuse_special(path)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    return mistaken_bytes(head, zipped)


def mistaken_bytes(content: bytes, zipped: bool = False) -> str:
    """Like `mistaken_file`, for a file's content or its beginning."""
    if not content:
        return "it is empty (0 bytes), as after a failed download or copy; fetch it again"
    head = content[:_HEAD].removeprefix(b"\xef\xbb\xbf")
    if not zipped and re.match(_OFFICE, head, re.DOTALL):
        return "it is an Excel or Word file: save it as text (UTF-8)"
    if not zipped and re.match(_ZIP, head):
        return "it is a zip archive: unpack it, and name the file in it"
    return next((meaning for start, meaning in _IN_ITS_PLACE.items() if re.match(start, head, re.DOTALL)), "")


def refuse_special(path: str | Path) -> None:
    """Raises OSError for a pipe, device or socket, which could be read forever."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, no file", str(path))


def refuse_mistaken(path: str | Path, error: type[LavenderError]) -> None:
    """Raises `error` with the file's name if the file is another kind of file: see `mistaken_file`.

    An empty file is accepted; its reader reports what is missing.
    """
    if os.path.getsize(path) and (fault := mistaken_file(path)):
        raise error(f"{path}: {fault}")
