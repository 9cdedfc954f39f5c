"""Retrieval evaluation on a GPU: the scores of a CPU, in low precision too, with features on the device or streamed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from lavender.config.schema import Config
from lavender.engine import gallery
from lavender.engine.gallery import encode_videos, score_pairs
from lavender.engine.gallery_output import ScoreFile
from lavender.models.all_pairs import encode_texts
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.device import PRECISIONS
from lavender.tasks.retrieval import RetrievalTask

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
KIT = Path(__file__).parents[2] / "tests" / "conformance" / "kit"
BERT = str(KIT / "bert_micro")


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., np.ndarray]:
    """`score(device, precision)`: the 6 × 6 scores of the toy clips under the same random weights."""

    def run(device: str, precision: str) -> np.ndarray:
        torch.manual_seed(0)
        bert = BertConfig.from_pretrained(BERT, initializer_range=0.07)
        place = torch.device(device)
        model = Lavender(VideoSwin("micro"), bert, bert, Heads()).eval().to(place)
        names = {"data_dir": str(KIT / "data"), "dataset": "toy", "task": "toy-retrieval"}
        task = RetrievalTask(
            Config(**names, n_workers=0, txt_backbone=BERT, fusion_encoder=BERT, path_output=str(tmp_path))
        )
        with torch.inference_mode():
            share = encode_videos(model, task.gallery, place, precision)
            groups = encode_texts(
                model, (task.encode_caption(text) for text, _ in task.gallery.captions), place, precision
            )
            model.trsfr.to(PRECISIONS[precision])
            file = ScoreFile(task.config, "x", (6, 6), share.columns)
            score_pairs(task, model, share, groups, file, place, size_pairs=16)
        return file.collect()

    return run


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-3), ("fp16", 2e-2), ("bf16", 1e-1)])
def test_the_scores_of_a_cpu(score, precision: str, tolerance: float):
    on_cpu = score("cpu", "fp32")
    assert np.abs(score("cuda", precision) - on_cpu).max() <= tolerance * np.abs(on_cpu).max()


def test_features_that_do_not_fit_are_streamed_from_host_memory(score, monkeypatch):
    on_device = score("cuda", "fp32")
    monkeypatch.setattr(gallery, "SHARE_OF_MEMORY", 0.0)
    assert np.array_equal(score("cuda", "fp32"), on_device)
