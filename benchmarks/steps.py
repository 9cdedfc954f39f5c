"""Video encoder and training step: seconds, fraction of the matrix rate, peak memory, against plain code."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain import plainly
from benchmarks.rows import BERT, SIZES, Machine, Row, Size, Skipped
from benchmarks.timing import peak, reset_peak, turns
from lavender.config.schema import Config
from lavender.engine.engines import TorchEngine
from lavender.engine.optim import build_optimizer
from lavender.models.activation_checkpoint import checkpoint_activations
from lavender.models.compiling import compile_model
from lavender.models.lavender import Lavender
from lavender.runtime.errors import TrainingError
from lavender.tasks.pretrain import PretrainTask
from lavender.tasks.qaoe import QAOETask
from lavender.tasks.retrieval import RetrievalTask

TASKS = {"QA": QAOETask, "retrieval": RetrievalTask, "pretraining": PretrainTask}
SHAPES = {"QA": (5, 25), "retrieval": (5, 26), "pretraining": (4, 33)}  # (frames, tokens of a text)
MODES = ("eager", "use_checkpoint", "compile")
HIDDEN = 0.15  # fraction of tokens masked in pretraining
TOLERANCES = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 1e-2}  # relative to the largest feature, between ours and plain code


def batch_of(task: str, samples: int, side: int, device: torch.device) -> dict[str, Any]:
    """Random clips and texts with the labels of a task."""
    frames, tokens = SHAPES[task]
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 300, (samples, tokens), generator=draw)
    labels = torch.full_like(ids, -1)
    if task == "QA":
        labels[:, tokens // 2] = ids[:, tokens // 2]
    elif task == "pretraining":
        step = round(1 / HIDDEN)
        labels[:, ::step] = ids[:, ::step]
    negatives = torch.arange(samples)[:, None] + torch.arange(1, min(samples, 4))
    batch: dict[str, Any] = {
        "index": torch.arange(samples),
        "img": torch.randint(0, 256, (samples, frames, 3, side, side), dtype=torch.uint8, generator=draw),
        "present": torch.ones(samples, dtype=torch.bool),
        "ids": ids,
        "mask": torch.ones_like(ids),
        "labels": labels,
        "is_match": torch.eye(samples, dtype=torch.bool),
        "negatives": negatives % samples,
    }
    return {name: value.to(device) for name, value in batch.items()}


def forward_flop(size: Size, frames: int, tokens: int) -> tuple[float, float]:
    """FLOPs of encoding a clip, and of fusing it with a text."""
    model = size.shapes()
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            img = torch.zeros(1, frames, 3, size.side, size.side, dtype=torch.uint8, device="meta")
            video = model.encode_video(img)
        clip = counter.get_total_flops()
        ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        with FlopCounterMode(display=False) as counter:
            model.fuse(video, model.encode_text(ids, torch.ones_like(ids)))
    return float(clip), float(counter.get_total_flops())


def step_flop(task: str, samples: int, size: Size) -> float:
    """FLOPs of a training step; recomputation by `use_checkpoint` is not counted."""
    frames, tokens = SHAPES[task]
    clip, pair = forward_flop(size, frames, tokens)
    hidden = -(-tokens // round(1 / HIDDEN))
    pairs, words = {
        "QA": (samples, samples),
        "retrieval": (samples**2, samples**2),
        "pretraining": (samples * (1 + min(samples, 4)), samples * (hidden + min(samples, 4))),
    }[task]
    width = size.bert.hidden_size
    head = 2 * width * (width + size.bert.vocab_size)
    return 3 * (samples * clip + pairs * pair + words * head)


def compare_outputs(model: Lavender, img: Tensor, machine: Machine) -> str:
    """Difference to the features of plain code; raises if it exceeds the tolerance."""
    model.eval()
    with torch.inference_mode(), machine.autocast():
        ours = model.encode_video(img).states.float()
        with plainly(model):
            theirs = model.encode_video(img).states.float()
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if not difference <= TOLERANCES[machine.precision]:
        raise AssertionError(f"the plain version's features differ by {difference:.1e} of the largest")
    return f"plain differs by {difference:.0e}"


def encoder(machine: Machine) -> list[Row]:
    """Forward pass of Video Swin without gradients."""
    samples, device, frames = max(machine.batches["QA"], 1), machine.device, SHAPES["QA"][0]
    model = machine.model.build().eval().to(device)
    img = batch_of("QA", samples, machine.model.side, device)["img"]

    def forward() -> None:
        with torch.inference_mode(), machine.autocast():
            model.encode_video(img)

    note = compare_outputs(model, img[:2], machine)
    forward()
    reset_peak(device)
    forward()
    memory = peak(device)
    ours, plain = turns((forward, lambda: _plainly(model, forward)), machine.rounds, device)
    flop = samples * forward_flop(machine.model, *SHAPES["QA"])[0]
    share, shape = machine.share(flop, ours), f"{machine.size}, {samples} × {frames} frames"
    return [Row("encoder, forward", samples / ours, "clips/s", plain / ours, share, memory, f"{shape}; {note}")]


def _plainly(model: Lavender, work: Callable[[], object]) -> None:
    with plainly(model):
        work()


class Step:
    """Training step of a task on random samples, with the training engine."""

    def __init__(self, task: str, mode: str, machine: Machine):
        self.size = SIZES[machine.compiled if mode == "compile" else machine.size]
        self.samples, self.device = machine.batches[task], machine.device
        words: dict[str, Any] = {"txt_backbone": str(BERT), "fusion_encoder": str(BERT), "data_dir": "."}
        dataset: Any = ["bench"] if task == "pretraining" else "bench"
        config = Config(
            **words, task="bench", dataset=dataset, precision=machine.precision, max_grad_norm=1.0, n_workers=0
        )
        self.task: Any = TASKS[task](config)  # batches are random, so it needs no files
        self.model = self.size.build()
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(self.task.unused_parameters()))
        if mode == "use_checkpoint":
            try:
                checkpoint_activations(self.model, False)
            except TrainingError as error:
                raise Skipped(str(error)) from error
        if mode == "compile":
            try:
                compile_model(self.model, self.device)
            except TrainingError as error:
                raise Skipped(str(error)) from error
        self.model.train().to(self.device)
        self.engine = TorchEngine(self.model, build_optimizer(self.model, 1e-5, 1.0, 1e-3), config, self.device)
        self.batch = batch_of(task, self.samples, self.size.side, self.device)

    def run(self) -> None:
        self.engine.train_batch(self.task.loss, self.batch)

    def plain(self) -> None:
        _plainly(self.model, self.run)


def step(task: str, mode: str, machine: Machine) -> list[Row]:
    """Seconds per training step; the eager QA step alternates with plain code."""
    name = f"step, {task}, {mode}"
    made = Step(task, mode, machine)
    made.run()  # allocates memory and AdamW's moments, and compiles
    reset_peak(made.device)
    if (task, mode) == ("QA", "eager"):
        made.run()
        memory = peak(made.device)  # not that of plain code
        made.plain()
        ours, *plain = turns([made.run, made.plain], machine.rounds, made.device)
    else:
        ours, *plain = turns([made.run], machine.rounds, made.device)
        memory = peak(made.device)
    size = machine.compiled if mode == "compile" else machine.size
    share = machine.share(step_flop(task, made.samples, made.size), ours)
    ratio = plain[0] / ours if plain else None
    return [Row(name, ours, "s", ratio, share, memory, f"{size}, batch {made.samples}, {made.engine.name}")]
