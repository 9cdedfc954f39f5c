"""Folder of published annotation files: lines, tables and JSON entries, each row with its location for messages."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from lavender.data.annotations import check_text
from lavender.data.ids import unfit
from lavender.prepare.table import csv_rows
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from, mistaken_file, other_encoding
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import shown, shown_json

T = TypeVar("T")
_NAMED = 12  # number of files listed in a message
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


@dataclass(frozen=True)
class Row:
    """Row of a table or object of a JSON list: key → value, its location, and any fault that makes it unreadable."""

    where: str
    values: Mapping[str, Any]
    fault: str = ""

    def text(self, key: str) -> str:
        """Text of a key, stripped.

        Raises:
            DataError: the text is missing, blank, not a text, or longer than any caption or question.
        """
        text = self.optional(key)
        if not text:
            raise DataError(f'{self.where}: "{key}" is {"blank" if key in self.values else "missing"}')
        return text

    def optional(self, key: str) -> str:
        """Like `text`, but "" if it is missing or blank."""
        value = self._value(key)
        if value is None:
            return ""
        if type(value) is int:
            value = str(value)
        if not isinstance(value, str):
            raise DataError(f'{self.where}: "{key}" is {shown_json(value)}, which is no text')
        return check_text(value.strip(), f'"{key}"', self.where)

    def video(self, key: str) -> str:
        """Video id. DataError if the text cannot be one."""
        name = self.text(key)
        if fault := unfit(name):
            raise DataError(f'{self.where}: "{key}", {shown(name)}, {fault}')
        return name

    def number(self, key: str, first: int, last: int) -> int:
        """Integer from `first` to `last`. DataError otherwise."""
        text = self.text(key)
        if not re.fullmatch(r"-?\d{1,9}", text) or not first <= int(text) <= last:
            raise DataError(
                f'{self.where}: "{key}" is {shown(text)}; a whole number from {first} to {last} is expected'
            )
        return int(text)

    def texts(self, key: str, count: int) -> list[str]:
        """List of `count` texts. DataError otherwise."""
        value = self._value(key)
        if not isinstance(value, list) or len(value) != count:
            raise DataError(f'{self.where}: "{key}" is {shown_json(value)}; a list of {count} texts is expected')
        return [Row(f'{self.where}, "{key}"', {str(n): text}).text(str(n)) for n, text in enumerate(value)]

    def _value(self, key: str) -> Any:
        if self.fault:
            raise DataError(self.fault)
        return self.values.get(key)


class Source:
    """Folder of a data set's annotation files.

    Args:
        encoding: encoding of its text files; UTF-8 by default.
        skip_bad: leave out and count malformed rows, instead of an error at the first.

    Attributes:
        notes: remarks for the user about the files, one line each.
        bad: number of rows left out; first_bad: fault of the first.
    """

    def __init__(self, folder: Path, encoding: str = "", skip_bad: bool = False):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder{looked_from(folder)}")
        self.folder, self.encoding, self.skip_bad = folder, encoding or "utf-8-sig", skip_bad
        self.notes: list[str] = []
        self.bad, self.first_bad = 0, ""

    def look(self, *names: str) -> Path | None:
        """First existing file of these names, case-insensitive; None if there is none."""
        here = {path.name.lower(): path for path in sorted(self.folder.iterdir()) if path.is_file()}
        return next((here[name.lower()] for name in names if name.lower() in here), None)

    def find(self, *names: str) -> Path:
        """Like `look`. DataError if none exists."""
        path = self.look(*names)
        if path is None:
            files = sorted(file.name for file in self.folder.iterdir() if file.is_file())
            found = ", ".join(files[:_NAMED]) + (", …" if len(files) > _NAMED else "") if files else "no files"
            raise DataError(
                f"{self.folder / names[0]}: no such file{looked_from(self.folder)}"
                + (f", nor {' or '.join(names[1:])}" if names[1:] else "")
                + f"; the folder has {found}"
            )
        return path

    def note(self, line: str) -> None:
        """Adds a remark for the user, once."""
        if line not in self.notes:
            self.notes.append(line)

    def convert(self, rows: Iterable[Row], make: Callable[[Row], T]) -> Iterator[T]:
        """Yields `make` of each row; with `skip_bad`, rejected rows are left out and counted."""
        for row in rows:
            try:
                yield make(row)
            except DataError as fault:
                if not self.skip_bad:
                    raise
                self.bad += 1
                self.first_bad = self.first_bad or str(fault)

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Yields lines that are not blank, with their numbers; lines end with LF, CR LF or CR."""
        number = 0
        with self._opened(path, None) as file:
            try:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, line.rstrip("\n")
            except UnicodeDecodeError as fault:
                raise self._undecoded(path, number, fault) from None

    def csv(self, path: Path, columns: Iterable[str], known: Iterable[str] = ()) -> Iterator[Row]:
        """Rows of a comma-separated file with a header.

        Args:
            columns: required columns; known: optional columns. Other columns are listed in a note.

        Raises:
            DataError: a column is missing or repeated, or a row has more or fewer cells than the header.
        """
        with self._opened(path, "") as file:
            rows = csv_rows(path, file, ",")
            line = 0
            try:
                _, header = next(rows, (0, []))
                names = self._header(path, header, columns, known)
                for line, cells in rows:
                    yield _row(path, line, names, cells)
            except UnicodeDecodeError as fault:
                raise self._undecoded(path, line, fault) from None

    def tsv(self, path: Path, columns: Iterable[str], known: Iterable[str] = ()) -> Iterator[Row]:
        """Like `csv`, for a tab-separated file with one row per line; cells may be quoted, as pandas does."""
        lines = self.lines(path)
        _, header = next(lines, (0, ""))
        names = self._header(path, _unquoted(header), columns, known)
        for number, line in lines:
            yield _row(path, number, names, _unquoted(line))

    def bare_tsv(self, path: Path, columns: list[str]) -> Iterator[Row]:
        """Rows of a tab-separated file without a header, with `columns` in order; quotes are part of the text."""
        for number, line in self.lines(path):
            yield _row(path, number, columns, line.split("\t"))

    def json(self, path: Path) -> Any:
        """Reads a JSON file. DataError with line and column if it is invalid."""
        with self._opened(path, "") as file:
            try:
                return load_json(file.read())
            except UnicodeDecodeError as fault:
                raise self._undecoded(path, 0, fault) from None
            except json.JSONDecodeError as fault:
                raise DataError(
                    f"{path}, line {fault.lineno}, column {fault.colno}: not valid JSON ({fault.msg})"
                ) from None

    def entries(self, path: Path, content: Any = None, key: str = "") -> Iterator[Row]:
        """Objects of a JSON list, numbered from 0.

        Args:
            content: value of the file, if already read; key: key of the list in it, "" if it is the list itself.

        Raises:
            DataError: it is not a list of objects, or is empty.
        """
        content = self.json(path) if content is None else content
        if key:
            content = content.get(key) if isinstance(content, dict) else None
        what = f'{path}, "{key}"' if key else str(path)
        if not isinstance(content, list) or not content:
            found = "an empty list" if content == [] else "missing" if content is None else type(content).__name__
            raise DataError(f"{what}: a list of objects is expected, not {found}")
        for number, entry in enumerate(content):
            where = f"{what}, entry {number} (counted from 0)"
            if not isinstance(entry, dict):
                raise DataError(f"{where}: an object is expected, not {shown_json(entry)}")
            yield Row(where, entry)

    def json_lines(self, path: Path) -> Iterator[Row]:
        """Objects of a file with one per line."""
        for number, line in self.lines(path):
            where = f"{path}, line {number}"
            try:
                entry = load_json(line)
            except json.JSONDecodeError as fault:
                raise DataError(f"{where}, column {fault.colno}: not valid JSON ({fault.msg})") from None
            if not isinstance(entry, dict):
                raise DataError(f"{where}: an object is expected, not {shown_json(entry)}")
            yield Row(where, entry)

    def _header(self, path: Path, header: list[str], columns: Iterable[str], known: Iterable[str]) -> list[str]:
        """Columns of the file in our spelling: case and surrounding blanks are ignored."""
        spelling = {name.lower(): name for name in (*columns, *known)}
        names = [spelling.get(name.strip().lower(), name.strip()) for name in header]
        there = ", ".join(map(shown, filter(None, names))) or "none"
        if missing := [name for name in columns if name not in names]:
            raise DataError(f"{path}, line 1: no column {', '.join(map(shown, missing))}; the columns are {there}")
        if twice := [name for name in spelling.values() if names.count(name) > 1]:
            raise DataError(f"{path}, line 1: column {shown(twice[0])} is there twice; the columns are {there}")
        if other := [name for name in names if name and name not in spelling.values()]:
            self.note(f"{path}: unknown columns are not used: {', '.join(map(shown, other))}")
        return names

    def _opened(self, path: Path, newline: str | None) -> TextIO:
        if fault := mistaken_file(path):
            raise DataError(f"{path}: {fault}")
        with path.open("rb") as file:
            found = other_encoding(file.read(4))
        if found and self.encoding == "utf-8-sig":
            raise DataError(f"{path}: the text is {found}; name it: --encoding {found.lower().replace('-', '')}")
        try:
            return path.open(encoding=self.encoding, newline=newline)
        except LookupError:
            raise DataError(f"--encoding {self.encoding}: there is no such encoding") from None

    def _undecoded(self, path: Path, line: int, fault: UnicodeDecodeError) -> DataError:
        encoding = self.encoding.removesuffix("-sig")
        place = f"{path}, after line {line}" if line else str(path)
        return DataError(f"{place}: not {encoding} text ({fault.reason}); name its encoding, such as --encoding cp1252")


def _row(path: Path, line: int, names: list[str], cells: list[str]) -> Row:
    """Row by column names; if its cells do not fit, reading from it raises, so that it can be skipped."""
    where = f"{path}, line {line}"
    if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names) :]):
        return Row(where, {}, f"{where}: {len(cells)} cells, but {len(names)} columns ({', '.join(names)})")
    return Row(where, dict(zip(names, cells, strict=False)))


def _unquoted(line: str) -> list[str]:
    """Cells of a tab-separated line; quoted ones without their quotes, inner quotes unescaped."""
    return [
        match[1].replace('""', '"') if (match := _QUOTED.fullmatch(cell.strip())) else cell for cell in line.split("\t")
    ]
