"""The kit of numbers measured on the released code, and the micro model with the kit's weights."""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig

from lavender.config.schema import Config
from lavender.data.samples import SampleKey
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.encoders import Encoded
from lavender.models.lavender import Heads, Lavender
from lavender.runtime.device import PRECISIONS
from lavender.tasks.downstream import DownstreamTask
from tests.conformance.boundary import DEVICE, IS_RECORDED, PRECISION, TOLERANCE, Boundary

KIT = Path(__file__).parent / "kit"


def _kit_weights():
    spec = importlib.util.spec_from_file_location("kit_weights", KIT / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Kit:
    """Cases by name, made-up images by seed, and the agreement that is asked for."""

    folder = KIT
    data = KIT / "data"
    bert = KIT / "bert_micro"
    device, precision = DEVICE, PRECISION
    is_exact = PRECISION == "fp32"  # else words, choices and quotients near a pole are not compared

    def case(self, name: str) -> dict[str, np.ndarray]:
        with np.load(KIT / "cases" / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    def json(self, name: str):
        return json.loads((KIT / "cases" / f"{name}.json").read_text())

    def images(self, seed: int, batch: int, time: int, size: int) -> torch.Tensor:
        stream = np.random.Generator(np.random.PCG64(int(seed)))
        return torch.from_numpy(stream.standard_normal((batch, time, 3, size, size)).astype(np.float32))

    def model(self, heads: Heads | None = None, **options) -> Lavender:
        """The micro model in evaluation mode, filled with the kit's weights."""
        bert = BertConfig.from_pretrained(self.bert)
        model = Lavender(VideoSwin("micro"), bert, bert, heads or Heads(), **options).eval()
        return _kit_weights().fill(model).to(DEVICE)

    @staticmethod
    def agrees(ours: torch.Tensor, reference: np.ndarray, tolerance: float = 1e-5, terms: float = 0.0) -> bool:
        """max|Δ| ≤ tolerance · max|reference|; on another device and in another precision `TOLERANCE` takes the place
        of 1e-5, and in low precision what needs more than that is not compared.

        Numbers that are sums of larger `terms`, which cancel, may have the rounding of one of those in low precision.
        """
        expected = torch.from_numpy(np.asarray(reference))
        assert ours.shape == expected.shape
        if not IS_RECORDED:
            if tolerance > 1e-5 and PRECISION != "fp32":
                return bool(ours.isfinite().all())
            tolerance *= TOLERANCE / 1e-5
        rounding = 0.0 if PRECISION == "fp32" else torch.finfo(PRECISIONS[PRECISION]).eps / 2
        return bool((ours - expected).abs().max() <= max(tolerance * float(expected.abs().max()), rounding * terms))

    @staticmethod
    def loss_agrees(ours: torch.Tensor | float, reference: np.ndarray, temp: float = 1.0) -> bool:
        """To 1e-6; scores that are divided by a temperature bring their rounding, divided by it, along."""
        tolerance = 1e-6 if IS_RECORDED else TOLERANCE
        return float(ours) == pytest.approx(float(reference), rel=tolerance / temp)

    def same(self, ours: object, expected: object) -> bool:
        """Words and choices: equal, in full precision."""
        return not self.is_exact or ours == expected


@pytest.fixture(scope="session")
def encoded() -> dict[bytes, Encoded]:
    return {}


@pytest.fixture(autouse=True)
def _encode_once(monkeypatch, encoded: dict[bytes, Encoded]):
    """What the same weights make of the same pixels is kept: half of this suite's time was spent on it."""
    encode = Lavender.encode_video

    def encode_video(model: Lavender, *inputs: torch.Tensor, **options: torch.Tensor) -> Encoded:
        if torch.is_grad_enabled() or model.training or options:
            return encode(model, *inputs, **options)
        key = hashlib.sha256(repr([tuple(tensor.shape) for tensor in inputs]).encode())
        for tensor in (*inputs, *model.enc_img.parameters()):
            key.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
        if key.digest() not in encoded:
            encoded[key.digest()] = encode(model, *inputs)
        return encoded[key.digest()]

    monkeypatch.setattr(Lavender, "encode_video", encode_video)


@pytest.fixture(autouse=True)
def _on_the_device(_encode_once, request, monkeypatch):
    """`LAVENDER_TEST_DEVICE` and `LAVENDER_TEST_PRECISION` run the suite elsewhere."""
    if IS_RECORDED:
        return
    if DEVICE.type == "cuda":
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    Boundary().put_up(monkeypatch, request.module)


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture(scope="session")
def micro(kit) -> Lavender:
    return kit.model()


@pytest.fixture
def load(kit):
    """`load(task class, task name, …)`: the task, its test split (or some items) as a batch, and the model.

    `variant` is plain, prompt or task_token.
    """

    def build(
        task_class: type[DownstreamTask],
        name: str,
        data: Path | None = None,
        items: int | Sequence[int] | None = None,
        variant: str = "plain",
        **options,
    ):
        config = Config(
            data_dir=str(data or kit.data),
            img_tsv_dir=str(kit.data),
            dataset="toy",
            task=name,
            size_frame=5,
            size_vocab=4,
            size_epoch=0,
            txt_backbone=str(kit.bert),
            fusion_encoder=str(kit.bert),
            on_bad_sample="zero",
            enable_prompt=variant == "prompt",
            enable_task_token=variant == "task_token",
            **options,
        )
        task = task_class(config)
        dataset = task.datasets["test"]
        numbers = range(items or len(dataset)) if items is None or isinstance(items, int) else items
        batch = dataset.collate([dataset[SampleKey(0, n)] for n in numbers])
        return SimpleNamespace(task=task, batch=batch, model=kit.model(task.heads))

    return build


@pytest.fixture
def truncated(kit, tmp_path: Path):
    """A folder with the kit's texts made too long: a sentence at the end of every option and question with words."""
    (sentence,) = kit.json("truncated_text").values()

    def write(name: str, keys: tuple[str, ...]) -> Path:
        texts = json.loads((kit.data / f"txt_{name}.json").read_text())
        for item in texts["test"]:
            for key in keys:
                if item[key]:
                    item[key] += f" {sentence}"
        (tmp_path / f"txt_{name}.json").write_text(json.dumps(texts))
        return tmp_path

    return write
