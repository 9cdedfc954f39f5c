import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lavender.config.load import from_dict
from lavender.config.schema import Config
from lavender.models.lavender import Lavender
from tests.unit.tasks.several_tasks import ENTRIES


@pytest.fixture
def options(config: Config, kit: Path) -> Callable[..., Config]:
    """The configuration of some of the tasks (all, where none is named), with the run's options changed."""
    names = ("data_dir", "n_workers", "size_img", "size_frame", "txt_backbone", "fusion_encoder", "vis_backbone_size")
    run = {name: getattr(config, name) for name in (*names, "size_epoch", "size_batch", "precision", "device")}

    def build(*tasks: str | dict, **changes: Any) -> Config:
        written = [{"task": task, **ENTRIES[task]} if isinstance(task, str) else task for task in tasks or ENTRIES]
        run_options = {**run, "type": "multi-task", "task": "together", "size_txt": 25, "on_bad_sample": "zero"}
        return from_dict({**run_options, "datasets": written, **changes}, "test")

    return build


@pytest.fixture
def texts(kit: Path, tmp_path: Path) -> Callable[..., Path]:
    """`texts(task, train=[…], …)`: the folder with the kit's text of a task, its splits cut to these videos."""

    def write(task: str, **kept: list[str]) -> Path:
        content = json.loads((kit / "data" / f"txt_{task}.json").read_text())
        for split, videos in kept.items():
            content[split] = [item for item in content[split] if item["video"] in videos]
        (tmp_path / f"txt_{task}.json").write_text(json.dumps(content))
        return tmp_path

    return write


@pytest.fixture
def model_of(make_model) -> Callable[..., Lavender]:
    """The model of a task, as a run prepares it; `state` are weights that it takes over."""

    def build(task: Any, state: dict[str, Tensor] | None = None) -> Lavender:
        model = make_model(task.heads)
        model.load_state_dict(state or {}, strict=False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(task.unused_parameters()))
        return model

    return build
