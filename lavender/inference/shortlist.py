"""Cheap preselection of clips by their generated captions, before pairs are matched."""

import re
from collections.abc import Sequence

import numpy as np

from lavender.runtime.errors import ConfigError

_WORD = re.compile(r"\w+")


class CaptionRanking:
    """BM25 ranking of captions, with the library `bm25s`.

    Args:
        captions: caption of each clip, which may be empty.

    Raises:
        ConfigError: `bm25s` is not installed.
    """

    def __init__(self, captions: Sequence[str]):
        try:
            import bm25s  # imports SciPy, which only a search with a shortlist needs
        except ImportError:
            raise ConfigError("--shortlist needs the package bm25s: pip install bm25s") from None
        self._count = len(captions)
        documents = [_words(caption) for caption in captions]
        self._known = set().union(*documents)
        self._ranking = bm25s.BM25()
        if self._known:  # bm25s cannot index captions without words
            self._ranking.index(documents, show_progress=False)

    def best(self, text: str, count: int) -> list[int]:
        """Numbers of the `count` clips whose captions fit a text best, best first.

        Ties, and captions without a common word, are ordered by number.
        """
        words = [word for word in _words(text) if word in self._known]
        scores = self._ranking.get_scores(words) if words else np.zeros(self._count)
        return np.argsort(-scores, kind="stable")[:count].tolist()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
