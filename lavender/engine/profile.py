"""Where the time of a training step goes: `--profile N` traces N steps and says it in a table.

A step is cut into phases on one timeline, the GPU's where there is one, so their shares add up to 1. The same
phases are ranges of the trace.
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

from lavender.engine.checkpoint import told_as_unwritable
from lavender.engine.parallel import Engine
from lavender.runtime import distributed
from lavender.runtime.logging import LOGGER

WARM_UP = 2  # steps before the first traced one: kernels are chosen, memory is taken, the tracer itself starts
PHASES = ("waiting for input", "video encoder", "fusion", "head", "backward", "optimizer", "other")
INPUT, OTHER = PHASES[0], PHASES[-1]
MODULES = {"enc_img": "video encoder", "trsfr": "fusion"}  # whatever else has a name of its own is a head, but
TEXT_ENCODER = "enc_txt"  # this, which counts as other
LONGEST = 20  # operators that are listed
_COMMUNICATION = ("ncclDevKernel", "ncclKernel", "gloo:")  # beginnings of events' names


class StepProfile:
    """Traces some steps of the training loop, on the first process.

    Args:
        steps: how many; 0: none, and then nothing of the run is touched.
        folder: of the run; `profile/trace_rank0.json` and `profile/profile.txt` are written there.
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
        self._is_left = False  # in the middle, by an error: nothing is written

    def batches(self, loader: Iterable) -> Iterable:
        """The batches of a part, while what is done with them is watched; the loader itself, once that is over.

        A part that ends before `steps` ends the trace, which then has fewer; one without a step behind the warm-up is
        left to the next part.
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
        """What marks the parts of the forward pass."""
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
        """A point of the timeline: an event of the GPU, or seconds."""
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
        with told_as_unwritable(self.folder):
            self.folder.mkdir(exist_ok=True)
            trace.export_chrome_trace(str(self.folder / "trace_rank0.json"))
            (self.folder / "profile.txt").write_text(f"{table}\n\nOperators, the longest first:\n{operators}\n")
        LOGGER.info("%s\ntrace: %s (open it in https://ui.perfetto.dev)", table, self.folder / "trace_rank0.json")

    def table(self, communication: float) -> str:
        """The phases in words, with the seconds in which the processes exchanged gradients."""
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
    """Seconds of the collectives: of their kernels under NCCL, of the calls under Gloo."""
    return sum(event.time_range.elapsed_us() for event in events if event.name.startswith(_COMMUNICATION)) / 1e6


def _order(device: torch.device) -> str:
    return "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
