"""Captioning, retrieval evaluation, start-up and saving, with the scripts of this folder."""

import shutil
import tempfile
from pathlib import Path

import torch

from benchmarks import captioning, retrieval_eval
from benchmarks.rows import ROOT, SIZES, Machine, Row, Skipped
from benchmarks.start import start as start_once
from benchmarks.timing import matrix_rate, peak, reset_peak, turns
from lavender.config.schema import Config
from lavender.engine.checkpoint import save_weights
from lavender.engine.engines import TorchEngine
from lavender.engine.optim import build_optimizer
from lavender.engine.resume import RankState, StateWriter, TrainState
from lavender.runtime.device import PRECISIONS

BEAMS = 4
PAIRS_AT_ONCE = 100  # batch of the straightforward code, as in the released script


def matrix(machine: Machine) -> list[Row]:
    """Matrix rate of the machine: square products."""
    names = ["fp32"] + (["bf16"] if machine.bf16 or machine.device.type == "cuda" else [])
    rows = []
    for name in names:
        rate = matrix_rate(PRECISIONS[name], machine.device, machine.matrix, 5 * machine.rounds)
        machine.rates[name] = rate
        tf32 = name == "fp32" and machine.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
        note = f"{machine.matrix} × {machine.matrix}" + (", TF32" if tf32 else "")
        rows.append(Row(f"matrix products, {name}", rate / 1e12, "TFLOP/s", note=note))
    return rows


def captions(machine: Machine) -> list[Row]:
    """Captions per second, greedy and with beams; plain code runs the whole sequence for every token."""
    model = machine.model.build().eval().to(machine.device)
    bias = model.fc_mtm.predictions.decoder.bias
    bias.data[captioning.TOKENS.sep] = -1e4  # no caption ends early
    reset_peak(machine.device)
    count = machine.captions
    cached, searched, whole, same = captioning.measure(
        model, count, machine.rounds, BEAMS, machine.device, machine.precision
    )
    shape = f"{machine.size}, batch {count}, {captioning.LENGTH} tokens, without the video encoder"
    return [
        Row("captions, greedy", count / cached, "captions/s", whole / cached, note=f"{shape}; {same:.1%} words equal"),
        Row(f"captions, {BEAMS} beams", count / searched, "captions/s", memory=peak(machine.device), note=shape),
    ]


def retrieval(machine: Machine) -> list[Row]:
    """Video–text pairs per second in a retrieval evaluation, always of base size."""
    videos, texts = machine.pairs
    with tempfile.TemporaryDirectory() as folder:
        bench = retrieval_eval.Bench(videos, texts, machine.device, machine.precision, folder)
        reset_peak(machine.device)
        ours, plain, difference = retrieval_eval.measure(bench, PAIRS_AT_ONCE, machine.rounds)
    pairs = videos * texts
    share = machine.share(bench.flop() * pairs, ours)
    note = f"base, {videos} videos × {texts} texts; scores differ by {difference:.0e}"
    return [Row("retrieval evaluation", pairs / ours, "pairs/s", plain / ours, share, peak(machine.device), note)]


def start(machine: Machine) -> list[Row]:
    """Seconds from the command to the first batch of a small run."""
    wall, processor = min(start_once(ROOT, "main_qaoe_mlm.py") for _ in range(min(machine.rounds, 2)))
    return [Row("start, to the first batch", wall, "s", note=f"processor {processor:.1f} s; micro, on the CPU")]


def save(machine: Machine) -> list[Row]:
    """Seconds to save a checkpoint and a state to resume from, and for how long the state holds up the training."""
    size, rows = SIZES[machine.saved], []
    model = size.build().to(machine.device)
    needed = 4 * 4 * sum(weight.numel() for weight in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        if (free := shutil.disk_usage(folder).free) < 2 * needed:
            raise Skipped(
                f"{folder} has {free / 2**30:.0f} GiB free, and {2 * needed / 2**30:.0f} are needed: set TMPDIR"
            )
        engine = TorchEngine(model, build_optimizer(model, 0.0, 1.0, 0.0), Config(precision="fp32"), machine.device)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        engine.optimizer.step()  # creates the moments, which are part of a state
        engine.optimizer.zero_grad(set_to_none=True)
        run = Path(folder)
        states = StateWriter(run, engine, 1)
        works = (
            lambda: save_weights(engine.weights(), run / "checkpoint.pt"),
            lambda: states.save(TrainState(), RankState()),
            states.wait,
        )
        checkpoint, held_up, rest = turns(works, min(machine.rounds, 2), machine.device)
        files = [file for file in (run / "resume").rglob("*") if file.is_file()]
        for name, size_on_disk, spent, ratio in (
            ("checkpoint", (run / "checkpoint.pt").stat().st_size, checkpoint, None),
            ("state", sum(file.stat().st_size for file in files), held_up, (held_up + rest) / held_up),
        ):
            note = f"{machine.saved}, {size_on_disk / 2**30:.2f} GiB to {run.parent}"
            rows.append(Row(f"save, {name}", spent, "s", ratio, note=note + ("; training waits" if ratio else "")))
    return rows
