"""Actions of the page's buttons, independent of the browser: text in, HTML out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lavender.app import drawing
from lavender.app.clips import Clip, ClipCache, Uploads
from lavender.app.decoding import Decoder
from lavender.app.drawing import Tile
from lavender.data.frames import evaluation_indices
from lavender.inference.index import GalleryIndex
from lavender.inference.predictor import Predictor
from lavender.inference.results import Hit
from lavender.runtime.errors import DataError

MOST_LETTERS = 500  # maximum characters of a text
MOST_OPTIONS = 20  # maximum options of a question
MOST_TEXTS = 50  # maximum texts to compare
TOP = 5


class Desk:
    """One model in memory, with the actions of the page.

    Args:
        examples: example clips. indexes: name → index to search.
    """

    def __init__(
        self,
        predictor: Predictor,
        decoder: Decoder,
        uploads: Uploads,
        examples: Sequence[Path] = (),
        indexes: Mapping[str, GalleryIndex] | None = None,
    ):
        self.predictor, self.decoder, self.uploads = predictor, decoder, uploads
        self.examples, self.indexes = list(examples), dict(indexes or {})
        self.kept = ClipCache()
        for index in self.indexes.values():
            index.check_model(predictor)

    # --- clips --------------------------------------------------------------------------------------------------------

    def take_upload(self, payload: Any) -> tuple[str, str]:
        """Decodes an upload and always removes it; returns the key of its frames, and the frames as HTML.

        Raises:
            DataError: it is not an upload, or cannot be decoded within the limits.
        """
        try:
            path, name = self.uploads.find(payload)
            return self._take(path, name)
        finally:
            self.uploads.remove(payload)

    def take_example(self, number: Any) -> tuple[str, str]:
        """Like `take_upload`, for an example by its number from 0; its file is kept."""
        if not isinstance(number, int) or not 0 <= number < len(self.examples):
            raise DataError("there is no such example")
        return self._take(self.examples[number], self.examples[number].name)

    def _take(self, path: Path, name: str) -> tuple[str, str]:
        config = self.predictor.config
        count = max(config.stored_frames, config.size_frame)  # as many as a predictor uses of a file
        frames = self.decoder.frames(path, count, name)
        seen = [frames[number] for number in evaluation_indices(count, config.size_frame)]
        return self.kept.add(Clip(name, frames)), drawing.frames(name, seen)

    def show_examples(self) -> str:
        """Shows the examples with one frame each."""
        frames = self._one_frame_each(self.examples)
        return drawing.buttons(Tile(frame, path.stem) for frame, path in zip(frames, self.examples, strict=True))

    def _one_frame_each(self, paths: Sequence[Path]) -> list[np.ndarray | None]:
        """One frame of each clip; None if it cannot be read."""
        return [None if isinstance(one, DataError) else one[0] for one in self.decoder.each(paths, 1)]

    # --- questions ----------------------------------------------------------------------------------------------------

    def ask(self, key: str | None, question: str) -> str:
        """Answers a question: the most probable answers."""
        frames = self._frames(key)
        return drawing.bars(self.predictor.answer(frames, _text(question, "question"), k=TOP).guesses)

    def caption(self, key: str | None) -> str:
        """Captions the clip."""
        result = self.predictor.caption(self._frames(key))
        return drawing.sentence(result.text, result.probability)

    def choose(self, key: str | None, question: str, options: str) -> str:
        """Options of a question, one per line, with their probabilities. The question may be empty."""
        frames, lines = self._frames(key), _lines(options, "options", MOST_OPTIONS)
        asked = _text(question, "question") if question.strip() else ""
        return drawing.bars(self.predictor.choose(frames, asked, lines).guesses)

    def compare(self, key: str | None, texts: str) -> str:
        """Texts, one per line, sorted by how well they match."""
        frames, lines = self._frames(key), _lines(texts, "texts", MOST_TEXTS)
        return drawing.bars(self.predictor.match(frames, lines).guesses)

    def search(self, name: str, text: str) -> str:
        """Finds the clips of an index that match a text best."""
        if name not in self.indexes:
            raise DataError("there is no such index")
        (found,) = self.indexes[name].search(self.predictor, [_text(text, "text")], TOP)
        paths = [Path(hit.video) for hit in found.hits]
        hits = enumerate(zip(self._one_frame_each(paths), paths, found.hits, strict=True), 1)
        return drawing.tiles(Tile(frame, f"{n}. {path.name}", _fit(hit)) for n, (frame, path, hit) in hits)

    def _frames(self, key: str | None) -> np.ndarray:
        return self.kept.get(key).frames


def _fit(hit: Hit) -> str:
    return f"score {hit.score:.2f}" if hit.probability is None else f"{hit.probability:.1%}"


def _text(text: str, what: str) -> str:
    text = str(text or "").strip()
    if not text:
        raise DataError(f"the {what} is empty")
    if len(text) > MOST_LETTERS:
        raise DataError(f"the {what} has {len(text):,} characters; at most {MOST_LETTERS} are allowed")
    return text


def _lines(text: str, what: str, most: int) -> list[str]:
    """Non-empty lines of a text."""
    lines = [line.strip() for line in str(text or "").splitlines() if line.strip()]
    if not lines:
        raise DataError(f"give {what}, one a line")
    if len(lines) > most:
        raise DataError(f"{len(lines):,} {what} are given; at most {most} are allowed")
    return [_text(line, what) for line in lines]
