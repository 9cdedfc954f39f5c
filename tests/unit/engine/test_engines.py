import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from lavender.config.schema import Config
from lavender.engine.engines import (
    DeepSpeedEngine,
    Engine,
    StepMetrics,
    TorchEngine,
    build_engine,
    deepspeed_settings,
    import_deepspeed,
)
from lavender.engine.optim import build_optimizer
from lavender.models.lavender import Lavender
from lavender.runtime.errors import ConfigError, TrainingError
from lavender.tasks.base import labelled_loss, select_labelled
from lavender.text.masking import label_positions
from tests.unit.host_reads import host_reads

CPU = torch.device("cpu")


@pytest.fixture
def batch() -> dict[str, Tensor]:
    """Four samples with two labels each, so that the mean over a half counts as much as the other half's."""
    stream = torch.Generator().manual_seed(5)
    ids = torch.randint(1, 350, (4, 6), generator=stream)
    labels = torch.full((4, 6), -1)
    labels[:, 1:3] = torch.randint(0, 350, (4, 2), generator=stream)
    img = torch.randint(0, 256, (4, 2, 3, 32, 32), dtype=torch.uint8, generator=stream)
    return {"img": img, "ids": ids, "mask": torch.ones_like(ids), "labels": labels}


def word_loss(model: Lavender, batch: dict) -> dict[str, Tensor]:
    video, text = model.encode_video(batch["img"]), model.encode_text(batch["ids"], batch["mask"])
    states, labels = select_labelled(model.fuse(video, text)[:, -text.states.shape[1] :], batch["labels"])
    loss = labelled_loss(model.fc_mtm(states), labels)
    return {"loss": loss, "mtm": loss}


def halves(batch: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    return [{key: value[part] for key, value in batch.items()} for part in (slice(0, 2), slice(2, 4))]


@pytest.fixture
def make_engine(config: Config, make_model) -> Callable[..., Engine]:
    """An engine with plain gradient descent, the change of a weight is its gradient; or with AdamW."""

    def make(lr: float = 1.0, adamw: bool = False, **options) -> Engine:
        model = make_model()
        optimizer = build_optimizer(model, lr, 1.0, 0.0) if adamw else SGD(model.parameters(), lr=lr, fused=True)
        return build_engine(model, optimizer, replace(config, **options), CPU)

    return make


def weights(engine: Engine) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in engine.model.named_parameters()}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return float(torch.stack([(one[name] - other[name]).double().square().sum() for name in one]).sum().sqrt())


# --- steps ------------------------------------------------------------------------------------------------------------


def test_a_step(make_engine, batch: dict):
    engine = make_engine(lr=0.1)
    before = weights(engine)
    losses = engine.train_batch(word_loss, batch)
    assert set(losses) == {"loss", "mtm"}
    assert distance(weights(engine), before) == pytest.approx(0.1 * engine.grad_norm, rel=1e-4)
    with torch.no_grad():
        assert float(word_loss(engine.model, batch)["loss"]) < float(losses["loss"].detach())
    assert all(parameter.grad is None for parameter in engine.model.parameters())


def test_two_half_batches_equal_a_whole_one(make_engine, batch: dict):
    whole, halved = make_engine(), make_engine(gradient_accumulation=2)
    before = weights(halved)
    loss = whole.train_batch(word_loss, batch)["loss"].detach()
    parts = []
    for number, half in enumerate(halves(batch)):
        assert halved.completes_step == (number == 1)
        parts.append(halved.train_batch(word_loss, half)["loss"].detach())
        if number == 0:
            assert distance(weights(halved), before) == 0, "no step before the last part"
    assert float(sum(parts) / 2) == pytest.approx(float(loss), rel=1e-5)
    assert halved.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
    one, other = weights(whole), weights(halved)
    assert distance(one, before) > 0.1
    for name in one:
        assert torch.allclose(one[name], other[name], atol=1e-5), name


@pytest.mark.parametrize("accumulation", [1, 3])
def test_which_batches_complete_a_step(make_engine, batch: dict, accumulation: int):
    engine = make_engine(gradient_accumulation=accumulation)
    changed = []
    for _ in range(6):
        due, before = engine.completes_step, weights(engine)
        engine.train_batch(word_loss, batch)
        changed.append(distance(weights(engine), before) > 0)
        assert changed[-1] == due
    assert changed == [(number + 1) % accumulation == 0 for number in range(6)]


@pytest.mark.parametrize("limit", [0.05, 1000.0, 0.0, -1.0])
def test_clipping(make_engine, batch: dict, limit: float):
    free, engine = make_engine(max_grad_norm=-1.0), make_engine(max_grad_norm=limit)
    before = weights(engine)
    for one in (free, engine):
        one.train_batch(word_loss, batch)
    assert free.grad_norm > 0.1
    assert engine.grad_norm == pytest.approx(free.grad_norm), "the norm before clipping"
    step = limit if limit == 0.05 else free.grad_norm
    assert distance(weights(engine), before) == pytest.approx(step, rel=1e-3)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_that_is_not_finite_changes_no_weight(make_engine, batch: dict, loss: float, accumulation: int):
    engine = make_engine(adamw=True, gradient_accumulation=accumulation)
    engine.train_batch(word_loss, batch) if accumulation == 1 else None
    before, seen = weights(engine), []

    class Stop(StepMetrics):
        def read(self, values: list[float]) -> None:
            seen.append(values)
            raise TrainingError("stop")

    def lost(model: Lavender, batch: dict) -> dict[str, Tensor]:
        losses = word_loss(model, batch)
        return {**losses, "loss": losses["loss"] * 0 + loss} if math.isnan(loss) else {"loss": losses["loss"] + loss}

    with pytest.raises(TrainingError, match="stop"):
        engine.train_batch(lost, batch, Stop())
    assert len(seen) == 1
    assert not math.isfinite(seen[0][0])
    assert distance(weights(engine), before) == 0


def test_the_host_reads_once_a_step(make_engine, batch: dict):
    engine = make_engine(adamw=True)
    batch["label_positions"] = label_positions(batch["labels"])

    def loss(model: Lavender, batch: dict) -> dict[str, Tensor]:
        video, text = model.encode_video(batch["img"]), model.encode_text(batch["ids"], batch["mask"])
        states = model.fuse(video, text)[:, -text.states.shape[1] :]
        states, labels = select_labelled(states, batch["labels"], batch["label_positions"])
        return {"loss": labelled_loss(model.fc_mtm(states), labels)}

    for _ in range(2):
        engine.train_batch(loss, batch)
    with host_reads() as seen:
        engine.train_batch(loss, batch)
    assert seen == ["tolist"]


def test_parts_without_labels_leave_the_others_their_gradient(make_engine, batch: dict):
    alone, engine = make_engine(), make_engine(gradient_accumulation=2)
    nothing = {**batch, "labels": torch.full_like(batch["labels"], -1)}
    alone.train_batch(word_loss, batch)
    engine.train_batch(word_loss, nothing)
    engine.train_batch(word_loss, batch)
    assert engine.grad_norm == pytest.approx(alone.grad_norm / 2, rel=1e-4)


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_precision(make_engine, batch: dict, precision: str, dtype: str):
    engine, reference = make_engine(precision=precision), make_engine()
    seen = []
    engine.model.trsfr.layer[0].output.dense.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    loss = engine.train_batch(word_loss, batch)["loss"].detach()
    assert seen == [getattr(torch, dtype)]
    assert all(parameter.dtype == torch.float32 for parameter in engine.model.parameters())
    assert float(loss) == pytest.approx(float(reference.train_batch(word_loss, batch)["loss"].detach()), rel=0.02)
    assert engine.grad_norm == pytest.approx(reference.grad_norm, rel=0.05), "loss scaling is undone"
    with engine.evaluating():
        word_loss(engine.model, batch)
    assert seen[-1] == getattr(torch, dtype)
    assert engine.name == f"Lavender, {precision}"


def test_fp16_passes_over_a_step_whose_gradients_overflow(make_engine, batch: dict):
    engine = make_engine(precision="fp16")

    def steep(model: Lavender, batch: dict) -> dict[str, Tensor]:
        loss = word_loss(model, batch)["loss"]
        return {"loss": loss + (loss - loss.detach()) * 1e35}  # a finite loss, an endless slope

    before, scale = weights(engine), engine.scaler.get_scale()
    engine.train_batch(steep, batch)
    assert distance(weights(engine), before) == 0
    assert engine.scaler.get_scale() == scale / 2
    engine.train_batch(word_loss, batch)
    assert 0 < distance(weights(engine), before) < float("inf")


def test_weights_are_the_state_dict(make_engine):
    engine = make_engine()
    state = engine.weights()
    assert list(state) == list(engine.model.state_dict())
    assert all(tensor.dtype != torch.bfloat16 for tensor in state.values())


# --- DeepSpeed --------------------------------------------------------------------------------------------------------


def test_without_a_launcher_deepspeed_is_left_out_and_this_is_said(make_engine, log):
    engine = make_engine(deepspeed=True)
    assert isinstance(engine, TorchEngine)
    assert "no launcher started this process: running without DeepSpeed, as released" in log.text
    assert "engine: Lavender, fp32, 1 process(es), cpu" in log.text


def test_a_missing_package_is_an_error_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch, make_engine):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(TrainingError, match=r"pip install deepspeed==[\d.]+, or train with --deepspeed false"):
        import_deepspeed()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(TrainingError, match="cannot be imported"):
        make_engine(deepspeed=True)


class SavingDeepSpeed:
    """A DeepSpeed engine that saves one tensor through its writer of files, or fails."""

    def __init__(self, writer: str, fault: Exception | None = None):
        self.weight, self.written, self.fault = torch.ones(3), dict[str, Tensor](), fault
        kind = type(writer, (), {"create": lambda _, tag: None, "save": lambda _, state, path: self.write(state, path)})
        self.checkpoint_engine = self.own = kind()

    def write(self, state: dict[str, Tensor], path: str) -> None:
        self.written[path] = state["weight"].clone()

    def save_checkpoint(self, folder: str, tag: str, save_latest: bool) -> None:
        self.checkpoint_engine.create(tag)
        if self.fault:
            raise self.fault
        self.checkpoint_engine.save({"weight": self.weight}, f"{folder}/{tag}/states.pt")


def test_states_of_deepspeed_are_copies_to_be_written_later(tmp_path: Path):
    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    engine.engine = SavingDeepSpeed("TorchCheckpointEngine")
    files = engine.save_state(tmp_path)
    engine.engine.weight += 1  # training goes on
    ((path, content),) = files.items()
    assert path == tmp_path / "deepspeed" / "states.pt"
    assert content["weight"].tolist() == [1, 1, 1]
    assert not engine.engine.written
    assert engine.engine.checkpoint_engine is engine.engine.own


def test_another_writer_of_deepspeed_writes_itself(tmp_path: Path):
    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    engine.engine = SavingDeepSpeed("NebulaCheckpointEngine")
    assert engine.save_state(tmp_path) == {}
    assert list(engine.engine.written) == [f"{tmp_path}/deepspeed/states.pt"]


def test_a_state_of_deepspeed_that_fails_leaves_its_writer_in_place(tmp_path: Path):
    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    engine.engine = SavingDeepSpeed("TorchCheckpointEngine", OSError(28, "No space left on device"))
    with pytest.raises(TrainingError, match=r"No space left on device.*free space"):
        engine.save_state(tmp_path)
    assert engine.engine.checkpoint_engine is engine.engine.own


class OverflowingDeepSpeed:
    """A DeepSpeed engine whose gradients overflowed: it left the step out, and reports their norm as infinite."""

    def __init__(self, precision: str):
        self.precision = precision

    def __call__(self, loss: Callable, batch: dict) -> dict[str, Tensor]:
        return {"loss": torch.tensor(1.0)}

    def backward(self, loss: Tensor) -> None: ...

    def step(self) -> None: ...

    def get_global_grad_norm(self) -> float:
        return float("inf")

    def fp16_enabled(self) -> bool:
        return self.precision == "fp16"

    def bfloat16_enabled(self) -> bool:
        return self.precision == "bf16"


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_deepspeed_searching_its_loss_scale_does_not_end_the_run(precision: str):
    """In fp16 the first steps overflow as a rule, and DeepSpeed lowers the scale; elsewhere it is a fault."""
    engine = DeepSpeedEngine.__new__(DeepSpeedEngine)
    engine.engine, engine.accumulation, engine._batches = OverflowingDeepSpeed(precision), 1, 0
    engine.low_precision = precision != "fp32"
    engine.train_batch(word_loss, {})
    assert math.isfinite(engine.grad_norm) == (precision == "fp16")


def test_settings_from_the_options(config: Config):
    options = replace(config, deepspeed=True, size_batch=7, gradient_accumulation=3, zero_stage=2, max_grad_norm=1.5)
    settings = deepspeed_settings(options, "bf16")
    assert settings["train_micro_batch_size_per_gpu"] == 7
    assert settings["gradient_accumulation_steps"] == 3
    assert settings["gradient_clipping"] == 1.5
    assert settings["zero_optimization"] == {"stage": 2}
    assert settings["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "optimizer" not in settings
    assert Config().zero_stage == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_settings_of_precision_and_without_clipping(config: Config, precision: str):
    settings = deepspeed_settings(replace(config, max_grad_norm=-1.0), precision)
    assert settings["bf16"]["enabled"] == (precision == "bf16")
    assert settings["fp16"]["enabled"] == (precision == "fp16")
    assert settings["gradient_clipping"] == 0.0


def test_settings_from_a_file(config: Config, tmp_path: Path):
    path = tmp_path / "deepspeed.json"
    content = {
        "optimizer": {"type": "Adam"},
        "scheduler": {"type": "WarmupLR"},
        "train_micro_batch_size_per_gpu": 99,
        "gradient_clipping": 0.3,
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
        "fp16": {"enabled": True},
    }
    path.write_text(json.dumps(content))
    options = replace(config, deepspeed=True, deepspeed_config=str(path), size_batch=7, max_grad_norm=5.0)
    assert deepspeed_settings(options, "bf16") == {
        "gradient_clipping": 0.3,
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
        "fp16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "train_micro_batch_size_per_gpu": 7,
        "gradient_accumulation_steps": 1,
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"zero_optimization": {"stage": 3}}', "ZeRO stage 3 splits the weights themselves; use 0, 1 or 2"),
        ('{"fp16": ', "line 1"),
        ("[]", "one JSON object"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_used(config: Config, tmp_path: Path, content: str | None, says: str):
    path = tmp_path / "deepspeed.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"{path}.*{says}"):
        deepspeed_settings(replace(config, deepspeed=True, deepspeed_config=str(path)), "fp32")
