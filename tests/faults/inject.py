"""Runs a script as it is, but for one fault: FAULT=… STAGE=… SCRIPT=… python tests/faults/inject.py [OPTION …]

The fault strikes on the last process, but for files that the first one writes alone.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from lavender.engine import engines, evaluator, resume, trainer  # noqa: E402
from lavender.runtime import distributed, files  # noqa: E402

FILE_LIMIT = 100_000  # bytes: less than the weights, more than the logs
MID_EPOCH = 3  # the step at which the fault strikes, of four or more


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def lost_worker() -> None:
    """The kernel ends data loading processes when memory runs out. To every one: not all have a batch left to give.

    One that is left is missed, however far ahead its worker was: a batch is handed over when it is asked for.
    """
    workers = multiprocessing.active_children()
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()


def signalled(number: int) -> Callable[[], None]:
    """A signal to the run: to what started its processes, which passes it on, or, without that, to all of its group."""

    def send() -> None:
        if not distributed.is_launched():
            return os.killpg(0, number)
        arrivals, notes = os.pipe()
        os.set_blocking(notes, False)
        signal.set_wakeup_fd(notes)
        os.kill(os.getppid(), number)
        while os.read(arrivals, 1)[0] != number:  # until it is here, unless it ends this process
            pass

    return send


FAULTS = {
    "killed": killed,
    "terminated": signalled(signal.SIGTERM),
    "interrupted": signalled(signal.SIGINT),
    "full disk": full_disk,
    "lost worker": lost_worker,
}
STAGES: dict[str, tuple[Any, str, int]] = {  # where it is, and at which call of what
    "start": (trainer.Trainer, "begin", 1),
    "training": (engines.Engine, "train_batch", MID_EPOCH),
    "evaluation": (evaluator, "to_device", 1),  # of two batches where there are two processes
    "saving a state": (resume, "random_state", 2),  # once for each
    "writing a state": (resume, "write_files", 2),  # its largest files, in a thread of the first process
    "writing a share": (resume, "write_files", 2),  # the same, in a thread of the last process
    "saving weights": (trainer, "save_weights", 2),  # the first are those before training
}
FULL = (resume.StateWriter, "save", 2)  # before its largest file


def arm(place: Any, name: str, call: int, fault: Callable[[], None]) -> None:
    """Lets a function of ours begin with the fault, at one of its calls."""
    function, calls = getattr(place, name), 0

    def armed(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            fault()
        return function(*arguments, **more)

    setattr(place, name, armed)


def before_the_rename(fault: Callable[[], None]) -> Callable[[], None]:
    """The fault strikes when the bytes of the next file are written and its name is not yet given."""
    system = SimpleNamespace(**vars(os))
    arm(system, "fsync", 1, fault)
    return lambda: setattr(files, "os", system)


def after_the_state(fault: Callable[[], None]) -> Callable[[], None]:
    """The fault strikes when the state before is complete and alone; it is written while training goes on."""

    def later() -> None:
        output = Path(sys.argv[sys.argv.index("--path_output") + 1])
        while list(output.glob("*/resume/.*.unfinished")) or len(list(output.glob("*/resume/step_*"))) > 1:
            time.sleep(0.01)
        fault()

    return later


def main() -> None:
    fault, stage, script = (os.environ[name] for name in ("FAULT", "STAGE", "SCRIPT"))
    strike, place = FAULTS[fault], STAGES[stage]
    if fault == "full disk" and stage == "saving a state":
        place, strike = FULL, after_the_state(strike)
    elif stage in ("training", "evaluation"):
        strike = after_the_state(strike)
    elif stage == "saving weights" and fault != "full disk":
        strike = before_the_rename(strike)
    first = fault == "full disk" or stage in ("writing a state", "saving weights")
    if distributed.rank() == (0 if first else distributed.world_size() - 1):
        arm(*place, strike)
    sys.argv[0] = script
    runpy.run_path(str(ROOT / script), run_name="__main__")


if __name__ == "__main__":
    main()
