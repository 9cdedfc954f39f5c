"""Rows of tables to captions, questions and choices of existing videos, with a split for each."""

import ast
import json
import random
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lavender.data.annotations import SPLIT_NAMES
from lavender.data.ids import VideoIds
from lavender.prepare.choices import read_choices
from lavender.prepare.columns import Columns
from lavender.prepare.table import Table
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

SPLITS = ("train", "val", "test")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")


@dataclass
class Rows:
    """Accepted items and rejected rows."""

    # Each item has its `video`, its `split` and its source `where`, and
    captions: list[dict[str, Any]] = field(default_factory=list)  # caption
    questions: list[dict[str, Any]] = field(default_factory=list)  # question, answer_text
    choices: list[dict[str, Any]] = field(default_factory=list)  # question, options, answer (None: not given)
    faults: Counter[str] = field(default_factory=Counter)  # kind → number of rejected rows
    examples: dict[str, str] = field(default_factory=dict)  # kind → first such row
    notes: list[str] = field(default_factory=list)  # how answers are interpreted

    def leave_out(self, kind: str, example: str) -> None:
        """Records a rejected row."""
        self.faults[kind] += 1
        self.examples.setdefault(kind, example)

    def keep(self, videos: Container[str], why: str) -> None:
        """Rejects the items of other videos."""
        for items in (self.captions, self.questions, self.choices):
            for item in items:
                if item["video"] not in videos:
                    self.leave_out(why, f"{item['where']}, {shown(item['video'])}")
            items[:] = [item for item in items if item["video"] in videos]

    def all(self) -> list[dict[str, Any]]:
        """All items."""
        return [*self.captions, *self.questions, *self.choices]

    def report(self) -> list[str]:
        """One line for each kind of rejected rows."""
        return [
            f"{count:,} rows left out: {kind}; the first: {self.examples[kind]}" for kind, count in self.faults.items()
        ]


def read_rows(
    tables: Sequence[tuple[Table, Columns]], videos: Iterable[str], folder: object, answers_from: int | None = None
) -> Rows:
    """Reads the items of all tables; `split` is "" without such a column.

    Args:
        videos: ids of the existing videos, in `folder`.
        answers_from: whether numbered answers count from 0 or from 1; None: inferred from the column.

    Raises:
        DataError: no row is usable, or a column does not fit its role.
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
        try:
            video = ids.find(name)
        except DataError as error:  # it could be two
            raise DataError(f"{where}: {error}") from None
        if video is None:
            rows.leave_out("the video is not there", f"{where}, {shown(name)}{ids.hint(name)}")
            continue
        split = split_of(cells[place["split"]], where) if "split" in place else ""
        common = {"video": video, "split": split, "where": where}
        texts = _several(cells[place["caption"]]) if "caption" in place else []
        question = cells[place["question"]] if "question" in place else ""
        answers = _several(cells[place["answer"]]) if "answer" in place else []
        options = _options_of(cells, columns)
        if fault := _fault(cells, texts, answers, options):
            rows.leave_out(fault, where)
            continue
        rows.captions += [{**common, "caption": text} for text in texts or ()]
        answer = answers[0] if answers else ""
        if options:
            choices.append(({**common, "question": question, "options": options}, answer))
        elif question:
            rows.questions.append({**common, "question": question, "answer_text": answer})
        elif not texts:
            rows.leave_out("the text is empty", where)
    if choices:
        kept, left, note = read_choices(table, choices, answers_from)
        rows.choices += kept
        rows.notes += [note] if note else []
        for kind, example in left:
            rows.leave_out(kind, example)


def _fault(cells: list[str], texts: list[str] | None, answers: list[str] | None, options: list[str] | None) -> str:
    """Why a row cannot be used; "" if it can."""
    if texts is None or answers is None or options is None:
        return "a cell holds an object, or a list of lists"
    if len(answers) > 1:
        return "it has several answers"
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return "a text holds half of a character"
    return ""


def split_of(name: str, where: str) -> str:
    """Our name of a split. DataError if it is unknown."""
    for split, names in SPLIT_NAMES.items():
        if name.strip().lower() in names:
            return split
    known = ", ".join(names[0] for names in SPLIT_NAMES.values())
    raise DataError(f"{where}: the split {shown(name)} is not known; write {known}")


def _several(cell: str, blank: bool = False) -> list[str] | None:
    """Texts of a cell: a list in JSON or Python notation, or a single text; None for anything else.

    Args:
        blank: keep blank entries and null in a list, since numbers count them.
    """
    if cell.startswith(("[", "{")):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(cell)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if not isinstance(found, list):
                return None
            texts = ["" if text is None or text != text else text for text in found]  # null and NaN are blank
            if not all(isinstance(text, str | int | float) for text in texts):
                return None
            return [str(text).strip() for text in texts if blank or str(text).strip()]
    return [cell] if cell else []


def _options_of(cells: list[str], columns: Columns) -> list[str] | None:
    if "options" in columns.single:
        return _several(cells[columns.single["options"]], blank=True)
    return [cells[number] for number in columns.options]


def share_out(rows: Rows, shares: Mapping[str, float], seed: int, drawn: Mapping[str, str]) -> dict[str, str]:
    """Draws a split for items without one: whole videos, at random, reproducible for a seed.

    A video that has a split in one table keeps it in the others.

    Args:
        drawn: splits drawn earlier, which are kept.

    Returns:
        video → split, for videos whose split is drawn

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
    waiting = {item["video"] for item in rows.all()} - known.keys()
    chosen = {video: drawn[video] for video in waiting & drawn.keys()}
    videos = sorted(waiting - chosen.keys())
    random.Random(seed).shuffle(videos)
    before = Counter(chosen.values())
    used = [split for split in SPLITS if shares[split] > 0]
    left = len(videos)
    counts = {}
    for split in used[1:]:  # each gets a video if there are enough
        wanted = max(int(shares[split] * len(waiting)), 1 if len(waiting) > used.index(split) else 0)
        counts[split] = min(left, max(0, wanted - before[split]))
        left -= counts[split]
    counts[used[0]] = left
    names = iter(videos)
    for split in used:
        chosen.update((next(names), split) for _ in range(counts[split]))
    for item in rows.all():
        item["split"] = known.get(item["video"]) or chosen[item["video"]]
    return chosen


def leave_out_unanswered(rows: Rows) -> None:
    """Removes items without an answer, except from the test split."""
    for items, key in ((rows.questions, "answer_text"), (rows.choices, "answer")):
        for item in items:
            if item[key] in (None, "") and item["split"] != "test":
                rows.leave_out("it has no answer, which only test items may lack", item["where"])
        items[:] = [item for item in items if item[key] not in (None, "") or item["split"] == "test"]


def check_splits(rows: Rows) -> None:
    """Raises DataError if there are no items, or none for evaluation."""
    splits = {item["split"] for item in rows.all()}
    if not splits:
        raise DataError("; ".join(["no row is left", *rows.report()]))
    if splits == {"train"}:
        raise DataError(
            "all rows are of the split train, and a run evaluates on val or test: give some videos another split, or "
            "have it drawn, which takes two videos or more: --columns split="
        )
