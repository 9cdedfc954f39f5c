"""What the unit tests share: the kit's made-up data, a configuration and a model small enough for any machine."""

import os
from pathlib import Path

import pytest

from lavender.config.schema import Config
from lavender.runtime.logging import LOGGER

KIT = Path(__file__).parents[1] / "conformance" / "kit"
LAUNCHER_VARIABLES = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    *("OMPI_COMM_WORLD_LOCAL_SIZE", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_ERROR_FILE"),
)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process, whoever started pytest; what a test adds to these variables is taken back."""
    for name in LAUNCHER_VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert not any(name in os.environ for name in LAUNCHER_VARIABLES)


@pytest.fixture
def kit() -> Path:
    """The folder of the conformance kit: `bert_micro`, `data`, `cases`."""
    return KIT


@pytest.fixture
def config() -> Config:
    """Pretraining on the kit's `toy` (3 videos in each of 2 parts, 4 in validation), at 64 pixels and 2 frames."""
    return Config(
        type="pretrain",
        data_dir=str(KIT / "data"),
        dataset=["toy"],
        size_part=2,
        n_workers=0,
        size_img=64,
        size_frame=2,
        size_txt=12,
        txt_backbone=str(KIT / "bert_micro"),
        fusion_encoder=str(KIT / "bert_micro"),
        vis_backbone_size="micro",
        vis_backbone_init="random",
        size_epoch=1,
        size_batch=3,
        lr=1e-3,
        precision="fp32",
        device="cpu",
    )


@pytest.fixture
def make_model():
    """Builds the micro model: `make_model(heads, **options of Lavender)`, the same weights at each call.

    The weights are drawn wider than BERT's 0.02, so that what a test changes can be seen at the other end.
    """
    import torch
    from transformers import BertConfig

    from lavender.models.backbones.video_swin import VideoSwin
    from lavender.models.lavender import Heads, Lavender

    def make(heads: Heads | None = None, size: str = "micro", drop_path: float = 0.2, **options) -> Lavender:
        bert = BertConfig.from_pretrained(KIT / "bert_micro", initializer_range=0.1)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            return Lavender(VideoSwin(size, drop_path), bert, bert, heads or Heads(), **options).eval()

    return make


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What the run said: `log.text`."""
    monkeypatch.setattr(LOGGER, "propagate", True)
    caplog.set_level("DEBUG", logger=LOGGER.name)
    return caplog


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty `_datasets`."""
    folder = tmp_path / "_datasets"
    folder.mkdir()
    return folder
