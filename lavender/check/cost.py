"""Estimated cost of a run: steps, memory, GPU-hours, computed from shapes only."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lavender.check.splits import Split
from lavender.config.schema import Config
from lavender.data.formats import format_of
from lavender.data.loaders import steps_in_epoch
from lavender.models.backbones.table import build_backbone
from lavender.models.encoders import Encoded
from lavender.models.lavender import Heads, Lavender
from lavender.models.pairs import select_rows
from lavender.models.shapes import shapes_only
from lavender.models.weights import bert_config
from lavender.runtime.errors import LavenderError

STATE_BYTES = 16  # per parameter in mixed precision: 16-bit weight and gradient, 32-bit weight and two AdamW moments
HALF = 0.5  # 16-bit activations relative to the counted 32-bit ones
TRAINING_PASSES = 3  # the backward pass costs twice the forward pass
NEGATIVES = 4  # texts matched with each clip in pretraining


@dataclass(frozen=True)
class Cost:
    """Cost of a task on one GPU.

    Args:
        parameters: parameters of the model; steps: optimizer steps of the whole training on one GPU.
        clip_flops, pair_flops: FLOPs of encoding a clip, and of fusing it with a text.
        training_flops, evaluation_flops: FLOPs of the whole training, and of one evaluation on val and test.
        memory: bytes of a training step: states and activations, without memory used by libraries.
    """

    task: str
    parameters: int
    steps: int
    clip_flops: float
    pair_flops: float
    training_flops: float
    evaluation_flops: float
    memory: float

    def hours(self, tflops: float) -> float:
        """Hours of training and its evaluations at this rate in TFLOP/s."""
        return (self.training_flops + self.evaluation_flops) / (tflops * 1e12) / 3600


def costs(config: Config, splits: Sequence[Split]) -> list[Cost | str]:
    """Cost of each task of a configuration, or the reason why it is unknown."""
    found: list[Cost | str] = []
    for entry in config.entries() or [config]:
        own = [split for split in splits if split.task == entry.task or entry.type == "pretrain"]
        try:
            found.append(_cost(entry, own))
        except (LavenderError, RuntimeError, NotImplementedError) as fault:
            found.append(f"{entry.task or entry.type}: no estimate ({str(fault).splitlines()[0]})")
    return found


def _cost(config: Config, splits: Sequence[Split]) -> Cost:
    model = _model(config)
    pairs = _pairs(config)
    clip_flops, pair_flops = _flops(model, config)
    train = sum(len(split.videos) for split in splits if split.name == "train")
    passes = TRAINING_PASSES + (1 if config.use_checkpoint else 0)
    training = config.size_epoch * train * (passes * clip_flops + TRAINING_PASSES * pairs * pair_flops)
    evaluation = 0.0
    for split in splits:
        if split.name != "train":
            clips, samples = len(set(split.videos)), len(split.videos)
            fused = samples * {"retrieval": clips, "retmc": config.size_option}.get(format_of(config), 1)
            evaluation += clips * clip_flops + fused * pair_flops
    size = min(config.size_batch, max(1, train))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(
        task=config.task or config.type,
        parameters=parameters,
        steps=config.size_epoch * steps_in_epoch(train, config.size_batch) if train else 0,
        clip_flops=clip_flops,
        pair_flops=pair_flops,
        training_flops=training,
        evaluation_flops=evaluation * max(1, config.size_epoch),
        memory=parameters * STATE_BYTES + HALF * _activations(model, config, size, pairs),
    )


def _pairs(config: Config) -> float:
    """Fused video–text pairs per clip of a training batch."""
    known = {"retrieval": config.size_batch, "retmc": config.size_option, "pretrain": 1 + NEGATIVES}
    return known.get(format_of(config), 1)


def _model(config: Config) -> Lavender:
    """The model without storage (meta device)."""
    free = dataclasses.replace(config, vis_backbone_init="random")
    with shapes_only():
        model = Lavender(
            build_backbone(free),
            bert_config(config.txt_backbone, "text"),
            bert_config(config.fusion_encoder, "fusion"),
            Heads(),
            embed_only=config.txt_backbone_embed_only,
            max_size_frame=config.max_size_frame,
            max_size_patch=config.max_size_patch,
            swinbert=config.swinbert,
        )
    return model


def _clips(config: Config, size: int) -> Tensor:
    shape = (size, config.size_frame, 3, config.size_img, config.size_img)
    return torch.zeros(shape, dtype=torch.uint8, device="meta")


def _fused(model: Lavender, config: Config, video: Encoded, pairs: int) -> Tensor:
    """Fuses each clip with `pairs` texts."""
    ids = torch.zeros(len(video.states) * pairs, config.size_txt + 1, dtype=torch.long, device="meta")
    rows = torch.zeros(len(ids), dtype=torch.long, device="meta")
    return model.fuse(select_rows(video, rows), model.encode_text(ids, torch.ones_like(ids)))


def _flops(model: Lavender, config: Config) -> tuple[float, float]:
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            video = model.encode_video(_clips(config, 1))
        clip = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            _fused(model, config, video, 1)
    return float(clip), float(counter.get_total_flops())


def _activations(model: Lavender, config: Config, size: int, pairs: float) -> float:
    """Bytes of 32-bit activations that a training step keeps for the backward pass; measured with one clip."""
    with _Kept(model, config.use_checkpoint) as kept:
        _fused(model, config, model.encode_video(_clips(config, 1)), 1)
    with torch.no_grad():
        video = model.encode_video(_clips(config, 1))
    with _Kept(model, False) as of_pair:
        _fused(model, config, video, 1)
    return size * (kept.total() + (pairs - 1) * of_pair.total())


class _Kept:
    """Counts the bytes that autograd keeps, without the model's own tensors.

    With `recompute` each backbone block keeps only its input, and one block at a time is recomputed.
    """

    def __init__(self, model: Lavender, recompute: bool):
        self._own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._blocks = model.backbone.blocks() if recompute else []
        self._sizes: dict[int, int] = {}  # storage → bytes
        self._within: list[dict[int, int]] = []  # the same per block
        self._is_within = False
        self._alive: list[Any] = []  # keeps storages alive, since addresses are reused

    def __enter__(self) -> "_Kept":
        self._hooks: list[Any] = [block.register_forward_pre_hook(self._begin) for block in self._blocks]
        self._hooks += [block.register_forward_hook(self._end) for block in self._blocks]
        self._saved = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._saved.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._saved.__exit__()
        for hook in self._hooks:
            hook.remove()

    def total(self) -> int:
        """Peak bytes of the step."""
        return sum(self._sizes.values()) + max((sum(sizes.values()) for sizes in self._within), default=0)

    def _begin(self, block: nn.Module, inputs: tuple[Any, ...]) -> None:
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                self._keep(tensor)
        self._is_within = True
        self._within.append({})

    def _end(self, *_: object) -> None:
        self._is_within = False

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self._alive.append(storage)
            sizes = self._within[-1] if self._is_within else self._sizes
            sizes[storage._cdata] = storage.nbytes()
        return tensor
