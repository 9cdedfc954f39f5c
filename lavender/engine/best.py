"""Choice of the best epoch, for a single task or for each of several."""

import math
from collections.abc import Callable
from typing import Any

from lavender.tasks.base import Metrics
from lavender.tasks.splits import Entry, evaluated, is_validation, task_and_split, tasks_of

Choice = tuple[str, Callable]  # a metric, and min or max


def by_task(by_split: dict[str, Metrics]) -> dict[str, Any]:
    """Nests metrics by split for results.json: `{"val": …}`; with several tasks `{"tasks": {task: {"val": …}}}`."""
    nested: dict[str, Any] = {}
    for key, metrics in by_split.items():
        task, split = task_and_split(key)
        place = nested.setdefault("tasks", {}).setdefault(task, {}) if task else nested
        place[split] = metrics
    return nested


def evaluated_tasks(entries: list[Entry]) -> list[str]:
    """Tasks with evaluation metrics in any entry; a single task has the name ""."""
    return list(dict.fromkeys(task for entry in entries for task, _, _ in evaluated(entry)))


def history(entries: list[Entry], task: str) -> list[Entry]:
    """Metrics of one task in each entry, with the epoch."""
    return [{"epoch": entry.get("epoch"), **tasks_of(entry).get(task, {})} for entry in entries]


def best_number(entries: list[Entry], choice: Choice) -> int:
    """Index of the entry with the best validation metric; of the last entry without validation."""
    name, better = choice
    values = {number: _validation(entry, name) for number, entry in enumerate(entries)}
    scored = {number: value for number, value in values.items() if value is not None and math.isfinite(value)}
    return better(scored, key=scored.__getitem__) if scored else len(entries) - 1


def has_validation(entries: list[Entry], choice: Choice) -> bool:
    """Whether any entry has the validation metric that the choice uses."""
    return any(_validation(entry, choice[0]) is not None for entry in entries)


def best_on_test(entries: list[Entry], choice: Choice) -> Entry | None:
    """The entry with the best test metric, as the released code printed it; it must not be reported as a result."""
    name, better = choice
    tested = [entry for entry in entries if math.isfinite(entry.get("test", {}).get(name, math.nan))]
    return better(tested, key=lambda entry: entry["test"][name]) if tested else None


def _validation(entry: Entry, name: str) -> float | None:
    return next((entry[split].get(name) for split in entry if is_validation(split)), None)
