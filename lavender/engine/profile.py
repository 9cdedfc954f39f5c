"""Profile of a training step: `--profile N` traces N steps and prints the time of each phase.

A step is divided into phases on one timeline (the GPU's if there is one), so their shares add up to 1. The trace
shows the same phases as ranges.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function, schedule

from lavender.engine.checkpoint import explain_write_errors
from lavender.engine.engines import Engine
from lavender.runtime import distributed
from lavender.runtime.logging import LOGGER

WARM_UP = 2  # untraced steps: kernels are chosen, memory is allocated, the tracer starts
PHASES = ("waiting for input", "video encoder", "fusion", "head", "backward", "optimizer", "other")
INPUT, OTHER = PHASES[0], PHASES[-1]
MODULES = {"enc_img": "video encoder", "trsfr": "fusion"}  # every other named module is a head, except
TEXT_ENCODER = "enc_txt"  # this one, which counts as other
LONGEST = 20  # number of operators listed
_COMMUNICATION = ("ncclDevKernel", "ncclKernel", "gloo:")  # prefixes of event names


class StepProfile:
    """Traces some steps of the training loop on the first process.

    Args:
        steps: number of steps to trace; 0 changes nothing in the run.
        folder: the run's folder, for `profile/trace_rank0.json` and `profile/profile.txt`.
    """

    def __init__(self, steps: int, engine: Engine, device: torch.device, folder: Path):
        self.steps, self.engine, self.device = steps, engine, device
        self.folder = folder / "profile"
        self.is_done = not (steps and distributed.is_main())
        self._phase = OTHER
        self._since: Any = None
        self._range: record_function | None = None
        self._spans: list[tuple[str, Any, Any]] = []  # phase, beginning, end
        self._traced = 0
        self._is_left = False  # the loop was left by an error: nothing is written

    def batches(self, loader: Iterable) -> Iterable:
        """Yields the batches of a part while tracing; returns the loader itself once tracing is over.

        A part with fewer than `steps` steps gives a shorter trace. If it ends during the warm-up, the next part is
        traced instead.
        """
        return loader if self.is_done else self._watched(loader)

    def mark(self, phase: str) -> None:
        """Ends a phase of the step and begins another."""
        now = self._now()
        if self._since is not None:
            self._spans.append((self._phase, self._since, now))
        self._phase, self._since = phase, now
        if self._range is not None:
            self._range.__exit__(None, None, None)
        self._range = record_function(phase) if phase != OTHER else None
        if self._range is not None:
            self._range.__enter__()

    def _watched(self, loader: Iterable) -> Iterator[Any]:
        iterator, nothing = iter(loader), object()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        steps = schedule(wait=0, warmup=WARM_UP, active=self.steps, repeat=1)
        with ExitStack() as stack:
            for hook in self._hooks():
                stack.callback(hook.remove)
            self.engine.mark = self.mark
            stack.callback(self.engine.__dict__.pop, "mark", None)
            trace = stack.enter_context(
                torch.profiler.profile(activities=activities, schedule=steps, on_trace_ready=self._write)
            )
            try:
                for number in range(WARM_UP + self.steps):
                    self.mark(INPUT)
                    batch = next(iterator, nothing)
                    self.mark(OTHER)
                    if batch is nothing:
                        return
                    yield batch
                    self._end_step(is_traced=number >= WARM_UP)
                    trace.step()
            except GeneratorExit:
                self._is_left = True
                raise
        yield from iterator

    def _hooks(self) -> list[Any]:
        """Registers forward hooks that mark the phases of the forward pass."""
        hooks = []
        for name, module in self.engine.model.named_children():
            if name != TEXT_ENCODER:
                phase = MODULES.get(name, "head")
                hooks.append(module.register_forward_pre_hook(partial(self._at_module, phase)))
                hooks.append(module.register_forward_hook(partial(self._at_module, OTHER)))
        return hooks

    def _at_module(self, phase: str, module: nn.Module, *_: Any) -> None:
        self.mark(phase)

    def _end_step(self, is_traced: bool) -> None:
        self.mark(OTHER)
        self._since = None
        if is_traced:
            self._traced += 1
        else:
            self._spans.clear()

    def _now(self) -> Any:
        """Current time: a CUDA event, or seconds."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase, over all traced steps."""
        totals: dict[str, float] = defaultdict(float)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for phase, begin, end in self._spans:
            totals[phase] += begin.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - begin
        return {phase: totals[phase] for phase in PHASES}

    def _write(self, trace: torch.profiler.profile) -> None:
        if self._is_left or not self._traced:
            return
        self.is_done = True
        table = self.table(_communication(trace.events() or []))
        operators = trace.key_averages().table(sort_by=_order(self.device), row_limit=LONGEST, max_name_column_width=60)
        with explain_write_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            trace.export_chrome_trace(str(self.folder / "trace_rank0.json"))
            (self.folder / "profile.txt").write_text(f"{table}\n\nOperators, the longest first:\n{operators}\n")
        LOGGER.info("%s\ntrace: %s (open it in https://ui.perfetto.dev)", table, self.folder / "trace_rank0.json")

    def table(self, communication: float) -> str:
        """Table of the phases, and of the `communication` seconds in which gradients were exchanged."""
        seconds = self.seconds()
        whole, steps = sum(seconds.values()), max(self._traced, 1)
        rows = [f"profile of {self._traced} steps on {self.device}: {whole / steps:.4f} s a step"]
        rows += [f"  {phase:18} {spent / steps:9.4f} s {_share(spent, whole):>7}" for phase, spent in seconds.items()]
        if distributed.world_size() > 1:
            spent = f"{communication / steps:9.4f} s {_share(communication, whole):>7}"
            rows.append(f"  {'communication':18} {spent}  (at the same time as the phases above, mostly backward)")
        return "\n".join(rows)


def _share(seconds: float, whole: float) -> str:
    return f"{seconds / whole if whole else 0:.1%}"


def _communication(events: Iterable[Any]) -> float:
    """Seconds spent in collectives: NCCL kernels or Gloo calls."""
    return sum(event.time_range.elapsed_us() for event in events if event.name.startswith(_COMMUNICATION)) / 1e6


def _order(device: torch.device) -> str:
    return "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
