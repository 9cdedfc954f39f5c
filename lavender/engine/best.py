"""Which epoch is the best, for a task alone or for each of several."""

import math
from collections.abc import Callable
from typing import Any

from lavender.tasks.base import Metrics
from lavender.tasks.splits import Entry, evaluated, is_validation, task_and_split, tasks_of

Choice = tuple[str, Callable]  # a metric, and min or max


def by_task(figures: dict[str, Metrics]) -> dict[str, Any]:
    """Figures of splits as results.json has them: `{"val": …}`; of several tasks `{"tasks": {task: {"val": …}}}`."""
    nested: dict[str, Any] = {}
    for key, metrics in figures.items():
        task, split = task_and_split(key)
        place = nested.setdefault("tasks", {}).setdefault(task, {}) if task else nested
        place[split] = metrics
    return nested


def evaluated_tasks(entries: list[Entry]) -> list[str]:
    """The tasks that any entry has figures of, beside those of training; one that is alone has no name."""
    return list(dict.fromkeys(task for entry in entries for task, _, _ in evaluated(entry)))


def history(entries: list[Entry], task: str) -> list[Entry]:
    """A task's part of each entry, with the epoch."""
    return [{"epoch": entry.get("epoch"), **tasks_of(entry).get(task, {})} for entry in entries]


def best_number(entries: list[Entry], choice: Choice) -> int:
    """The place of the entry that is best on validation; of the last one where there is none."""
    name, better = choice
    values = {number: _validation(entry, name) for number, entry in enumerate(entries)}
    scored = {number: value for number, value in values.items() if value is not None and math.isfinite(value)}
    return better(scored, key=scored.__getitem__) if scored else len(entries) - 1


def has_validation(entries: list[Entry], choice: Choice) -> bool:
    """Whether any entry was validated by the metric that chooses."""
    return any(_validation(entry, choice[0]) is not None for entry in entries)


def best_on_test(entries: list[Entry], choice: Choice) -> Entry | None:
    """The entry that is best on test itself, which the released code printed; a choice made there is no result."""
    name, better = choice
    tested = [entry for entry in entries if math.isfinite(entry.get("test", {}).get(name, math.nan))]
    return better(tested, key=lambda entry: entry["test"][name]) if tested else None


def _validation(entry: Entry, name: str) -> float | None:
    return next((entry[split].get(name) for split in entry if is_validation(split)), None)
