"""Names of splits and metrics with several tasks or data sets; only this module builds and parses them.

`val`: a single task; `<task>/val`: one of several tasks; `<dataset>-val`: one of several data sets.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Entry = dict[str, Any]  # entry of results.json: an epoch, or a part of one, with its metrics

_NO_SPLITS = {"epoch", "dataset", "part", "train", "tasks", "chosen"}  # other keys of an entry


def of_task(task: str, name: str) -> str:
    """Full name of a task's split or metric; a single task has the name "" and adds nothing."""
    return f"{task}/{name}" if task else name


def task_and_split(key: str) -> tuple[str, str]:
    """Splits a name made by `of_task` into task ("" for a single one) and split."""
    task, _, split = key.rpartition("/")
    return task, split


def of_dataset(dataset: str, split: str) -> str:
    """Split name of one of several data sets of a task."""
    return f"{dataset}-{split}" if dataset else split


def is_validation(split: str) -> bool:
    """Whether a split is for validation, of one or several data sets."""
    return split == "val" or split.endswith("-val")


def tasks_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Task → its splits with their metrics, in an entry of results.json; a single task has the name ""."""
    return entry.get("tasks", {"": entry})


def evaluated(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yields task, split and metrics of every evaluation in an entry of results.json."""
    for task, splits in tasks_of(entry).items():
        for split, metrics in splits.items():
            if split not in _NO_SPLITS and isinstance(metrics, dict):
                yield task, split, metrics
