"""Contents of run folders, and groups of runs that differ only by seed."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lavender.config.load import from_dict, read_object
from lavender.config.schema import Config
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from
from lavender.tasks.splits import evaluated, task_and_split, tasks_of

Key = tuple[str, str, str]  # task ("" for a single one), split, metric
Points = list[tuple[float, float]]  # (epoch, value)

_OF_A_SEED = ("seed", "path_output", "config", "n_workers", "resume", "given", "remarks")  # may differ in a group


@dataclass(frozen=True)
class Run:
    """Folder of a run.

    Args:
        folder: the run's folder; options: contents of args.json; results: contents of results.json.
    """

    folder: Path
    options: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder without the leading underscore."""
        return self.folder.name.removeprefix("_")

    @cached_property
    def config(self) -> Config:
        """Options of the run, for reading its data. ConfigError if args.json is invalid."""
        return from_dict(dict(self.options), str(self.folder / "args.json"), strict=False)

    def config_of(self, task: str) -> Config:
        """Options of one of several tasks."""
        if not task:
            return self.config
        return next((entry for entry in self.config.entries() if entry.task == task), self.config)

    def best(self) -> dict[Key, float]:
        """Metrics of each task at its best epoch; of the zero-shot evaluation if there are no epochs."""
        entry = self.results.get("best") or self.results.get("zero_shot") or {}
        return dict(_metrics(entry))

    def best_epochs(self) -> dict[str, Any]:
        """Task → best epoch."""
        best = self.results.get("best") or {}
        return {task: splits["epoch"] for task, splits in tasks_of(best).items() if "epoch" in splits}

    def curves(self) -> dict[str, Points]:
        """Name → values over epochs: training metrics, and each metric of each split."""
        curves: dict[str, Points] = {}
        entries = self.results.get("epochs", [])
        for number, entry in enumerate(entries, start=1):
            values = {f"train {name}": value for name, value in entry.get("train", {}).items()}
            values |= {" ".join(filter(None, key)): value for key, value in _metrics(entry)}
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    curves.setdefault(name, []).append((number, value))
        return curves

    def predictions(self) -> dict[str, list[dict[str, Any]]]:
        """Split, with a task prefix if there are several → records of its best epoch.

        Raises:
            DataError: a line is not JSON.
        """
        place = self.folder / "predictions"
        files = sorted(path for path in place.rglob("*.jsonl") if not path.stem.endswith(".latest"))
        return {str(path.relative_to(place).with_suffix("")): _records(path) for path in files}


def open_run(folder: Path) -> Run:
    """Opens the run of a folder. DataError if it is not a run, or has no results yet."""
    for name in ("args.json", "results.json"):
        if not (folder / name).is_file():
            reason = "it has no results yet" if (folder / "args.json").is_file() else "this is no run's folder"
            raise DataError(f"{folder / name} is missing{looked_from(folder)}: {reason}")
    return Run(folder, read_object(folder / "args.json"), read_object(folder / "results.json"))


def groups(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Name → runs that differ only by seed, in the given order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        alike = {key: value for key, value in run.options.items() if key not in _OF_A_SEED}
        found.setdefault(json.dumps(alike, sort_keys=True), []).append(run)
    named: dict[str, list[Run]] = {}
    for members in found.values():
        name = members[0].name if len(members) == 1 else f"{members[0].name} and {len(members) - 1} more seeds"
        named[name] = members
    return named


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Option → its value in each run, for options that differ."""
    keys = dict.fromkeys(key for run in runs for key in run.options)
    values = {key: [json.dumps(run.options.get(key), ensure_ascii=False) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if len(set(row)) > 1 and key not in ("given", "remarks", "config")}


def _metrics(entry: Mapping[str, Any]) -> list[tuple[Key, float]]:
    return [
        ((task, split, name), value)
        for task, split, metrics in evaluated(entry)
        for name, value in metrics.items()
        if _is_number(value)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error})") from None
    return records


def title(name: str) -> str:
    """Title of a file of predictions in the report."""
    task, split = task_and_split(name)
    return " ".join(filter(None, (task, split)))
