"""Declaration of options in the schema: one function per heading of `--help`, and the kinds of task."""

from collections.abc import Callable
from dataclasses import field
from typing import Any

from lavender.config.comparisons import Counts

ENTRY_TYPES = ("retrieval", "qamc", "qaoe", "captioning")
TYPES = ("", "pretrain", *ENTRY_TYPES, "multi-task")
# Kinds of task of options that do not belong to all.
PRETRAIN = ("pretrain",)
CAPTIONING, CHOICE, ANSWERS = ("captioning", "multi-task"), ("qamc", "multi-task"), ("qaoe", "multi-task")
RETRIEVAL, SEVERAL, DOWNSTREAM = ("retrieval",), ("multi-task",), (*ENTRY_TYPES, "multi-task")


def group(heading: str, **common: Any) -> Callable[..., Any]:
    """Returns `declare(counts, default, help, **other fields of Option)` for one heading of `--help`."""

    def declare(counts: Counts, default: Any, help: str = "", **more: Any) -> Any:
        if not isinstance(counts, Counts):
            raise TypeError(f"an option says first where it counts (lavender/config/comparisons.py), not {counts!r}")
        metadata = {"group": heading, "help": help, "counts": counts, **common, **more}
        if isinstance(default, list):
            return field(default_factory=lambda: list(default), metadata=metadata)
        return field(default=default, metadata=metadata)

    return declare
