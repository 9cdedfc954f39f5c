"""Multiple choice: interpretation of an answer column as texts, numbers or letters of options."""

import re
from typing import Any

from lavender.prepare.table import Table
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

_INDEX = re.compile(r"(\d{1,4})(?:\.0)?")  # spreadsheets may write 1.0
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
Row = tuple[list[str], str]  # options, including blank ones, and the answer


class Meaning:
    """Interpretation of a table's answers, one for the whole column: the one that explains most rows.

    Args:
        rows: rows with an answer.
        first: whether numbers count from 0 or from 1; None: inferred from the column.

    Raises:
        DataError: it is ambiguous whether numbers count from 0 or 1, or they contradict `first`.
    """

    def __init__(self, table: Table, rows: list[Row], first: int | None):
        self.table, self.rows, self.first = table, rows, first or 0
        found = [(int(match[1]), options) for options, answer in rows if (match := _INDEX.fullmatch(answer))]
        numbers = [number for number, options in found if number <= len(options)]
        readings = {
            "texts": sum(self._by_text(options, answer) is not None for options, answer in rows),
            "numbers": len(numbers),
            "letters": sum(self._by_letter(options, answer) is not None for options, answer in rows),
        }
        self.reading = max(readings, key=readings.__getitem__)
        if self.reading == "numbers" and numbers:
            self.first = self._first(numbers, max(len(options) for options, _ in rows), first)

    def _first(self, numbers: list[int], size: int, first: int | None) -> int:
        place = f"{self.table.path}: the answers are numbers from {min(numbers)} to {max(numbers)}, of {size} options"
        if {0, size} <= set(numbers) or (first == 0 and size in numbers) or (first == 1 and 0 in numbers):
            raise DataError(f"{place}: they cannot count from {'0 and from 1' if first is None else first}; mend them")
        if first is None and not set(numbers) & {0, size}:
            raise DataError(f"{place}, which may count from 0 or from 1; say which: --answers_from 0, or 1")
        return first if first is not None else int(size in numbers)

    def option(self, options: list[str], answer: str) -> int | None:
        """Number of the option that an answer means, counting blank ones; None if it means no option."""
        if self.reading == "texts":
            return self._by_text(options, answer)
        if self.reading == "letters":
            return self._by_letter(options, answer)
        match = _INDEX.fullmatch(answer)
        number = int(match[1]) - self.first if match else -1
        return number if 0 <= number < len(options) and options[number] else None

    def describe(self) -> str:
        """The interpretation with an example, for the user to check."""
        options, answer = next(row for row in self.rows if self.option(*row) is not None)
        words = f"{self.reading}, the first is {self.first}" if self.reading == "numbers" else self.reading
        meant = options[self.option(options, answer) or 0]
        return f"{self.table.path}: answers are read as {words}; {shown(answer)} is {shown(meant)}"

    def is_any(self) -> bool:
        """Whether any answer can be interpreted."""
        return any(self.option(*row) is not None for row in self.rows)

    @staticmethod
    def _by_text(options: list[str], answer: str) -> int | None:
        folded = [option.casefold() for option in options]
        return folded.index(answer.casefold()) if folded.count(answer.casefold()) == 1 else None

    @staticmethod
    def _by_letter(options: list[str], answer: str) -> int | None:
        letter = answer.strip("(). ").lower()
        number = _LETTERS.find(letter) if len(letter) == 1 else -1
        return number if 0 <= number < len(options) and options[number] else None


def read_choices(
    table: Table, found: list[tuple[dict[str, Any], str]], answers_from: int | None
) -> tuple[list[dict[str, Any]], list[tuple[str, str]], str]:
    """Reads questions with the usual number of options and a valid answer.

    Args:
        found: items with their `options`, including blank ones, and their answers.

    Returns:
        items with `answer`, the number of an option or None; (kind, example) of rejected ones; and a description of how
        answers are interpreted

    Raises:
        DataError: see `Meaning`, or there are fewer than two options.
    """
    sizes = [sum(map(bool, item["options"])) for item, _ in found]
    size = max(sizes)
    if size < 2:
        raise DataError(f"{table.path}: a question of multiple choice needs two options or more")
    meaning = Meaning(table, [(item["options"], answer) for item, answer in found if answer], answers_from)
    kept: list[dict[str, Any]] = []
    left: list[tuple[str, str]] = []
    for (item, answer), own in zip(found, sizes, strict=True):
        number = meaning.option(item["options"], answer) if answer else None
        if own < size:
            left.append((f"it has fewer than {size} options", item["where"]))
        elif answer and number is None:
            left.append(("its answer is none of the options", f"{item['where']}, {shown(answer)}"))
        else:
            options = [option for option in item["options"] if option]
            right = None if number is None else sum(map(bool, item["options"][:number]))
            kept.append({**item, "options": options, "answer": right})
    return kept, left, meaning.describe() if meaning.is_any() else ""
