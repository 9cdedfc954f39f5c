"""Rows of tables → captions, questions and choices of videos that are there, each in its split."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavender.data.annotations import SPLIT_NAMES
from lavender.data.ids import VideoIds
from lavender.prepare.columns import Columns
from lavender.prepare.table import Table
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

SPLITS = ("train", "val", "test")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_INDEX = re.compile(r"\d{1,4}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Rows:
    """What was read, and what was left out."""

    # Each item has its `video`, its `split` and `where` it is from, and
    captions: list[dict[str, Any]] = field(default_factory=list)  # caption
    questions: list[dict[str, Any]] = field(default_factory=list)  # question, answer_text
    choices: list[dict[str, Any]] = field(default_factory=list)  # question, options, answer (None: not given)
    faults: Counter[str] = field(default_factory=Counter)  # kind → rows left out
    examples: dict[str, str] = field(default_factory=dict)  # kind → the first such row

    def leave_out(self, kind: str, example: str) -> None:
        """Notes a row that is not used."""
        self.faults[kind] += 1
        self.examples.setdefault(kind, example)

    def all(self) -> list[dict[str, Any]]:
        """Every item."""
        return [*self.captions, *self.questions, *self.choices]

    def report(self) -> list[str]:
        """A line for each kind of row that was left out."""
        return [
            f"{count:,} rows left out: {kind}; the first: {self.examples[kind]}" for kind, count in self.faults.items()
        ]


def read_rows(
    tables: Sequence[tuple[Table, Columns]], videos: Iterable[str], folder: object, answers_from: int | None = None
) -> Rows:
    """The items of all tables; `split` is "" where the table has no such column.

    Args:
        videos: the ids that are there, in `folder`.
        answers_from: whether numbered answers count from 0 or from 1; None: as the column shows.

    Raises:
        DataError: no row can be used, or a column cannot be what it is said to be.
    """
    rows, ids = Rows(), VideoIds(videos, folder)
    for table, columns in tables:
        before = len(rows.all())
        _read(table, columns, ids, rows, answers_from)
        if len(rows.all()) == before:
            raise DataError(
                "; ".join([f"{table.path}: none of its {len(table.rows)} rows can be used", *rows.report()])
            )
    return rows


def _read(table: Table, columns: Columns, ids: VideoIds, rows: Rows, answers_from: int | None) -> None:
    place = columns.single
    captions = [cells[place["caption"]] for _, cells in table.rows] if "caption" in place else []
    if captions and all(_NUMBER.fullmatch(text) for text in captions if text):
        raise DataError(
            f"{table.path}: the captions in column {shown(table.columns[place['caption']])} are all numbers; "
            "name the column of the captions: --columns caption=NAME"
        )
    choices: list[tuple[dict[str, Any], str]] = []
    for line, cells in table.rows:
        where, name = table.where(line), cells[place["video"]]
        if not name:
            rows.leave_out("no video is named", where)
            continue
        video = ids.find(name)
        if video is None:
            rows.leave_out("the video is not there", f"{where}, {shown(name)}{ids.hint(name)}")
            continue
        split = split_of(cells[place["split"]], where) if "split" in place else ""
        common = {"video": video, "split": split, "where": where}
        texts = _several(cells[place["caption"]]) if "caption" in place else []
        rows.captions += [{**common, "caption": text} for text in texts]
        question = cells[place["question"]] if "question" in place else ""
        answer = cells[place["answer"]] if "answer" in place else ""
        options = _options_of(cells, columns)
        if options:
            choices.append(({**common, "question": question, "options": options}, answer))
        elif question:
            rows.questions.append({**common, "question": question, "answer_text": answer})
        elif not texts:
            rows.leave_out("the text is empty", where)
    _add_choices(table, choices, rows, answers_from)


def split_of(name: str, where: str) -> str:
    """Our name of a split. DataError where it is none."""
    for split, names in SPLIT_NAMES.items():
        if name.strip().lower() in names:
            return split
    known = ", ".join(names[0] for names in SPLIT_NAMES.values())
    raise DataError(f"{where}: the split {shown(name)} is not known; write {known}")


def _several(cell: str) -> list[str]:
    """The texts of a cell: a JSON list of them, or one."""
    if cell.startswith("["):
        try:
            found = json.loads(cell)
        except ValueError:
            found = None
        if isinstance(found, list) and all(isinstance(text, str | int | float) for text in found):
            return [str(text).strip() for text in found if str(text).strip()]
    return [cell] if cell else []


def _options_of(cells: list[str], columns: Columns) -> list[str]:
    if "options" in columns.single:
        return _several(cells[columns.single["options"]])
    return [cells[number] for number in columns.options]


def _add_choices(table: Table, found: list[tuple[dict[str, Any], str]], rows: Rows, answers_from: int | None) -> None:
    """Multiple choice: every question has as many options as the others, and an answer that is one of them."""
    if not found:
        return
    for item, _ in found:
        item["options"] = [option for option in item["options"] if option]
    size = max(len(item["options"]) for item, _ in found)
    if size < 2:
        raise DataError(f"{table.path}: a question of multiple choice needs two options or more")
    meaning = _Meaning(table, [(item["options"], answer) for item, answer in found if answer], size, answers_from)
    for item, answer in found:
        if len(item["options"]) < size:
            rows.leave_out(f"it has fewer than {size} options", item["where"])
            continue
        item["answer"] = meaning.option(answer, item["options"]) if answer else None
        if answer and item["answer"] is None:
            rows.leave_out("its answer is none of the options", f"{item['where']}, {shown(answer)}")
        else:
            rows.choices.append(item)


class _Meaning:
    """What the answers of a table are: the text, the number or the letter of an option; the whole column says it.

    Args:
        answers: options and answer of each row that has one; size: how many options.
        first: whether numbers count from 0 or from 1; None: as the column shows.

    Raises:
        DataError: the numbers do not fit the options, or could count from 0 or from 1.
    """

    def __init__(self, table: Table, answers: list[tuple[list[str], str]], size: int, first: int | None):
        self.by_text = all(_text_of(answer, options) is not None for options, answer in answers)
        numbers = {int(answer) for _, answer in answers if _INDEX.fullmatch(answer)}
        self.first = first or 0
        if self.by_text or not numbers or first is not None:
            return
        if {0, size} <= numbers:
            raise DataError(f"{table.path}: the answers are numbers from 0 to {size}, and there are {size} options")
        if not numbers & {0, size}:
            raise DataError(
                f"{table.path}: the answers are numbers from {min(numbers)} to {max(numbers)} of {size} options, which "
                "may count from 0 or from 1; say which: --answers_from 0, or 1"
            )
        self.first = 1 if size in numbers else 0

    def option(self, answer: str, options: list[str]) -> int | None:
        """The number of the option, from 0; None where it is none of them."""
        if not self.by_text and _INDEX.fullmatch(answer):
            number = int(answer) - self.first
            return number if 0 <= number < len(options) else None
        number_of_text = _text_of(answer, options)
        letter = answer.strip("(). ").lower()
        if number_of_text is None and len(letter) == 1 and letter in _LETTERS[: len(options)]:
            return _LETTERS.index(letter)
        return number_of_text


def _text_of(answer: str, options: list[str]) -> int | None:
    """The only option with this text, in any case."""
    folded = [option.casefold() for option in options]
    return folded.index(answer.casefold()) if folded.count(answer.casefold()) == 1 else None


def share_out(rows: Rows, shares: Mapping[str, float], seed: int) -> None:
    """Gives a split to the items that have none: whole videos, at random but always the same for a seed.

    A video that has a split in one table keeps it in the others.

    Raises:
        DataError: a video has two splits.
    """
    known: dict[str, str] = {}
    for item in rows.all():
        if item["split"] and known.setdefault(item["video"], item["split"]) != item["split"]:
            raise DataError(
                f"video {shown(item['video'])} is in {known[item['video']]} and in {item['split']}: what is trained on "
                "would be tested; give all rows of a video one split"
            )
    videos = sorted({item["video"] for item in rows.all()} - known.keys())
    random.Random(seed).shuffle(videos)
    used = [split for split in SPLITS if shares[split] > 0]
    counts = {split: int(shares[split] * len(videos)) for split in used}
    for split in used[1:]:  # each has a video, where there are enough
        counts[split] = max(counts[split], 1 if len(videos) > used.index(split) else 0)
    counts[used[0]] = len(videos) - sum(counts[split] for split in used[1:])
    names = iter(videos)
    for split, count in counts.items():
        known.update((next(names), split) for _ in range(count))
    for item in rows.all():
        item["split"] = known[item["video"]]


def leave_out_unanswered(rows: Rows) -> None:
    """Only test items may have no answer."""
    for items, key in ((rows.questions, "answer_text"), (rows.choices, "answer")):
        for item in items:
            if item[key] in (None, "") and item["split"] != "test":
                rows.leave_out("it has no answer, which only test items may lack", item["where"])
        items[:] = [item for item in items if item[key] not in (None, "") or item["split"] == "test"]


def check_splits(rows: Rows) -> None:
    """Raises DataError where nothing is left to evaluate on, or nothing at all."""
    splits = {item["split"] for item in rows.all()}
    if not splits:
        raise DataError("; ".join(["no row is left", *rows.report()]))
    if splits == {"train"}:
        raise DataError(
            "all rows are of the split train, and a run evaluates on val or test: give some videos another split, or "
            "have it drawn, which takes two videos or more: --columns split="
        )
