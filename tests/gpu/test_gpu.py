"""What only a GPU can show: the numbers of a CPU again, low precision that stays finite, scripts that find the device.

    python -m pytest tests/gpu

Such a machine may have neither DeepSpeed nor FairScale nor PyAV; nothing here needs them.
"""

import copy
import json
import math
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BertConfig

from lavender.config.schema import Config
from lavender.engine.checkpoint import save_weights
from lavender.engine.engines import TorchEngine
from lavender.engine.optim import build_optimizer
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.device import choose_device, choose_precision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
TOLERANCE = 1e-4  # of the largest value: CPU and GPU add in another order


@pytest.fixture
def exact():
    """fp32 products in fp32, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def model() -> Lavender:
    """The micro model on the CPU, random weights as wide as its width asks for, nothing dropped out."""
    torch.manual_seed(0)
    bert = BertConfig.from_pretrained(KIT / "bert_micro", initializer_range=0.07)
    return Lavender(VideoSwin("micro"), bert, bert, Heads()).eval()


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three clips and texts of different lengths; some words are asked for."""
    stream = np.random.default_rng(0)
    ids = torch.from_numpy(stream.integers(5, 350, (3, 12)))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    labels = torch.where(torch.from_numpy(stream.random((3, 12))) < 0.4, ids, -1)
    img = torch.from_numpy(stream.integers(0, 256, (3, 4, 3, 64, 64), dtype=np.uint8))
    return {"img": img, "present": torch.ones(3, dtype=torch.bool), "ids": ids, "mask": mask, "labels": labels}


def on_gpu(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cuda() for name, tensor in batch.items()}


def logits(model: Lavender, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    video = model.encode_video(batch["img"], batch["present"])
    text = model.encode_text(batch["ids"], batch["mask"])
    return model.fc_mtm(model.fuse(video, text)[:, -12:])


def loss(model: Lavender, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    words = logits(model, batch).float().flatten(0, 1)
    return {"loss": F.cross_entropy(words, batch["labels"].flatten(), ignore_index=-1)}


def largest_difference(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """max|Δ| / max|reference|"""
    return float((ours.cpu().float() - reference).abs().max() / reference.abs().max())


def test_the_gpu_is_found():
    device = choose_device()
    assert (device.type, device.index) == ("cuda", 0)
    assert choose_precision("auto", device) in ("bf16", "fp16")


def test_the_same_numbers_as_on_a_cpu(exact, model, batch):
    batch["present"][2] = False
    with torch.inference_mode():
        features = model.encode_video(batch["img"], batch["present"]).states
        expected = logits(model, batch)
        there, batch = model.cuda(), on_gpu(batch)
        ours = there.encode_video(batch["img"], batch["present"]).states
        assert largest_difference(ours, features) < TOLERANCE
        assert largest_difference(logits(there, batch), expected) < TOLERANCE


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_low_precision_stays_finite_and_close(model, batch, kind: torch.dtype):
    with torch.inference_mode():
        expected = logits(model, batch)
        with torch.autocast("cuda", kind):
            words = logits(model.cuda(), on_gpu(batch))
    assert words.isfinite().all()
    assert largest_difference(words, expected) < 0.1


def engine_of(model: Lavender, precision: str, device: str) -> TorchEngine:
    config = Config(precision=precision, max_grad_norm=1.0)
    model.to(device)
    return TorchEngine(model, build_optimizer(model, 1e-3, 1.0, 1e-3), config, torch.device(device, 0))


def test_the_same_steps_as_on_a_cpu(exact, model, batch):
    """Losses and gradient norms of six fp32 steps."""
    here, there = engine_of(copy.deepcopy(model), "fp32", "cpu"), engine_of(model, "fp32", "cuda")
    for _ in range(6):
        ours, theirs = there.train_batch(loss, on_gpu(batch)), here.train_batch(loss, batch)
        assert float(ours["loss"].detach()) == pytest.approx(float(theirs["loss"].detach()), rel=2e-3)
        assert there.grad_norm == pytest.approx(here.grad_norm, rel=2e-2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_learns_in_low_precision(model, batch, precision: str, tmp_path: Path):
    engine = engine_of(model, precision, "cuda")
    assert engine.name.endswith(precision)
    losses = [float(engine.train_batch(loss, on_gpu(batch))["loss"].detach()) for _ in range(30)]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0] - 0.5
    save_weights(engine.weights(), tmp_path / "ckpt.pt")
    saved = torch.load(tmp_path / "ckpt.pt", weights_only=True)  # as on a machine without a GPU: tensors are on the CPU
    assert {tensor.device.type for tensor in saved.values()} == {"cpu"}
    assert all(tensor.dtype == torch.float32 for name, tensor in saved.items() if tensor.is_floating_point())


def test_a_step_waits_for_the_device_once(model, batch):
    """While a step is queued the host reads nothing; then it reads loss and gradient norm together."""
    engine, batch = engine_of(model, "bf16", "cuda"), on_gpu(batch)
    for _ in range(3):  # what is made once a shape
        engine.train_batch(loss, batch)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.train_batch(loss, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    told = [str(warning.message) for warning in seen if "synchroniz" in str(warning.message)]
    assert len(told) <= 1, told


# --- scripts ----------------------------------------------------------------------------------------------------------


def pretrain(output: Path, *options: object, launcher: tuple[str, ...] = ()) -> tuple[Path, str]:
    """The output folder of `main_pretrain_mlm.py` on the toy data, and its log."""
    command: list[object] = [sys.executable, *launcher, "main_pretrain_mlm.py", "--config", "_args/args_pretrain.json"]
    command += ["--dataset", "toy", "--data_dir", KIT / "data", "--path_output", output, "--use_checkpoint", "false"]
    command += ["--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--size_img", 64, "--size_batch", 3]
    command += ["--txt_backbone", KIT / "bert_micro", "--fusion_encoder", KIT / "bert_micro", "--size_epoch", 1]
    command += ["--size_part", 2, "--n_workers", 1, "--p_mask", 0.5, "--lr", 1e-3, *options]
    environment = {**os.environ, "NVIDIA_TF32_OVERRIDE": "0", "HF_HUB_OFFLINE": "1"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-5000:]
    folder = max(output.iterdir())
    return folder, (folder / "stdout.txt").read_text()


def check_run(folder: Path) -> None:
    epochs = json.loads((folder / "results.json").read_text())["epochs"]
    assert len(epochs) == 2
    assert all(math.isfinite(entry[split]["loss"]) for entry in epochs for split in ("train", "val"))
    state = torch.load(folder / "ckpt_violet_pretrain_toy_1_1.pt", weights_only=True)
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_plain_python(tmp_path: Path):
    """The device and its precision are found; fp32 evaluation of what was trained gives the CPU's figures."""
    folder, log = pretrain(tmp_path / "run")
    precision = choose_precision("auto", torch.device("cuda", 0))
    assert f"engine: Lavender, {precision}, 1 process(es), cuda:0" in log
    assert "GiB on the GPU" in log
    check_run(folder)
    words = ("--path_ckpt", folder / "ckpt_violet_pretrain_toy_1_1.pt", "--size_epoch", 0, "--precision", "fp32")
    figures = []
    for device in ("cuda", "cpu"):
        scored, log = pretrain(tmp_path / device, *words, "--device", device)
        assert f"fp32, 1 process(es), {'cuda:0' if device == 'cuda' else 'cpu'}" in log
        figures.append(json.loads((scored / "results.json").read_text())["zero_shot"]["val"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


@pytest.mark.parametrize("processes", [1, 2])
def test_torchrun(tmp_path: Path, processes: int):
    """DDP over nccl, a GPU a process."""
    if torch.cuda.device_count() < processes:
        pytest.skip(f"{torch.cuda.device_count()} GPU, {processes} processes")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    launcher = (
        *("-m", "torch.distributed.run", f"--nproc_per_node={processes}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}"),
    )
    folder, log = pretrain(tmp_path / "run", "--deepspeed", "false", launcher=launcher)
    assert f"engine: DistributedDataParallel, {choose_precision('auto', torch.device('cuda', 0))}" in log
    assert f"{processes} process(es), cuda:0" in log
    check_run(folder)
