"""Runs with an image model of timm as the backbone: on one process and on two, killed and gone on with, exported."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavender.models.checkpoint_folder import read_state
from lavender.models.pretrained import export, load_pretrained
from tests.conftest import MICRO, Run
from tests.integration.test_resume import at_step, check_same

TINY = ("--vis_backbone", "timm:vit_tiny_patch16_224", "--vis_backbone_init", "random")
RELEASED = ("--config", "_args/args_msvd-qa.json", "--dataset", "toy", "--task", "toy-qa")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("launcher", "deepspeed"),
    [(None, "false"), ("launch", "false"), ("launch", "true")],
    ids=["one", "DDP", "DeepSpeed"],
)
def test_a_killed_run_goes_on(
    start: Callable[..., Run], needs, kept_questions: Path, tmp_path: Path, launcher: str | None, deepspeed: str
):
    for package in ("fairscale", "deepspeed"):
        needs(package)

    def train(folder: str, *options: object, **more) -> Run:
        words = (*TINY, "--size_batch", 1, "--size_epoch", 2, "--deepspeed", deepspeed, "--use_checkpoint", "true")
        ground = {"released": RELEASED, "small": MICRO, "data": kept_questions, "output": tmp_path / folder}
        words += ("-v", "--logging_steps", 1, "--save_steps", 1, *options)
        return start("main_qaoe_mlm.py", *words, launcher=launcher, **ground, **more)

    whole = train("whole").check_passed()
    killed = train("killed", watch=at_step(tmp_path / "killed", 3, signal.SIGKILL))
    assert killed.code not in (0, 2), killed.stderr[-2000:]
    resumed = train("killed", "--resume", "auto").check_passed()
    assert "resumed from" in resumed.log
    check_same(whole, resumed)
    if launcher is None:
        checkpoint = resumed.folder / sorted(path.name for path in resumed.folder.glob("ckpt_*.pt"))[-1]
        export(checkpoint, tmp_path / "exported")
        state, loaded = read_state(checkpoint), load_pretrained(tmp_path / "exported").state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
