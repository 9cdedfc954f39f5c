"""python docs/overview.py: draws `overview.png`, the picture of the README, with a made-up clip of the demo."""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
from lavender.demo.toy import ToyClip, render  # noqa: E402

INK, VIDEO, TEXT, MODEL, ANSWER = "#1f2430", "#dbe7fb", "#e9e2f8", "#f3f1f8", "#7a4fbf"
TASKS = (  # task, its text, the word at [MASK]
    ("masked language modelling", "a [MASK] star spins", "red"),
    ("video-text matching, retrieval", "a red star spins, true or false? [MASK]", "true"),
    ("open-ended questions", "what does the star do? [MASK]", "spins"),
    ("multiple choice", "what is it? option 0: a cross option 1: a star [MASK]", "1"),
    ("captioning", "a red [MASK]", "star, then the next word"),
)


def box(axes: Axes, left: float, bottom: float, width: float, height: float, text: str, colour: str) -> None:
    """A rounded box with centred text; sizes in inches."""
    style = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, style, fc=colour, ec=INK, lw=1))
    axes.text(left + width / 2, bottom + height / 2, text, ha="center", va="center", color=INK, size=12)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points."""
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=INK, lw=1.2))


def main() -> None:
    """Writes the picture."""
    figure = plt.figure(figsize=(12, 5.2), dpi=100, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 12), ylim=(0, 5.2))
    axes.axis("off")
    frames = render(ToyClip("clip", "red", "star", "spins", 7), 96, 20)[[4, 8, 12, 16]]
    for number, frame in enumerate(frames):
        left = 0.3 + 0.78 * number
        axes.imshow(frame, extent=(left, left + 0.7, 4.2, 4.9), zorder=2, interpolation="bilinear")
    box(axes, 0.3, 3.0, 3.04, 0.7, "Video Swin", VIDEO)
    box(axes, 3.8, 3.0, 2.6, 0.7, "word embeddings", TEXT)
    axes.text(5.1, 4.55, "what does the star do? [MASK]", ha="center", va="center", color=INK, size=11)
    box(axes, 0.3, 1.75, 6.1, 0.75, "fusion: a BERT over video and words", MODEL)
    box(axes, 4.35, 0.85, 1.5, 0.5, "MLM head", MODEL)
    axes.text(5.1, 0.3, "spins", ha="center", va="center", color=ANSWER, size=14, weight="bold")
    for start, end in (((1.82, 4.15), (1.82, 3.74)), ((1.82, 2.97), (1.82, 2.54)), ((5.1, 4.35), (5.1, 3.74))):
        arrow(axes, start, end)
    for start, end in (((5.1, 2.97), (5.1, 2.54)), ((5.1, 1.72), (5.1, 1.39)), ((5.1, 0.82), (5.1, 0.5))):
        arrow(axes, start, end)
    axes.text(7.0, 4.75, "Every task is a word at [MASK]", color=INK, size=13, weight="bold", va="center")
    for number, (task, text, word) in enumerate(TASKS):
        top = 4.2 - 0.82 * number
        axes.text(7.0, top, task, color=INK, size=11, va="center", weight="bold")
        axes.text(7.0, top - 0.3, text, color="#555c6b", size=10.5, va="center")
        axes.text(11.7, top, word, color=ANSWER, size=11, va="center", ha="right", weight="bold")
        axes.plot((7.0, 11.7), (top - 0.53, top - 0.53), color="#d9dce3", lw=0.8)
    axes.set_aspect("auto")
    axes.set_xlim(0, 12)
    axes.set_ylim(0, 5.2)
    figure.savefig(FOLDER / "overview.png")


if __name__ == "__main__":
    main()
