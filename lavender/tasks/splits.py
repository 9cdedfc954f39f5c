"""Names of splits and figures where there are several tasks or data sets: made and taken apart here alone.

`val`: of a task that is alone; `<task>/val`: of one of several tasks; `<dataset>-val`: of one of several data sets.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Entry = dict[str, Any]  # of results.json: an epoch (or a part of one) with its metrics

_NO_SPLITS = {"epoch", "dataset", "part", "train", "tasks", "chosen"}  # keys of an entry


def of_task(task: str, name: str) -> str:
    """The name of a task's split or figure among those of other tasks; a task that is alone has no name."""
    return f"{task}/{name}" if task else name


def task_and_split(key: str) -> tuple[str, str]:
    """The task ("" for one that is alone) and the split of what `of_task` made."""
    task, _, split = key.rpartition("/")
    return task, split


def of_dataset(dataset: str, split: str) -> str:
    """The name of the split of one of several data sets of a task."""
    return f"{dataset}-{split}" if dataset else split


def is_validation(split: str) -> bool:
    """Whether a split is for validation, of a task's only data set or of one of them."""
    return split == "val" or split.endswith("-val")


def tasks_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Task → its splits with their metrics, of an entry of results.json; a task that is alone has no name."""
    return entry.get("tasks", {"": entry})


def evaluated(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Task, split and metrics of all that was evaluated for an entry of results.json."""
    for task, splits in tasks_of(entry).items():
        for split, metrics in splits.items():
            if split not in _NO_SPLITS and isinstance(metrics, dict):
                yield task, split, metrics
