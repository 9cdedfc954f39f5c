"""What a predictor says of a video. A notebook shows the frames that the model saw, too."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lavender.data.pictures import picture_address

_HEIGHT = 96  # pixels of a frame in a notebook


@dataclass(frozen=True)
class Guess:
    """A text and its probability, or, of a search, its score."""

    text: str
    probability: float


@dataclass(frozen=True)
class Result:
    """What all results have.

    Args:
        guesses: the best first. frames: what the model saw, uint8 RGB (H, W, 3) each, before scaling and cropping.
    """

    video: str
    guesses: list[Guess]
    frames: list[np.ndarray] = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """The best."""
        return self.guesses[0].text if self.guesses else ""

    @property
    def probability(self) -> float:
        """Of the best."""
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
    """A caption; `guesses` has several with `keep` above 1. A probability is the mean of its words'."""


@dataclass(frozen=True)
class Answer(Result):
    """Answers to a question."""

    question: str

    def _title(self) -> str:
        return f"{self.video}: {self.question}"


@dataclass(frozen=True)
class Choice(Answer):
    """The options of a question; `number` is that of the best, counted from 0."""

    number: int


@dataclass(frozen=True)
class Match(Result):
    """Texts by how well they match a video: each on its own, so that probabilities need not add up to 1."""


@dataclass(frozen=True)
class Hit:
    """A video that a search found.

    Args:
        number: its place in the gallery. score: by which the hits are ranked.
        probability: that it matches the text; None of a task-specific head, whose scores only rank.
    """

    number: int
    video: str
    score: float
    probability: float | None = None


@dataclass(frozen=True)
class Found:
    """The videos of a gallery that match a text best, the best first."""

    text: str
    hits: list[Hit]

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"  {hit.score:8.3f}  {hit.video}" for hit in self.hits)])


def _strip(frames: Sequence[np.ndarray]) -> str:
    """The frames side by side, as images in the page."""
    return "".join(f'<img src="{picture_address(frame, 4 * _HEIGHT, _HEIGHT)}">' for frame in frames)
