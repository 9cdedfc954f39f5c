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
_LETTERS = "abcdefgh"


@dataclass
class Rows:
    """What was read, and what was left out."""

    captions: list[dict[str, Any]] = field(default_factory=list)  # video, caption, split
    questions: list[dict[str, Any]] = field(default_factory=list)  # video, question, answer_text, split
    choices: list[dict[str, Any]] = field(default_factory=list)  # video, question, options, answer, split
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


def read_rows(tables: Sequence[tuple[Table, Columns]], videos: Iterable[str], folder: object) -> Rows:
    """The items of all tables; `split` is "" where the table has no such column.

    Args:
        videos: the ids that are there, in `folder`.

    Raises:
        DataError: no row can be used, or a column cannot be what it is said to be.
    """
    rows, ids = Rows(), VideoIds(videos, folder)
    for table, columns in tables:
        before = len(rows.all())
        _read(table, columns, ids, rows)
        if len(rows.all()) == before:
            raise DataError(
                "; ".join([f"{table.path}: none of its {len(table.rows)} rows can be used", *rows.report()])
            )
    return rows


def _read(table: Table, columns: Columns, ids: VideoIds, rows: Rows) -> None:
    place = columns.single
    captions = [cells[place["caption"]] for _, cells in table.rows] if "caption" in place else []
    if captions and all(_NUMBER.fullmatch(text) for text in captions if text):
        raise DataError(
            f"{table.path}: the captions in column {shown(table.columns[place['caption']])} are all numbers; "
            "name the column of the captions: --columns caption=NAME"
        )
    choices: list[tuple[str, dict[str, Any], str]] = []
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
        common = {"video": video, "split": split}
        texts = _several(cells[place["caption"]]) if "caption" in place else []
        rows.captions += [{**common, "caption": text} for text in texts]
        question = cells[place["question"]] if "question" in place else ""
        answer = cells[place["answer"]] if "answer" in place else ""
        options = _options_of(cells, columns)
        if options:
            choices.append((where, {**common, "question": question, "options": options}, answer))
        elif question:
            rows.questions.append({**common, "question": question, "answer_text": answer})
        elif not texts:
            rows.leave_out("the text is empty", where)
    _add_choices(table, choices, rows)


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
        if isinstance(found, list) and all(isinstance(text, str) for text in found):
            return [text.strip() for text in found if text.strip()]
    return [cell] if cell else []


def _options_of(cells: list[str], columns: Columns) -> list[str]:
    if "options" in columns.single:
        return _several(cells[columns.single["options"]])
    return [cells[number] for number in columns.options]


def _add_choices(table: Table, found: list[tuple[str, dict[str, Any], str]], rows: Rows) -> None:
    """Multiple choice: every question has as many options as the others, and an answer that is one of them."""
    if not found:
        return
    size = max(len([option for option in item["options"] if option]) for _, item, _ in found)
    if size < 2:
        raise DataError(f"{table.path}: a question of multiple choice needs two options or more")
    first = _first_number(table, [answer for _, _, answer in found], size)
    for where, item, answer in found:
        options = [option for option in item["options"] if option]
        if len(options) < size:
            rows.leave_out(f"it has fewer than {size} options", where)
            continue
        number = _right_option(answer, options, first)
        if answer and number is None:
            rows.leave_out("its answer is none of the options", f"{where}, {shown(answer)}")
            continue
        rows.choices.append({**item, "options": options, "answer": number})


def _first_number(table: Table, answers: list[str], size: int) -> int:
    """Whether numbered answers count from 0 or from 1: the whole column says it."""
    numbers = {int(answer) for answer in answers if re.fullmatch(r"\d{1,4}", answer)}
    if numbers and size in numbers:
        if 0 in numbers:
            raise DataError(f"{table.path}: the answers are numbers from 0 to {size}, and there are {size} options")
        return 1
    return 0


def _right_option(answer: str, options: list[str], first: int) -> int | None:
    """The number of the option that an answer means: its text, its number, or its letter."""
    folded = [option.casefold() for option in options]
    if folded.count(answer.casefold()) == 1:
        return folded.index(answer.casefold())
    if re.fullmatch(r"\d{1,4}", answer) and 0 <= int(answer) - first < len(options):
        return int(answer) - first
    letter = answer.strip("().").lower()
    if len(letter) == 1 and letter in _LETTERS[: len(options)]:
        return _LETTERS.index(letter)
    return None


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
    at_least = 1 if len(videos) >= len(used) else 0
    counts = {split: max(at_least, int(shares[split] * len(videos))) for split in used}
    counts[used[0]] += len(videos) - sum(counts.values())
    names = iter(videos)
    for split, count in counts.items():
        known.update((next(names), split) for _ in range(count))
    for item in rows.all():
        item["split"] = known[item["video"]]
