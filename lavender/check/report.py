"""Report of the findings: for the terminal, as JSON, and as a picture."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavender.check.cost import Cost
from lavender.check.findings import ERROR, Finding
from lavender.check.splits import Split
from lavender.check.videos import Decoded, Video, Videos
from lavender.runtime.files import atomic_file

TOP_ANSWERS = 15
BLUE, RED = "#4878a8", "#b03030"


def lines(
    splits: Sequence[Split], findings: Sequence[Finding], costs: Sequence[Cost | str], tflops: float
) -> list[str]:
    """Table for the terminal."""
    said = [f"{'split':32}{'samples':>12}{'videos':>12}{'tokens (median, longest)':>28}"]
    for split in splits:
        middle = int(np.median(split.lengths)) if len(split.lengths) else 0
        tokens = f"{middle}, {split.lengths.max(initial=0)} (size_txt {split.config.size_txt})"
        said.append(f"{split.title[:31]:32}{len(split.videos):>12,}{len(set(split.videos)):>12,}{tokens:>28}")
    for finding in findings:
        said += ["", f"{finding.level}: {finding.kind}: {finding.count:,} of {finding.total:,} ({finding.share:.1%})"]
        said += [f"  in {finding.where}", *(f"  such as {example}" for example in finding.examples[:1])]
        said += [f"          {example}" for example in finding.examples[1:]]
        said += [f"  {finding.advice}"]
    if not findings:
        said += ["", "nothing is wrong"]
    said.append("")
    said += [one if isinstance(one, str) else _cost_line(one, tflops) for one in costs]
    return said


def _cost_line(cost: Cost, tflops: float) -> str:
    return (
        f"{cost.task}: {cost.steps:,} steps on one GPU, at most about {cost.memory / 2**30:.0f} GiB, "
        f"{cost.hours(tflops):.1f} GPU-hours at {tflops:g} TFLOP/s ({cost.parameters / 1e6:.0f} M parameters, "
        f"{cost.clip_flops / 1e9:.0f} GFLOP a clip, {cost.pair_flops / 1e9:.0f} a text); estimated, not measured"
    )


def content(
    splits: Sequence[Split], findings: Sequence[Finding], costs: Sequence[Cost | str], decoded: int, tflops: float
) -> dict[str, Any]:
    """The report as a JSON object."""
    return {
        "splits": [
            {
                "task": split.task,
                "split": split.name,
                "file": split.where,
                "samples": len(split.videos),
                "videos": len(set(split.videos)),
                "longest_text": int(split.lengths.max(initial=0)),
                "size_txt": split.config.size_txt,
            }
            for split in splits
        ],
        "findings": [
            {**{name: getattr(finding, name) for name in ("kind", "level", "where", "count", "total", "share")}}
            | {"examples": list(finding.examples), "advice": finding.advice}
            for finding in findings
        ],
        "videos_decoded": decoded,
        "cost": [
            {"unknown": one}
            if isinstance(one, str)
            else {**vars(one), "gpu_hours": one.hours(tflops), "tflops": tflops}
            for one in costs
        ],
        "ok": all(finding.level != ERROR for finding in findings),
    }


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes the result of `content`."""
    with atomic_file(path) as file:
        file.write((json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def draw(path: Path, splits: Sequence[Split], videos: Videos, decoded: Mapping[Video, Decoded]) -> bool:
    """Draws histograms of frames per video, smallest sides, text lengths and answers; False without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (frames, sides), (texts, answers) = figure.subplots(2, 2)
    tried = [one for one in decoded.values() if not one.fault]
    counts = sorted(Counter(one.frames for one in tried).items())
    frames.bar(range(len(counts)), [count for _, count in counts], color=BLUE)
    frames.set_xticks(range(len(counts)), [str(number) for number, _ in counts])
    frames.set(xlabel="frames of a video", ylabel=f"videos, of {len(tried):,} decoded")
    size = splits[0].config.size_img
    sides.hist(
        [one.side for one in tried], bins=30, range=(0, max([2 * size, *(one.side for one in tried)])), color=BLUE
    )
    sides.set(xlabel="smaller side of a frame (pixels)", ylabel="videos")
    sides.axvline(size, color=RED, linestyle="--", label=f"size_img {size}")
    sides.legend()
    limits = sorted({split.config.size_txt for split in splits})
    longest = max([1.2 * limits[-1], *(split.lengths.max(initial=0) + 1 for split in splits)])
    texts.hist([split.lengths for split in splits], 40, (0, longest), stacked=True, label=[one.title for one in splits])
    for limit in limits:
        texts.axvline(limit, color=RED, linestyle="--", label=f"size_txt {limit}")
    texts.set(xlabel="tokens of a text", ylabel="samples")
    texts.legend(fontsize="small")
    total: Counter[str] = Counter()
    for split in splits:
        total.update(split.answers)
    if total:
        words, numbers = zip(*total.most_common(TOP_ANSWERS), strict=True)
        answers.barh(range(len(words)), numbers, color=BLUE)
        answers.set_yticks(range(len(words)), [word[:24] for word in words])
        answers.invert_yaxis()
        answers.set(xlabel=f"samples; {len(total):,} different answers")
    else:
        answers.set_axis_off()
        answers.text(0.5, 0.5, "no answers in words", ha="center")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
    return True
