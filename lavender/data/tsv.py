"""Frame TSV files and their line indices: one video per line, with random access to lines."""

import codecs
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from lavender.data.ids import unfit
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, looked_from, mistaken_file, other_encoding, refuse_mistaken
from lavender.runtime.quoting import shown

LOGGER = logging.getLogger("lavender.data")

IMAGE_PREFIXES = ("/9j/", "iVBORw0KGgo")  # base64 of the first bytes of JPEG and PNG
_NEWLINE = ord("\n")
_SCAN_BLOCK = 1 << 24  # bytes read at a time while a line index is built
_ID_BLOCK = 256  # bytes read at first to find a video id, or the end of the last row
_MAX_ID = 1 << 16  # maximum bytes of a video id; a longer one means a file without tabs
_MAX_ROW = 1 << 29  # maximum bytes of a row; a longer one means a file without line ends
_LAST_ROW = 1 << 24  # bytes of the last row that are searched for line ends when a file is opened
_DIGITS = 18  # maximum digits of a byte offset
_MARK = codecs.BOM_UTF8.decode()


def build_lineidx(path: str | Path) -> np.ndarray:
    """Byte offset of each line of a file, int64 (lines,). Reads the whole file once, in blocks."""
    starts = [np.zeros(1, np.int64)]
    position = 0
    with open(path, "rb") as file:
        while block := file.read(_SCAN_BLOCK):
            starts.append(np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE) + (position + 1))
            position += len(block)
    offsets = np.concatenate(starts)
    return offsets[offsets < position]  # nothing after the last line end is a line


def write_lineidx(path: str | Path, offsets: np.ndarray) -> None:
    """Writes offsets as text, one decimal number per line."""
    with atomic_file(path) as file:
        file.write("".join(f"{offset}\n" for offset in offsets.tolist()).encode())


def split_columns(fields: Sequence[str], where: str) -> tuple[str, str | None, list[str]]:
    """Splits a row of a frame TSV into video id, metadata and frames (base64).

    If field 1 is a base64 image, the frames start there; anything else is metadata.

    Raises:
        DataError: the row has no frames; `where` names the row.
    """
    video_id, *frames = fields
    metadata = None
    if frames and not frames[0].startswith(IMAGE_PREFIXES):
        metadata, *frames = frames
    if not frames:
        raise DataError(f"{where}: video {shown(video_id)} has no frames (a frame is a base64 JPEG or PNG)")
    return video_id, metadata, frames


class TSVReader:
    """Rows of a TSV file, located by its line index.

    `X.lineidx.8b` (int64, little-endian) is used if it fits `X.tsv`, else `X.lineidx` (text). If neither exists, the
    index is built, which is logged, and written beside the TSV if that folder is writable. Every read checks that the
    row starts and ends at a line end, which detects an index of another file.

    Reads are positioned (pread), so forked processes and threads may share a reader; an unpickled reader opens the
    file again. Lines may end in CR LF: the CR is dropped. A byte order mark before the first id and blank lines at the
    end are ignored.

    Args:
        path: the TSV file.
        lineidx: its text line index, by default the same name with `.lineidx` instead of `.tsv`.

    Raises:
        DataError: the file is missing, or its line index does not fit; reads raise it, too, with file and line.
    """

    def __init__(self, path: str | Path, lineidx: str | Path | None = None):
        self.path = Path(path)
        self.lineidx = Path(lineidx) if lineidx is not None else self.path.with_suffix(".lineidx")
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no such file{looked_from(self.path)}")
        self._size = self.path.stat().st_size
        if self._size:  # an empty one has no rows
            refuse_mistaken(self.path, DataError)
        self._file: BinaryIO | None = None
        if found := other_encoding(self._read(0, 4)):
            raise DataError(f"{self.path}: the text is {found}; save it as UTF-8")
        self._load_offsets()

    def __len__(self) -> int:
        return len(self.offsets)

    def where(self, number: int) -> str:
        """File and line (from 1) of row `number` (from 0), for error messages."""
        return f"{self.path}, line {number + 1}"

    def row(self, number: int) -> list[str]:
        """Fields of row `number`, counted from 0."""
        return self._fields(number, self._line(number))

    def row_at(self, offset: int) -> list[str]:
        """Fields of the row that starts at byte `offset`."""
        return self.row(self.number_at(offset))

    def number_at(self, offset: int) -> int:
        """Number of the row that starts at byte `offset`."""
        number = int(np.searchsorted(self.offsets, offset))
        if number < len(self) and self.offsets[number] == offset:
            return number
        if 0 <= offset < self._size:
            raise DataError(f"{self.where(number - 1)}: the line does not start at byte {offset}; rebuild the id index")
        raise DataError(f"{self.path} has {self._size} bytes, byte {offset} is outside it; rebuild the id index")

    def video_id(self, number: int) -> str:
        """Field 0 of row `number`; reads only the beginning of the row."""
        start, end = self._span(number)
        head, length = b"", _ID_BLOCK
        while b"\t" not in head and len(head) < end - start:
            if length > _MAX_ID:
                raise DataError(
                    f"{self.where(number)}: no tab in the first {len(head):,} bytes; the first field, the video id, "
                    "is too long"
                )
            head = self._read_row(number, min(length, end - start))
            length *= 16
        return self._fields(number, head.partition(b"\t")[0].rstrip(b"\r\n"))[0]

    def _line(self, number: int) -> bytes:
        """Row `number` without its line end, after a check that it starts and ends at line ends."""
        start, end = self._span(number)
        if end - start > _MAX_ROW:
            raise DataError(
                f"{self.where(number)}: a row of {end - start:,} bytes is too long (at most {_MAX_ROW:,}); is a line "
                "end missing?"
            )
        line = self._read_row(number, end - start)
        body = line.removesuffix(b"\n")
        if b"\n" in body or (body == line and end < self._end):
            raise DataError(f"{self.where(number)}: the line does not end where {self._index} says; {self._mend}")
        body = body.removesuffix(b"\r")
        if b"\r" in body:
            raise DataError(
                f"{self.where(number)}: a line end of an old Mac (CR alone) is within the line: save the file with "
                f"line ends of Unix (LF), and delete {self.lineidx}"
            )
        return body

    def _fields(self, number: int, line: bytes) -> list[str]:
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where(number)}: byte {error.start + 1} of the line is not UTF-8") from None
        fields = (text if number else text.removeprefix(_MARK)).split("\t")
        if not fields[0].strip():
            raise DataError(f"{self.where(number)}: the first field, the video id, is empty")
        return fields

    def size(self, number: int) -> int:
        """Bytes of row `number`, including its line end."""
        start, end = self._span(number)
        return end - start

    def piece(self, number: int, position: int, length: int) -> bytes:
        """Bytes [position, position + length) of row `number`."""
        return self._read(self._span(number)[0] + position, length)

    def _span(self, number: int) -> tuple[int, int]:
        """Bytes [start, end) of row `number`, including its line end."""
        if not 0 <= number < len(self):
            raise DataError(f"{self.path} has {len(self)} rows, there is no row {number} (counted from 0)")
        end = self.offsets[number + 1] if number + 1 < len(self) else self._end
        return int(self.offsets[number]), int(end)

    def _read_row(self, number: int, length: int) -> bytes:
        """First `length` bytes of a row, after a check that a line starts there."""
        start = int(self.offsets[number])
        before = min(start, 1)  # includes the line end before the row
        data = self._read(start - before, length + before)
        if len(data) < length + before:
            raise DataError(f"{self.where(number)}: the file has become shorter since it was opened")
        if before and data[:1] != b"\n":
            raise DataError(f"{self._index}, line {number + 1}: no line of {self.path} starts at {start}; {self._mend}")
        return data[before:]

    def _read(self, position: int, length: int) -> bytes:
        if self._file is None:
            self._file = open(self.path, "rb", buffering=0)  # noqa: SIM115 (stays open as long as the reader)
        pieces = []
        while length > 0 and (piece := os.pread(self._file.fileno(), length, position)):
            pieces.append(piece)  # network file systems may return fewer bytes
            position += len(piece)
            length -= len(piece)
        return b"".join(pieces)

    def _load_offsets(self) -> None:
        binary = Path(f"{self.lineidx}.8b")
        if binary.is_file():
            try:
                self._check_index_size(binary, 8)
                return self._use(_read_offsets(binary), binary)
            except DataError as fault:
                LOGGER.warning("%s (the index is not used)", fault)
        if self.lineidx.is_file():
            self._check_index_size(self.lineidx, _DIGITS + 2)
            return self._use(_parse_offsets(self.lineidx), self.lineidx)
        LOGGER.info("%s is missing: building it from %s", self.lineidx, self.path)
        self._use(build_lineidx(self.path), self.lineidx)
        try:
            write_lineidx(self.lineidx, self.offsets)
        except OSError as error:
            LOGGER.warning("%s cannot be written (%s): the index stays in memory", self.lineidx, error.strerror)

    def _check_index_size(self, index: Path, width: int) -> None:
        """Rejects an index that is too large for the file without reading it: every line has at least one byte."""
        if index.stat().st_size and (fault := mistaken_file(index)):
            raise DataError(f"{index}: {fault}, or delete it to have it rebuilt")
        size, rows = index.stat().st_size, self._size + 1
        if size > width * rows + len(codecs.BOM_UTF8):
            raise DataError(f"{index} has {size:,} bytes, too many for {self.path}; delete {index} to have it rebuilt")

    def _use(self, offsets: np.ndarray, index: Path) -> None:
        """Uses `offsets`, read from `index`, after cheap checks: they must rise from 0 to the last line."""
        self._end = self._size
        self.offsets, self._index, self._mend = offsets, index, f"delete {index} to have it rebuilt"  # (rows,) int64
        if len(offsets) == 0 or self._size == 0:
            if len(offsets) or self._size:
                raise DataError(f"{index} has {len(offsets)} lines, {self.path} {self._size} bytes; {self._mend}")
            return
        fall = np.flatnonzero(np.diff(offsets, prepend=-1) <= 0)
        if offsets[0] != 0 or len(fall):
            line = int(fall[0]) if len(fall) and offsets[0] == 0 else 0
            raise DataError(
                f"{index}, line {line + 1}: offset {offsets[line]} is wrong (they rise from 0); {self._mend}"
            )
        line = int(np.searchsorted(offsets, self._size))
        if line < len(offsets):
            raise DataError(f"{index}, line {line + 1}: {offsets[line]} is past the end of {self.path}; {self._mend}")
        self._end = self._find_end()
        self.offsets = offsets[: np.searchsorted(offsets, self._end)]
        if len(self):
            self._check_last()

    def _check_last(self) -> None:
        """Detects rows unknown to the index, which lie inside its last row; reads only the beginning of a long row."""
        number = len(self) - 1
        start, end = self._span(number)
        if end - start <= _LAST_ROW:
            self._line(number)
        elif b"\n" in self._read_row(number, _LAST_ROW):
            raise DataError(f"{self.where(number)}: the line does not end where {self._index} says; {self._mend}")

    def _find_end(self) -> int:
        """End of the last row, including its line end: blank lines after it are not rows."""
        length, end, after = _ID_BLOCK, self._size, -1  # after: position of the line end after the text
        while end:
            start = max(0, end - length)
            block = self._read(start, end - start)
            text = block.rstrip()
            if (line_end := block.find(b"\n", len(text))) >= 0:
                after = start + line_end
            if text:
                return self._size if after < 0 else after + 1
            length, end = min(16 * length, _SCAN_BLOCK), start
        return 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}


def _read_offsets(path: Path) -> np.ndarray:
    size = path.stat().st_size
    if size % 8:
        raise DataError(f"{path} has {size} bytes, which is no multiple of 8")
    return np.fromfile(path, "<i8")  # a memory-mapped file that is truncated would kill the process


def _parse_offsets(path: Path) -> np.ndarray:
    content = path.read_bytes()
    if found := other_encoding(content):
        raise DataError(f"{path}: the text is {found}; save it as UTF-8, or delete it to have it rebuilt")
    content = content.removeprefix(codecs.BOM_UTF8)
    if _is_plain(content):
        return np.fromstring(content, dtype=np.int64, sep="\n")
    numbers = content.split()
    for line, number in enumerate(numbers, start=1):  # checked first: one long number would widen the array for all
        if len(number) > _DIGITS or not number.removeprefix(b"-").isdigit():
            found = shown(number.decode("utf-8", "replace"))
            raise DataError(f"{path}, line {line}: {found} is no byte offset; delete {path.name} to have it rebuilt")
    return np.array(numbers, dtype=np.int64) if numbers else np.zeros(0, np.int64)


def _is_plain(content: bytes) -> bool:
    """Whether a text has only numbers and line ends, each short enough for numpy's ten times faster parser."""
    if not content or content.translate(None, b"0123456789\n"):
        return False
    ends = np.flatnonzero(np.frombuffer(content, np.uint8) == _NEWLINE)
    longest = int(np.diff(ends, prepend=-1, append=len(content)).max()) - 1
    return len(ends) < len(content) and longest <= _DIGITS


class TSVWriter:
    """Writes a TSV file and its `.lineidx` atomically.

        with TSVWriter("msrvtt.tsv") as writer:
            writer.write([video_id, *frames])

    An exception in the block leaves existing files unchanged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._offsets: list[int] = []
        self._position = 0

    def __enter__(self) -> "TSVWriter":
        self._context = atomic_file(self.path)
        self._file = self._context.__enter__()
        return self

    def write(self, fields: Sequence[str]) -> None:
        """Appends a row.

        Raises:
            DataError: the first field cannot be an id (see `unfit`), or a field contains a tab or a line end.
        """
        line = "\t".join(fields)
        if not fields or not fields[0].strip():
            raise DataError(f"{self.path}: row {len(self._offsets)} has no video id")
        if fault := unfit(fields[0]):
            raise DataError(f"{self.path}: the video id {shown(fields[0])} {fault}, which no TSV can carry; rename it")
        if line.count("\t") >= len(fields) or "\n" in line or "\r" in line:
            raise DataError(
                f"{self.path}: a field of {shown(fields[0])} holds a tab or a line end, which no TSV can carry"
            )
        data = line.encode() + b"\n"
        self._file.write(data)
        self._offsets.append(self._position)
        self._position += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        lineidx = self.path.with_suffix(".lineidx")
        if error is None:  # an index of the old file must not remain; a missing index is rebuilt
            lineidx.unlink(missing_ok=True)
            Path(f"{lineidx}.8b").unlink(missing_ok=True)
        self._context.__exit__(kind, error, traceback)
        if error is None:
            write_lineidx(lineidx, np.array(self._offsets, np.int64))
