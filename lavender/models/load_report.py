"""Report on loaded weights: which weights a file filled, and the source of each weight."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn

from lavender.models.heads import HEADS
from lavender.runtime.logging import LOGGER

AS_INITIALISED = "random"


@dataclass
class LoadReport:
    """Result of loading a file into a model; names are those of the model's `state_dict()`."""

    source: str
    part: str = ""  # part of the source that was loaded
    prefix: str = ""  # prefix of these names in the whole model, if only a module was filled
    counts: dict[str, int] = field(default_factory=dict)  # name → number of values taken from the file
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    other_shape: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)

    def log(self) -> None:
        """Logs the report, at level INFO if a part of the file or of the model was left out, else DEBUG."""
        unlike = self.missing or self.left_over or self.other_shape or self.resized
        for line in self.lines():
            LOGGER.log(logging.INFO if unlike else logging.DEBUG, "%s", line)

    def lines(self) -> Iterable[str]:
        """The report as a table, one line per row."""
        part = f" ({self.part})" if self.part else ""
        yield f"weights from {self.source}{part}: {len(self.loaded)} loaded"
        notes = {
            "missing": "not in the file, stay as initialised",
            "left_over": "in the file, not in this model",
            "other_shape": "of another shape, stay as initialised",
            "resized": "of another length, the common rows loaded",
        }
        for name, note in notes.items():
            for group, names in _by_module(getattr(self, name)).items():
                label = "fresh head" if name != "left_over" and group.startswith(HEADS) else name.replace("_", " ")
                yield f"  {label:12} {group:40} {len(names):4}  {note}"


class Origins:
    """Sources of a model's weights: for each parameter, the number of its values from each source."""

    def __init__(self, model: nn.Module):
        self._counts = {name: {AS_INITIALISED: weight.numel()} for name, weight in model.named_parameters()}

    def add(self, report: LoadReport) -> None:
        """Adds the report of a file; it replaces earlier sources of the same values."""
        for name, count in report.counts.items():
            before = self._counts.get(report.prefix + name)
            if before is None:
                continue  # the second name of a shared parameter, or a buffer
            rest = sum(before.values()) - count  # rest of a partly filled table
            self._counts[report.prefix + name] = {report.source: count} | ({next(iter(before)): rest} if rest else {})

    def log(self) -> None:
        """Logs the number of parameters from each source in one line; with `-v` also by module."""
        sources: dict[str, int] = {}
        random = set()
        for name, parts in self._counts.items():
            random |= {_module_of(name)} if AS_INITIALISED in parts else set()
            for source, count in parts.items():
                sources[source] = sources.get(source, 0) + count
        shares = [f"{count:,} from {source}" for source, count in sources.items() if source != AS_INITIALISED]
        if random:
            shares.append(f"{sources[AS_INITIALISED]:,} random ({', '.join(sorted(random))})")
        LOGGER.info("model: %s parameters: %s", f"{sum(sources.values()):,}", "; ".join(shares))
        for line in self.lines():
            LOGGER.debug("%s", line)

    def lines(self) -> Iterable[str]:
        """Table of modules, their number of parameters, and their source."""
        modules: dict[str, dict[str, int]] = {}
        for name, sources in self._counts.items():
            rows = modules.setdefault(_module_of(name), {})
            for source, count in sources.items():
                rows[source] = rows.get(source, 0) + count
        yield "weights of each module, in parameters:"
        for module, rows in modules.items():
            for source, count in rows.items():
                yield f"  {module:24} {count:13,}  {source}"


def _module_of(name: str) -> str:
    """Table row of a parameter: `enc_img.swin`, `enc_img tables`, `enc_txt.emb_txt`, `trsfr`, `fc_mtm`, `fc_…`."""
    if name.startswith("enc_img.emb_"):
        return "enc_img tables"
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in ("enc_img", "enc_txt") else parts[0]


def _by_module(names: list[str]) -> dict[str, list[str]]:
    """Groups names by their first two parts, so that a table of 500 names takes a few lines."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split("(")[0].split(".")[:2]), []).append(name)
    return groups
