"""Results of the demo's runs: metrics on clips of combinations that were never trained on."""

import json
from pathlib import Path
from typing import Any

from lavender.data.tsv import TSVReader
from lavender.demo.toy import COLOURS, MOTIONS, OPTIONS, SHAPES

KINDS = {"colours": set(COLOURS), "shapes": set(SHAPES), "motions": set(MOTIONS)}
CHANCE = {
    "toy-qa": (1 / len(COLOURS) + 1 / len(MOTIONS)) / 2,
    "toy-mc": 1 / OPTIONS,
    "toy-cap": 1 / (len(COLOURS) * len(SHAPES) * len(MOTIONS)),
}
Records = list[dict[str, Any]]


def read_predictions(run: Path, split: str) -> Records:
    """Records of a run's evaluation."""
    return [json.loads(line) for line in (run / "predictions" / f"{split}.jsonl").read_text().splitlines()]


def read_results(run: Path) -> dict[str, Any]:
    """Metrics of a run."""
    return json.loads((run / "results.json").read_text())


def metrics_of(run: Path, task: str = "") -> dict[str, float]:
    """Test metrics at the best epoch, or of the evaluation alone; `task` selects one of several tasks."""
    results = read_results(run)
    entry = results.get("best") or results["zero_shot"]
    return (entry["tasks"][task] if task else entry)["test"]


def by_kind(records: Records) -> dict[str, float]:
    """Accuracy over masked words by kind of word."""
    words = [word for record in records for word in record["words"]]
    found = {}
    for kind, members in KINDS.items():
        right = [word["prediction"] == word["word"] for word in words if word["word"] in members]
        found[kind] = sum(right) / max(len(right), 1)
    return found


def words(run: Path) -> str:
    """Accuracy over masked words by kind, on validation, as text."""
    found = by_kind(read_predictions(run, "val"))
    return ", ".join(f"{kind} {share:.0%}" for kind, share in found.items()) + " right"


def table(run: Path, search: Path, folder: Path) -> list[str]:
    """Results of a model of all tasks beside chance level.

    Args:
        run: run of the model; search: its retrieval evaluation; folder: folder of the demo.
    """
    found = metrics_of(search)
    captions = read_predictions(run, "toy-cap/test")
    rows = {
        "questions answered": (metrics_of(run, "toy-qa")["acc_1"], CHANCE["toy-qa"]),
        "the right text of five chosen": (metrics_of(run, "toy-mc")["acc"], CHANCE["toy-mc"]),
        "the clip of a text found first": (found["r@1"], 1 / found["videos"]),
        "… among the first five": (found["r@5"], 5 / found["videos"]),
        "captions right word for word": (word_for_word(captions, read_references(folder, "test")), CHANCE["toy-cap"]),
    }
    lines = [f"  {name:34}{share:6.0%}     by chance {chance:.0%}" for name, (share, chance) in rows.items()]
    cider = metrics_of(run, "toy-cap").get("CIDEr")
    return lines + ([] if cider is None else [f"  {'CIDEr of the captions':34}{cider:6.1f}"])


def accuracy(run: Path, metric: str, chance: float) -> str:
    """Test accuracy as text."""
    return f"{metrics_of(run)[metric]:.0%} (chance {chance:.0%})"


def recall(run: Path) -> str:
    """Recall of the gallery as text."""
    metrics = metrics_of(run)
    return f"R@1 {metrics['r@1']:.0%}, R@5 {metrics['r@5']:.0%}"


def captions(run: Path, folder: Path, split: str) -> str:
    """Fraction of captions equal to a reference, as text."""
    return f"{word_for_word(read_predictions(run, 'test'), read_references(folder, split)):.0%} right word for word"


def word_for_word(records: Records, references: dict[str, list[str]]) -> float:
    """Fraction of captions that equal one of their references."""
    return sum(record["caption"] in references[record["video"]] for record in records) / len(records)


def read_references(folder: Path, split: str) -> dict[str, list[str]]:
    """Video id → reference captions, of a split of the toy captioning folder."""
    rows = TSVReader(folder / "CAP" / f"{split}.caption.tsv")
    fields = map(rows.row, range(len(rows)))
    return {video: [entry["caption"] for entry in json.loads(captions)] for video, captions in fields}
