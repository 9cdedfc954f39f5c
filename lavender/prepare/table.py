"""User tables: CSV, TSV, JSON or JSONL, read into rows of text with line numbers."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from, read_text
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import shown

DELIMITERS = ",\t;|"
MAX_CELL = 1_000_000  # characters; a longer cell means an unclosed quote


@dataclass(frozen=True)
class Table:
    """Columns of a file, and its rows: line number at which a row begins, and cells in column order."""

    path: Path
    columns: list[str]
    rows: list[tuple[int, list[str]]]

    def where(self, line: int) -> str:
        """Name of a row in messages."""
        return f"{self.path}, {'entry' if self.path.suffix.lower() == '.json' else 'line'} {line}"


def read_table(path: Path, encoding: str = "") -> Table:
    """Reads a table; the extension gives its kind: .json, .jsonl, .tsv, and CSV otherwise.

    A list in a cell of a JSON table (options, several captions) is kept as its JSON text.

    Args:
        encoding: encoding of the file, if not UTF-8.

    Raises:
        DataError: the file is missing or malformed; with the line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such table{looked_from(path)}; check --table")
    text = _decoded(path, encoding)
    kind = path.suffix.lower()
    if kind in (".json", ".jsonl"):
        table = _from_objects(path, _json_lines(path, text) if kind == ".jsonl" else _json_entries(path, text))
    else:
        table = _from_csv(path, text)
    if not table.rows:
        raise DataError(f"{path}: no rows are in it; the first line names the columns, and each other line is a row")
    return table


def _decoded(path: Path, encoding: str) -> str:
    """Text of a file: decoded as UTF-8 if possible, else with `encoding`."""
    with path.open("rb") as file:  # Excel's "Unicode text"
        marked = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if marked else encoding
    try:
        if not marked:
            return read_text(path, DataError)
    except DataError as error:
        if not encoding or path.suffix.lower() in (".json", ".jsonl"):
            raise DataError(f"{error}, or name its encoding: --encoding cp1252") from None
    try:
        return path.read_bytes().decode(encoding).removeprefix("\ufeff")
    except (LookupError, UnicodeError) as error:
        raise DataError(f"{path}: cannot be read as {shown(encoding)} ({error}); check --encoding") from None


def _from_csv(path: Path, text: str) -> Table:
    if "\n" not in text:
        text = text.replace("\r", "\n")
    if named := re.match(r"sep=(.)\r?\n", text):  # written by Excel
        text = "\n" + text[named.end() :]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else named[1] if named else _delimiter(text)
    rows = _tab_rows(path, text) if delimiter == "\t" else csv_rows(path, io.StringIO(text, newline=""), delimiter)
    try:
        _, columns = next(rows)
    except StopIteration:
        raise DataError(f"{path}: it is empty") from None
    columns = [name.strip() for name in columns]
    while columns and not columns[-1]:
        columns.pop()  # trailing delimiter on each line
    columns = [name or f"(column {number})" for number, name in enumerate(columns, start=1)]  # e.g. pandas' index
    _check_columns(path, columns)
    kept = []
    for line, cells in rows:
        extra = [cell for cell in cells[len(columns) :] if cell.strip()]
        if extra or len(cells) < len(columns):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells, but {len(columns)} columns "
                f"({', '.join(columns)}); a text that holds {shown(delimiter)} needs quotes around it"
            )
        kept.append((line, [cell.strip() for cell in cells[: len(columns)]]))
    return Table(path, columns, kept)


def _tab_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of a TSV, in which quotes may be CSV quoting or characters of the text.

    They are characters if CSV parsing fails or gives texts with line ends, and each line has as many cells as the
    first.
    """
    lines = enumerate(text.split("\n"), start=1)  # splitlines would cut at signs within texts, too
    plain = [(number, line.rstrip("\r").split("\t")) for number, line in lines if line.strip()]
    is_even = len({len(cells) for _, cells in plain}) == 1
    try:
        rows = list(csv_rows(path, io.StringIO(text, newline=""), "\t"))
    except DataError:
        if not is_even:
            raise
        rows = plain
    spans_lines = any("\n" in cell for _, cells in rows for cell in cells)
    yield from plain if is_even and spans_lines else rows


def _delimiter(text: str) -> str:
    """Most frequent delimiter in the first line, outside of quotes."""
    outside = "".join(text.lstrip("\r\n").split("\n", 1)[0].split('"')[::2])
    return max(DELIMITERS, key=outside.count)


def csv_rows(path: Path, lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields rows that are not blank, with the line number at which each begins.

    Raises:
        DataError: a quote is missing or misplaced; with the line.
    """
    csv.field_size_limit(MAX_CELL)
    # With strict, a broken quote is an error.
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f'{path}, line {line}: the row that begins here cannot be read ({error}): a quote " is missing or '
                'stands within a text; a text with quotes is written "she said ""hi"""'
            ) from None
        if any(cell.strip() for cell in cells):
            yield line, cells
        line = reader.line_num + 1


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would cut at signs within texts, too
        if line.strip():
            try:
                yield number, load_json(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}, column {error.colno}: not valid JSON ({error.msg})") from None


def _json_entries(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        content = load_json(text)
    except json.JSONDecodeError as error:
        hint = "; a file with one object a line is .jsonl" if error.msg == "Extra data" else ""
        raise DataError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}){hint}"
        ) from None
    if not isinstance(content, list):
        raise DataError(f"{path}: a list of objects is expected, not {type(content).__name__}")
    yield from enumerate(content)


def _from_objects(path: Path, entries: Iterator[tuple[int, Any]]) -> Table:
    found = list(entries)
    columns: dict[str, None] = {}
    for number, entry in found:
        if not isinstance(entry, dict):
            raise DataError(f"{path}, entry {number}: an object is expected, not {shown(entry)}")
        columns.update(dict.fromkeys(entry))
    _check_columns(path, list(columns))
    return Table(
        path, list(columns), [(number, [_cell(entry.get(name)) for name in columns]) for number, entry in found]
    )


def _cell(value: Any) -> str:
    if value is None or value != value:  # missing, or NaN
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for name in columns:
        if not name:
            raise DataError(f"{path}, line 1: column {list(columns).index(name) + 1} has no name")
        alike = [other for other in columns if other.lower() == name.lower()]
        if len(alike) > 1:
            raise DataError(f"{path}, line 1: two columns are called {shown(name)}; rename one of them")
