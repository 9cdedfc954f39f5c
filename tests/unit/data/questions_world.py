"""Questions over the kit's videos, for the tests of their data sets."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lavender.config.schema import Config
from lavender.data.items import Item, ItemFile, open_frames
from lavender.data.qaoe import (
    ClosedVocabularyDataset,
    FillInTheBlankDataset,
    OpenEndedDataset,
    QuestionDataset,
)
from lavender.data.samples import SampleKey
from lavender.text.tokens import TextTokenizer

ANS2LABEL = {"red": 0, "green": 1, "blue": 2, "yellow": 3}
MLM = pytest.mark.parametrize("kind", [OpenEndedDataset, FillInTheBlankDataset])
EVERY = pytest.mark.parametrize("kind", [OpenEndedDataset, FillInTheBlankDataset, ClosedVocabularyDataset])


def maker(config: Config, kit: Path, tokenizer: TextTokenizer, folder: Path) -> Callable[..., QuestionDataset]:
    """A test split over the kit's six videos; `top` stands beside the splits in the file."""

    def build(kind: type[QuestionDataset], *items: Item, top: dict | None = None, **changes: Any) -> QuestionDataset:
        (folder / "txt_qa.json").write_text(json.dumps({"test": items, **(top or {})}))
        folders = {"data_dir": str(kit / "data"), "txt_dir": str(folder)}
        options = {"type": "qaoe", "dataset": "toy", "task": "qa", "size_vocab": 4, **folders, **changes}
        changed = replace(config, **options)
        return kind(changed, tokenizer, open_frames(changed), ItemFile(changed), "test")

    return build


def item(**changes: Any) -> Item:
    """A question about video 0, with a blank as fill-in-the-blank needs it; None takes a key away."""
    whole = {"video": "vid0", "question": "a [MASK] circle", "answer": 0, "answer_text": "red", **changes}
    return {key: value for key, value in whole.items() if value is not None}


def sample(dataset: QuestionDataset, index: int = 0) -> dict[str, Any]:
    found = dataset[SampleKey(0, index)]
    assert isinstance(found, dict), found
    return found


def labelled(sample: dict[str, Any]) -> dict[int, int]:
    """Position → label, where there is one."""
    return {int(position): int(sample["labels"][position]) for position in np.flatnonzero(sample["labels"] != -1)}


def words(tokenizer: TextTokenizer, ids: np.ndarray) -> str:
    return " ".join(tokenizer.word(int(token)) for token in ids).replace("[PAD]", "_")
