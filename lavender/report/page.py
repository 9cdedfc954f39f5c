"""The report: a single self-contained HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lavender.report import curves
from lavender.report.examples import Answers, Example, Found, answers, choose, example
from lavender.report.frames import Videos
from lavender.report.runs import Run, differences, groups, title
from lavender.report.tables import compare
from lavender.runtime.errors import LavenderError
from lavender.runtime.files import atomic_file
from lavender.runtime.logging import progress
from lavender.tasks.splits import task_and_split


@dataclass(frozen=True)
class Section:
    """Predictions of a run on one split. missing: why frames are not shown."""

    title: str
    count: int
    examples: list[Example]
    answers: Answers | None
    missing: str


def write_page(runs: Sequence[Run], output: Path, count: int = 12, summary: str = "") -> None:
    """Writes the report on some runs.

    Args:
        count: number of examples per split.
        summary: text at the top of the page; its line breaks are kept.

    Raises:
        DataError: predictions cannot be read. OSError: the page cannot be written.
    """
    grouped = groups(runs)
    figures = [
        Markup(curves.svg(name, lines, number == 0 and len(grouped) > 1))
        for number, (name, lines) in enumerate(curves.panels(grouped).items())
    ]
    table = compare(grouped)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    content = environment.get_template("page.html.jinja").render(
        runs=runs,
        summary=summary,
        table=table,
        markdown=table.markdown(),
        latex=table.latex(),
        differences=differences(runs) if len(runs) > 1 else {},
        figures=figures,
        legend=list(zip(grouped, curves.COLOURS * len(grouped), strict=False)) if len(grouped) > 1 else [],
        sections={run.name: _sections(run, count) for run in progress(runs, desc="examples", unit="run")},
    )
    with atomic_file(output) as file:
        file.write(content.encode())


def _sections(run: Run, count: int) -> list[Section]:
    sections = []
    for name, records in run.predictions().items():
        if not records:
            continue
        task, split = task_and_split(name)
        videos = Videos(run.config_of(task), split, records[0])
        found = _found(run, split)
        shown = [example(record, videos, found) for record in choose(records, count)]
        sections.append(Section(title(name), len(records), shown, answers(records), videos.fault))
    return sections


def _found(run: Run, split: str) -> Found | None:
    try:
        return Found(run.folder, split)
    except (OSError, ValueError, LookupError, LavenderError):
        return None
