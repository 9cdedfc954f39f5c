"""How the schema declares options: one function for each heading of `--help`, and the kinds of task."""

from collections.abc import Callable
from dataclasses import field
from typing import Any

from lavender.config.comparisons import Counts

ENTRY_TYPES = ("retrieval", "qamc", "qaoe", "captioning")
TYPES = ("", "pretrain", *ENTRY_TYPES, "multi-task")
# Which kinds of task an option is of, where it is not of all.
PRETRAIN = ("pretrain",)
CAPTIONING, CHOICE, ANSWERS = ("captioning", "multi-task"), ("qamc", "multi-task"), ("qaoe", "multi-task")
RETRIEVAL, SEVERAL, DOWNSTREAM = ("retrieval",), ("multi-task",), (*ENTRY_TYPES, "multi-task")


def group(heading: str, **common: Any) -> Callable[..., Any]:
    """Returns `declare(counts, default, help, **what else an Option has)` for one heading of `--help`."""

    def declare(counts: Counts, default: Any, help: str = "", **more: Any) -> Any:
        if not isinstance(counts, Counts):
            raise TypeError(f"an option says first where it counts (lavender/config/comparisons.py), not {counts!r}")
        metadata = {"group": heading, "help": help, "counts": counts, **common, **more}
        if isinstance(default, list):
            return field(default_factory=lambda: list(default), metadata=metadata)
        return field(default=default, metadata=metadata)

    return declare
