"""DDP and DeepSpeed behind one interface: run a loss, step the optimizer, return the weights."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lavender.config.load import read_object
from lavender.config.schema import Config
from lavender.engine.checkpoint import copy_to_host, explain_write_errors, load_tensors
from lavender.engine.optim import PlainAdamW
from lavender.models.checkpoint_file import UNREADABLE, reason
from lavender.models.lavender import Lavender
from lavender.runtime import distributed
from lavender.runtime.device import autocast, choose_precision
from lavender.runtime.errors import ConfigError, TrainingError
from lavender.runtime.logging import LOGGER
from lavender.runtime.pickles import check_torch_file

ZERO = "DeepSpeedEngine"  # kind of the engine whose states are sharded over the processes
STATE, DEEPSPEED = "state.pt", "deepspeed"  # names in the folder of a saved state
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
LossFunction = Callable[[Lavender, dict[str, Any]], dict[str, Tensor]]


def no_mark(phase: str) -> None:
    """Does nothing; the default of `Engine.mark` when no step is profiled."""


class StepMetrics:
    """Metrics of a training step, the first of which is `loss`. Subclasses average and check them; this class does not.

    They stay on the device, so that the host can queue the whole step before it reads them, once.
    """

    def of(self, losses: dict[str, Tensor]) -> Tensor:
        """Returns the metrics of a batch, (n,), equal on all processes."""
        return torch.stack([value.detach().float() for value in losses.values()])

    def read(self, values: list[float]) -> None:
        """Receives the metrics; raises if the run cannot continue, before the step has changed any weight."""


class Engine(ABC):
    """A model being trained by one or several processes.

    `model` is the bare model (for evaluation, and to switch training mode on and off); `optimizer` holds the groups
    whose learning rates the schedule sets; `grad_norm` is the gradient norm of the last step, before clipping.
    """

    kind: str  # prefix of the names in saved states
    name: str  # kind and precision, for the log
    model: Lavender
    optimizer: Optimizer
    grad_norm: float = 0.0
    mark: Callable[[str], None] = staticmethod(no_mark)  # called at the start of each phase of a step; see `profile.py`

    def __init__(self, config: Config):
        self.accumulation = config.gradient_accumulation
        self._batches = 0

    @property
    def completes_step(self) -> bool:
        """Whether the next batch ends with an optimizer step."""
        return (self._batches + 1) % self.accumulation == 0

    def train_batch(
        self,
        loss: LossFunction,
        batch: dict[str, Any],
        metrics: StepMetrics | None = None,
    ) -> dict[str, Tensor]:
        """Runs forward, backward and, if due, the optimizer step; reads `metrics`, which may raise.

        A step with a loss or gradient that is not finite changes no weight.
        """
        losses = self._train(loss, batch, metrics or StepMetrics())
        self.mark("other")
        self._batches += 1
        return losses

    @abstractmethod
    def _train(self, loss: LossFunction, batch: dict[str, Any], metrics: StepMetrics) -> dict[str, Tensor]: ...

    @abstractmethod
    def evaluating(self) -> AbstractContextManager:
        """Context with the precision of evaluation."""

    @abstractmethod
    def save_state(self, folder: Path) -> dict[Path, Any]:
        """Copies the training state to host memory; every process must call it.

        Returns:
            the files of this process below `folder` with their contents, which training no longer changes; they are
            to be written by `save_tensors`.
        """

    @abstractmethod
    def load_state(self, folder: Path) -> None:
        """Restores a state written by `save_state`; the engine must be of the same kind."""

    def resume_batches(self, batches: int) -> None:
        """Sets the number of batches so far, which decides when the next accumulated step is complete."""
        self._batches = batches

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The whole `state_dict()` in full precision; every process must call it."""


class TorchEngine(Engine):
    """Plain PyTorch: DDP over several processes, autocast unless the precision is fp32."""

    def __init__(self, model: Lavender, optimizer: Optimizer, config: Config, device: torch.device):
        super().__init__(config)
        self.model, self.optimizer, self.device = model, optimizer, device
        self.max_grad_norm = config.max_grad_norm
        self.precision = choose_precision(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.wrapped: torch.nn.Module = model
        if distributed.is_launched():
            self.wrapped = DistributedDataParallel(
                model, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
            )
        self.kind = type(self.wrapped).__name__
        self.name = f"{self.kind}, {self.precision}"

    def evaluating(self) -> AbstractContextManager:
        return autocast(self.precision, self.device)

    def _train(self, loss: LossFunction, batch: dict[str, Any], metrics: StepMetrics) -> dict[str, Tensor]:
        held_back = isinstance(self.wrapped, DistributedDataParallel) and not self.completes_step
        with self.wrapped.no_sync() if held_back else nullcontext():  # type: ignore[operator]
            with self.evaluating():
                losses = self.wrapped(loss, batch)
            self.mark("backward")
            self.scaler.scale(losses["loss"] / self.accumulation).backward()
        stacked = metrics.of(losses)
        if not self.completes_step:
            metrics.read(stacked.tolist())
            return losses
        *values, self.grad_norm = torch.cat([stacked, self._step(stacked[0])[None]]).tolist()
        if self.scaler.is_enabled() and not math.isfinite(self.grad_norm):
            self.grad_norm = 0.0  # fp16 overflow: the scaler skipped this step and lowered its scale
        metrics.read(values)
        return losses

    def _step(self, loss: Tensor) -> Tensor:
        """Runs the optimizer step unless `loss` or the gradient is not finite; returns the gradient norm.

        The device decides: the fused optimizer skips the step if `found_inf` is 1, as with a GradScaler.
        """
        self.mark("optimizer")
        self.scaler.unscale_(self.optimizer)
        limit = self.max_grad_norm if self.max_grad_norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).float()
        if not self.scaler.is_enabled():
            self.optimizer.found_inf = (~torch.isfinite(loss + norm)).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def save_state(self, folder: Path) -> dict[Path, Any]:
        if not distributed.is_main():
            return {}
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {folder / STATE: copy_to_host({**state, "scaler": self.scaler.state_dict()})}

    def load_state(self, folder: Path) -> None:
        state = load_tensors(folder / STATE)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


class DeepSpeedEngine(Engine):
    """DeepSpeed with ZeRO: optimizer states are sharded over the processes."""

    def __init__(self, model: Lavender, optimizer: Optimizer, config: Config, device: torch.device):
        super().__init__(config)
        deepspeed = import_deepspeed()
        settings = deepspeed_settings(config, choose_precision(config.precision, device))
        refuse_unsupported(settings, device)
        trained = {name for name, value in model.named_parameters(remove_duplicate=False) if value.requires_grad}
        self._untrained = {  # DeepSpeed rounds these too, and keeps no full-precision copy of them
            name: value.clone() for name, value in model.state_dict().items() if name not in trained
        }
        if isinstance(optimizer, PlainAdamW):
            optimizer = optimizer.marked()
        self.engine, self.optimizer, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
        self.model = model
        self.low_precision = self.engine.bfloat16_enabled() or self.engine.fp16_enabled()
        precision = {True: "bf16" if self.engine.bfloat16_enabled() else "fp16", False: "fp32"}[self.low_precision]
        self.kind = ZERO
        self.name = f"{self.kind} (ZeRO {self.engine.zero_optimization_stage()}), {precision}"

    def evaluating(self) -> AbstractContextManager:
        return nullcontext()  # the weights themselves are in the run's precision

    def _train(self, loss: LossFunction, batch: dict[str, Any], metrics: StepMetrics) -> dict[str, Tensor]:
        losses = self.engine(loss, batch)
        metrics.read(metrics.of(losses).tolist())  # before the step: DeepSpeed steps even if the loss is NaN
        self.mark("backward")
        self.engine.backward(losses["loss"])  # divides by the accumulation itself
        ends_step = self.completes_step
        self.mark("optimizer")
        self.engine.step()
        if ends_step:
            self.grad_norm = float(self.engine.get_global_grad_norm() or 0.0)
            if self.engine.fp16_enabled() and not math.isfinite(self.grad_norm):
                self.grad_norm = 0.0  # overflow: DeepSpeed skipped this step and lowered its scale
        return losses

    def save_state(self, folder: Path) -> dict[Path, Any]:
        writer = self.engine.checkpoint_engine
        held = HeldFiles(writer)
        if type(writer).__name__ == "TorchCheckpointEngine":  # others, of a `deepspeed_config`, write in their own way
            self.engine.checkpoint_engine = held
        try:
            with explain_write_errors(folder):
                self.engine.save_checkpoint(str(folder), tag=DEEPSPEED, save_latest=False)
        finally:
            self.engine.checkpoint_engine = writer
        return held.files

    def load_state(self, folder: Path) -> None:
        try:
            for file in sorted((folder / DEEPSPEED).glob("*.pt")):
                check_torch_file(file)
            with _plain_loading():
                path, _ = self.engine.load_checkpoint(str(folder), tag=DEEPSPEED)
            fault = "its files are not there" if path is None else ""
        except UNREADABLE as error:
            if isinstance(error, RuntimeError) and distributed.is_lost_peer(error):
                raise
            fault = reason(error)
        if fault:
            raise TrainingError(f"{folder / DEEPSPEED}: this state cannot be read ({fault}); resume from another")

    def weights(self) -> dict[str, Tensor]:
        state = self.model.state_dict()
        if not self.low_precision:
            return state
        from deepspeed.utils import safe_get_full_fp32_param

        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            if name not in self._untrained:
                state[name] = safe_get_full_fp32_param(parameter).view_as(parameter)
        return {**state, **self._untrained}


class HeldFiles:
    """Stands for DeepSpeed's writer: keeps a copy of each file's content in host memory, to be written later."""

    def __init__(self, writer: Any):
        self.writer, self.files = writer, dict[Path, Any]()

    def save(self, state_dict: Any, path: str) -> None:
        self.files[Path(path)] = copy_to_host(state_dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)


@contextmanager
def _plain_loading() -> Iterator[None]:
    """Makes DeepSpeed load checkpoints in safe mode: tensors and DeepSpeed's own state classes only."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    known = [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"  # takes precedence over the arguments of torch.load
    try:
        with torch.serialization.safe_globals(known):
            yield
    finally:
        os.environ.pop(_WEIGHTS_ONLY)
        if before is not None:
            os.environ[_WEIGHTS_ONLY] = before


def build_engine(model: Lavender, optimizer: Optimizer, config: Config, device: torch.device) -> Engine:
    """Builds the engine that the configuration selects; the model must already be on its device.

    Raises:
        TrainingError: DeepSpeed is selected but not installed.
    """
    if config.deepspeed and not distributed.is_launched():
        LOGGER.info('"deepspeed" is true, but no launcher started this process: running without DeepSpeed, as released')
    kind = DeepSpeedEngine if config.deepspeed and distributed.is_launched() else TorchEngine
    engine: Engine = kind(model, optimizer, config, device)
    LOGGER.info("engine: %s, %d process(es), %s", engine.name, distributed.world_size(), device)
    return engine


def import_deepspeed() -> Any:
    """Imports DeepSpeed without its shared-memory op, which takes half a minute to compile at first use on a CPU."""
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise TrainingError(
            '"deepspeed" is true, but the package cannot be imported: pip install deepspeed==0.19.8, '
            "or train with --deepspeed false"
        ) from error
    import logging

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def refuse_unsupported(settings: dict[str, Any], device: torch.device) -> None:
    """Rejects settings on which DeepSpeed would fail with a traceback.

    Raises:
        ConfigError: DeepSpeed does not support the precision on this device or with this ZeRO stage.
    """
    from deepspeed.accelerator import get_accelerator

    on = {name for name in ("bf16", "fp16") if settings.get(name, {}).get("enabled") is True}
    has = {"bf16": get_accelerator().is_bf16_supported, "fp16": get_accelerator().is_fp16_supported}
    for name in sorted(on):
        if not has[name]():
            other = "bf16 or fp32" if name == "fp16" else "fp32"
            raise ConfigError(
                f"DeepSpeed has no {name} on this {device.type}: --precision {other}, or --deepspeed false"
            )
    if "bf16" in on and settings.get("zero_optimization", {}).get("stage", 0) == 0:
        raise ConfigError("DeepSpeed has no bf16 with ZeRO stage 0: --zero_stage 1 (or 2), or --deepspeed false")


def deepspeed_settings(config: Config, precision: str) -> dict[str, Any]:
    """DeepSpeed's configuration: the file `deepspeed_config`, or settings made from the options."""
    sizes = {
        "train_micro_batch_size_per_gpu": config.size_batch,
        "gradient_accumulation_steps": config.gradient_accumulation,
    }
    if config.deepspeed_config:
        settings = {**read_object(Path(config.deepspeed_config)), "zero_allow_untested_optimizer": True, **sizes}
        settings.pop("optimizer", None)  # the released AdamW groups are used whatever the file says
        settings.pop("scheduler", None)
        if settings.get("zero_optimization", {}).get("stage", 0) > 2:
            raise ConfigError(f"{config.deepspeed_config}: ZeRO stage 3 splits the weights themselves; use 0, 1 or 2")
        return settings
    return {
        **sizes,
        "gradient_clipping": max(config.max_grad_norm, 0.0),
        "zero_optimization": {"stage": config.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": 10**9,
    }
