"""The measurements: which there are, their sizes on a machine, and running them one after another."""

import argparse
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks import inputs, others, steps
from benchmarks.rows import ROOT, Machine, Row, Skipped, chip, cores, file_name, heading, line, write
from benchmarks.timing import release
from lavender.runtime.device import choose_precision, keep_freed_memory

QUICK_MINUTES = 4.0  # no row of --quick begins later, even on a busy machine
Measurement = Callable[[Machine], list[Row]]


def measurements(machine: Machine, quick: bool) -> Iterator[tuple[str, str, Measurement]]:
    """Yields group, name and function of every measurement; the longest come last."""
    yield "matrix", "matrix products", others.matrix
    yield "input", "input", inputs.measure
    yield "start", "start", others.start
    yield "save", "save", others.save
    yield "encoder", "encoder", steps.encoder
    for task in steps.TASKS:
        yield "step", f"step, {task}, eager", partial(steps.step, task, "eager")
    yield "captions", "captions", others.captions
    yield "retrieval", "retrieval evaluation", others.retrieval
    for mode in steps.MODES[1:]:
        for task in steps.TASKS:
            name, work = f"step, {task}, {mode}", partial(steps.step, task, mode)
            if quick and mode == "compile" and machine.device.type == "cpu":
                work = too_slow
            if not quick or task == "QA":
                yield "step", name, work


def too_slow(machine: Machine) -> list[Row]:
    raise Skipped("compiling takes ten minutes on a CPU: without --quick")


def machine_for(device: torch.device, quick: bool, bf16: bool, size: str) -> Machine:
    """Sizes of the measurements: the released batches on a GPU, smaller ones on a CPU."""
    precision = choose_precision("auto", device)
    if device.type == "cuda":
        released = {"QA": 24, "retrieval": 20, "pretraining": 24}
        machine = Machine(
            device, precision, "base", released, "base", pairs=(64, 256), captions=64, matrix=8192, videos=100
        )
        machine.rounds = 3 if quick else 5
    elif quick:
        few = {"QA": 2, "retrieval": 2, "pretraining": 2}
        machine = Machine(device, precision, "tiny", few, rounds=2, videos=20, pairs=(2, 4), captions=4)
        machine.saved = "tiny"
    else:
        machine = Machine(device, precision, "base", {"QA": 3, "retrieval": 3, "pretraining": 2}, "base")
    machine.bf16 = bf16
    if size:
        machine.size = machine.compiled = machine.saved = size
    return machine


def measure(work: Measurement, name: str, machine: Machine) -> list[Row]:
    """Rows of one measurement; a failed or impossible one gives a row with the reason."""
    try:
        return work(machine)
    except Skipped as reason:
        return [Row(name, skipped=str(reason))]
    except torch.OutOfMemoryError:
        return [Row(name, skipped="the GPU's memory is too small for it")]
    except ImportError as error:
        return [Row(name, skipped=f"{error.name or error} is not installed")]
    except (Exception, SystemExit) as error:
        logging.getLogger("benchmarks").debug("%s", name, exc_info=True)
        text = " ".join(str(error).split()) or type(error).__name__
        return [Row(name, failed=f"{type(error).__name__}: {text:.200}")]
    finally:
        release(machine.device)


def run(machine: Machine, quick: bool, only: list[str], minutes: float, out: Path) -> list[Row]:
    """Runs the selected measurements; prints each row at once, and rewrites the file after each."""
    began, rows = time.monotonic(), []
    print(heading(), flush=True)
    for group, name, work in measurements(machine, quick):
        if only and group not in only:
            continue
        if minutes and time.monotonic() - began > 60 * minutes:
            found = [Row(name, skipped=f"--minutes {minutes:g} are over")]
        else:
            found = measure(work, name, machine)
        for row in found:
            print(line(row), flush=True)
        rows += found
        write(machine, rows, out)
    return rows


def begin(given: argparse.Namespace, only: list[str]) -> int:
    """Runs what the command line asks for; returns 1 if a row has failed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        keep_freed_memory()
    machine = machine_for(device, given.quick, given.bf16, given.size)
    out = given.out or ROOT / "benchmarks" / "results" / file_name(device)
    print(
        f"{chip(device)}, {cores()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{machine.precision}, {machine.size}"
    )
    minutes = (QUICK_MINUTES if given.quick else 0.0) if given.minutes is None else given.minutes
    rows = run(machine, given.quick, only, minutes, out)
    print(f"written to {out}")
    return int(any(row.failed for row in rows))
