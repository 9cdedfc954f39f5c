"""Curves over epochs as SVG for the page."""

import io
from collections.abc import Mapping, Sequence

from lavender.report.runs import Points, Run

GREY = "#8a8f98"  # axes and text: legible on white and black
COLOURS = ("#7a4fbf", "#d9822b", "#2b8a6e", "#c2476b", "#3b78c2", "#8d7a28", "#5d6b7a", "#9b5fc0")


def panels(groups: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, list[Points]]]:
    """Plot title → group → the curve of each of its runs. Losses first, then each metric of each split.

    Plots with fewer than two points in every run are left out.
    """
    found: dict[str, dict[str, list[Points]]] = {}
    for group, runs in groups.items():
        for run in runs:
            for name, points in run.curves().items():
                found.setdefault(name, {}).setdefault(group, []).append(points)
    kept = {name: lines for name, lines in found.items() if any(len(p) > 1 for ps in lines.values() for p in ps)}
    kept = {name: lines for name, lines in kept.items() if "count_" not in name}
    return dict(sorted(kept.items(), key=lambda pair: ("loss" not in pair[0], not pair[0].startswith("train"))))


def svg(title: str, lines: Mapping[str, Sequence[Points]], legend: bool) -> str:
    """One plot, 360 × 220 px, without a background."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({"svg.fonttype": "none", "font.size": 9, "svg.hashsalt": title}):
        figure = Figure(figsize=(5, 3.05), dpi=72, layout="constrained")
        axes = figure.add_subplot()
        for number, (name, curves) in enumerate(lines.items()):
            for place, points in enumerate(curves):
                label = name if place == 0 else None
                axes.plot(*zip(*points, strict=True), ".-", color=COLOURS[number % len(COLOURS)], label=label, lw=1.5)
        axes.set_title(title, color=GREY, fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(colors=GREY)
        axes.grid(alpha=0.25)
        for spine in axes.spines.values():
            spine.set_color(GREY)
        axes.set_xlabel("epoch", color=GREY)
        if legend:
            axes.legend(fontsize=7, labelcolor=GREY, framealpha=0)
        data = io.StringIO()
        figure.savefig(data, format="svg", transparent=True, metadata={"Date": None})
    return data.getvalue()[data.getvalue().index("<svg") :]
