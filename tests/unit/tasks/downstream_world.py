"""The downstream tasks over the kit's data, for the tests of what they share."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.tasks.downstream import DownstreamTask
from lavender.tasks.qamc import QAMCTask, QAMCTaskSpecificTask
from lavender.tasks.qaoe import FillInTheBlankTask, QAOETask, QAOETaskSpecificTask
from lavender.tasks.retmc import RetMCTask, RetMCTaskSpecificTask

TEXTS = {
    **{QAMCTask: "toy-action", RetMCTask: "toy-mc", QAOETask: "toy-qa", FillInTheBlankTask: "toy-fib"},
    **{QAMCTaskSpecificTask: "toy-action", RetMCTaskSpecificTask: "toy-mc", QAOETaskSpecificTask: "toy-qa"},
}
MLM, SPECIFIC = list(TEXTS)[:4], list(TEXTS)[4:]
EVERY = pytest.mark.parametrize("kind", TEXTS)


def texts_of(kit: Path) -> Callable[[type[DownstreamTask]], dict[str, list]]:
    """The kit's texts of a task; its splits have videos that are there and answers that are words."""

    def read(kind: type[DownstreamTask]) -> dict[str, list]:
        content = json.loads((kit / "data" / f"txt_{TEXTS[kind]}.json").read_text())
        return {**content, **{split: content[split][:4] for split in ("train", "val", "test")}}

    return read


def maker(config: Config, kit: Path, folder: Path, texts: Callable) -> Callable[..., DownstreamTask]:
    """A task over its kit texts, with splits changed (None takes one away)."""

    def build(kind: type[DownstreamTask], splits: dict[str, Any] | None = None, **changes: Any) -> DownstreamTask:
        content = {name: split for name, split in {**texts(kind), **(splits or {})}.items() if split is not None}
        (folder / "txt_mine.json").write_text(json.dumps(content))
        folders = {"data_dir": str(kit / "data"), "txt_dir": str(folder)}
        options = {"type": kind.config_type, "dataset": "toy", "task": "mine", "size_txt": 25, "size_vocab": 4}
        return kind(replace(config, **{**options, **folders, **changes}))

    return build


def batch_of(task: DownstreamTask, *numbers: int, split: str = "test") -> dict[str, Any]:
    dataset = task.datasets[split]
    batch = dataset.collate([dataset[SampleKey(0, number)] for number in numbers])
    assert isinstance(batch, dict), batch
    return batch


def unlabelled(items: list[dict]) -> list[dict]:
    """The same items without their videos; the answers of the open-ended ones are no words."""
    return [{**item, "video": f"not {item['video']}", "answer_text": "zebracorn"} for item in items]
