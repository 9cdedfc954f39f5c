"""Results of a predictor. A notebook also shows the frames that the model saw."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lavender.data.pictures import picture_address

_HEIGHT = 96  # height of a frame in a notebook, in pixels


@dataclass(frozen=True)
class Guess:
    """A text with its probability or, in a search, its score."""

    text: str
    probability: float


@dataclass(frozen=True)
class Result:
    """Base of all results.

    Args:
        guesses: best first. frames: frames that the model saw, uint8 RGB (H, W, 3), before resize and crop.
    """

    video: str
    guesses: list[Guess]
    frames: list[np.ndarray] = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """Text of the best guess."""
        return self.guesses[0].text if self.guesses else ""

    @property
    def probability(self) -> float:
        """Probability of the best guess."""
        return self.guesses[0].probability if self.guesses else 0.0

    def __str__(self) -> str:
        return "\n".join([self._title(), *(f"  {one.probability:6.1%}  {one.text}" for one in self.guesses)])

    def _title(self) -> str:
        return self.video

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{one.probability:.1%}</td><td>{html.escape(one.text)}</td></tr>" for one in self.guesses
        )
        return f"<p>{html.escape(self._title())}</p>{_strip(self.frames)}<table>{rows}</table>"


@dataclass(frozen=True)
class Caption(Result):
    """A caption, or several in `guesses` with `keep` > 1. A probability is the geometric mean over its tokens."""


@dataclass(frozen=True)
class Answer(Result):
    """Answers to a question."""

    question: str

    def _title(self) -> str:
        return f"{self.video}: {self.question}"


@dataclass(frozen=True)
class Choice(Answer):
    """Options of a question; `number` is the index of the best, from 0."""

    number: int


@dataclass(frozen=True)
class Match(Result):
    """Texts by how well they match a video, scored independently, so that probabilities need not add up to 1."""


@dataclass(frozen=True)
class Hit:
    """Video found by a search.

    Args:
        number: its index in the gallery. score: ranking score.
        probability: probability of a match; None for a task-specific head, whose scores only rank.
    """

    number: int
    video: str
    score: float
    probability: float | None = None


@dataclass(frozen=True)
class Found:
    """Videos of a gallery that match a text best, best first."""

    text: str
    hits: list[Hit]

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"  {hit.score:8.3f}  {hit.video}" for hit in self.hits)])


def _strip(frames: Sequence[np.ndarray]) -> str:
    """Frames side by side, as images in HTML."""
    return "".join(f'<img src="{picture_address(frame, 4 * _HEIGHT, _HEIGHT)}">' for frame in frames)
