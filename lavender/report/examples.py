"""Examples of right and wrong predictions, and accuracy by answer."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lavender.report.frames import Videos
from lavender.runtime.errors import DataError

Record = dict[str, Any]
BEST = 5  # maximum answers, options or videos per example
ANSWERS = 20  # rows in the table of answers
CONFUSED = 10  # answers in the confusion matrix


@dataclass(frozen=True)
class Line:
    """Line of text below a video. kind: plain, right or wrong; share: length of its bar, 0 to 1, if any."""

    text: str
    kind: str = "plain"
    share: float | None = None


@dataclass
class Example:
    """One prediction: frames of its video, input, prediction, and other videos found."""

    video: str
    lines: list[Line]
    is_right: bool | None = None  # None: unknown
    frames: list[str] = field(default_factory=list)
    others: list["Example"] = field(default_factory=list)


@dataclass(frozen=True)
class Answers:
    """Accuracy by right answer, most frequent first, and a confusion matrix.

    Args:
        rows: (answer, count, accuracy); names: labels of the confusion matrix; matrix: (rows, columns) of counts, right
            answer × prediction, the last column for all other predictions.
    """

    rows: list[tuple[str, int, float]]
    names: list[str]
    matrix: list[list[int]]


def choose(records: Sequence[Record], count: int) -> list[Record]:
    """Selects records, half of them right and half wrong if possible, evenly spread over the split."""
    right = [record for record in records if is_right(record)]
    wrong = [record for record in records if is_right(record) is False]
    unknown = [record for record in records if is_right(record) is None]
    half = max(count // 2, count - len(right))
    chosen = _spread(wrong, half)
    chosen += _spread(right, count - len(chosen))
    return chosen + _spread(unknown, count - len(chosen))


def is_right(record: Record) -> bool | None:
    """Whether a prediction is right; None if unknown."""
    if "rank" in record:
        return bool(record["rank"] == 1)
    if "right" in record:
        return record["right"]
    if words := record.get("words"):
        return all(word["word"] == word["prediction"] for word in words)
    return None


def example(record: Record, videos: Videos, found: "Found | None") -> Example:
    """Converts a record to an example for the page."""
    made = Example(record["video"], list(_lines(record, videos)), is_right(record), videos.frames(record["video"]))
    if "rank" in record:
        top = found.of(record["index"]) if found else [(record["prediction"], None)]
        for place, (video, score) in enumerate(top, start=1):
            words = f"{place}. {video}" + (f", score {score:.2f}" if score is not None else "")
            kind = "right" if video == record["video"] else "wrong"
            made.others.append(Example(video, [Line(words, kind)], None, videos.frames(video)[:1]))
    return made


def answers(records: Iterable[Record]) -> Answers | None:
    """Table of answers of questions or masked tokens; None if the answers are not words."""
    pairs = [pair for record in records for pair in _answered(record)]
    if not pairs:
        return None
    totals = Counter(answer for answer, _ in pairs)
    right = Counter(answer for answer, guess in pairs if answer == guess)
    rows = [(answer, total, right[answer] / total) for answer, total in totals.most_common(ANSWERS)]
    names = [answer for answer, _ in totals.most_common(CONFUSED)]
    counts = Counter((answer, guess if guess in names else "") for answer, guess in pairs)
    return Answers(rows, names, [[counts[row, column] for column in [*names, ""]] for row in names])


class Found:
    """Scores saved by a retrieval evaluation: the best videos of each text.

    Raises:
        DataError: the files do not fit together.
    """

    def __init__(self, folder: Path, split: str):
        self._scores = np.load(folder / f"scores_{split}.npy", mmap_mode="r", allow_pickle=False)
        self._videos = json.loads((folder / f"scores_{split}.json").read_text(encoding="utf-8"))["videos"]
        if self._scores.ndim != 2 or self._scores.shape[1] != len(self._videos):
            raise DataError(f"{folder}/scores_{split}.npy: {self._scores.shape}, but {len(self._videos)} videos")

    def of(self, text: int) -> list[tuple[str, float | None]]:
        """Best videos of a text with their scores."""
        row = np.asarray(self._scores[text])
        return [(self._videos[n], float(row[n])) for n in np.argsort(-row, kind="stable")[:BEST]]


def _spread(records: Sequence[Record], count: int) -> list[Record]:
    if count <= 0 or not records:
        return []
    places = np.unique(np.linspace(0, len(records) - 1, min(count, len(records))).astype(int))
    return [records[place] for place in places]


def _answered(record: Record) -> list[tuple[str, str]]:
    if "words" in record:
        return [(word["word"], word["prediction"]) for word in record["words"]]
    if "question" in record and isinstance(record.get("answer"), str) and record["answer"]:
        return [(record["answer"], str(record["prediction"]))]
    return []


def _lines(record: Record, videos: Videos) -> Iterable[Line]:
    if "rank" in record:
        yield Line(record["caption"])
        yield Line(f"the right video has rank {record['rank']:g}", "right" if record["rank"] == 1 else "wrong")
    elif "words" in record or "matching" in record:
        yield Line(record["caption"])
        for word in record.get("words", ()):
            kind = "right" if word["word"] == word["prediction"] else "wrong"
            yield Line(f"[{word['word']}] read as {word['prediction']}", kind, word["probability"])
    elif "captions" in record:
        references = videos.references(record["video"])
        kind = ("right" if record["caption"] in references else "plain") if references else "plain"
        yield from (Line(f"“{one['caption']}”", kind, one["conf"]) for one in record["captions"])
        yield from (Line(f"reference: {text}") for text in references[:BEST])
    elif "options" in record:
        yield Line(record["question"] or "which text fits?")
        for entry in record["top"]:
            kind = "right" if entry["option"] == record["answer"] else "wrong"
            chosen = entry["option"] == record["prediction"]
            yield Line(
                record["options"][entry["option"]], kind if chosen or kind == "right" else "plain", entry["probability"]
            )
    elif "question" in record:
        yield Line(record["question"])
        for entry in record["top"]:
            kind = "right" if entry["answer"] == record["answer"] else "plain"
            kind = "wrong" if kind == "plain" and entry["answer"] == record["prediction"] else kind
            yield Line(entry["answer"], kind, entry["probability"])
        if record["answer"] and all(entry["answer"] != record["answer"] for entry in record["top"]):
            yield Line(f"right answer: {record['answer']}")
    elif "caption" in record:
        yield Line(record["caption"])
        yield Line(f"taken for: {record['prediction']}", "right" if record.get("right") else "wrong")
