"""Resume states of a run: saved atomically in its folder, and found again after a stop."""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lavender.config.load import from_dict, read_object
from lavender.config.options import options
from lavender.config.schema import Config
from lavender.engine.checkpoint import explain_write_errors, load_tensors, save_tensors, write_json
from lavender.engine.engines import ZERO, Engine
from lavender.engine.output import make_folder
from lavender.runtime import distributed, ownership
from lavender.runtime.errors import ConfigError, LavenderError, TrainingError
from lavender.runtime.files import looked_from, remove_leftovers
from lavender.runtime.jsons import load_json
from lavender.runtime.logging import LOGGER
from lavender.runtime.seed import random_state, restore_random_state
from lavender.tasks.base import Metrics

FOLDER, POSITION = "resume", "position.json"
STARTING = ".starting.lock"
WRITER = "state writer"  # name of the thread
SEEN_AFTER = 60.0  # seconds in which a file that another host has written shows here
CLOSING = 5.0  # seconds for the other processes when the run has failed


@dataclass
class TrainState:
    """Progress of a run.

    Args:
        epoch: from 1; part: number of the part, from 0; batches: batches of the part that this process has trained on.
        step: optimizer steps done; all_batches: batches of the whole run so far.
        figures: training metrics of the part, once it is trained and its evaluation comes next; else None.
        running: state of `RunningMeans`; engine, processes: engine and number of processes that saved the state.
    """

    epoch: int = 1
    part: int = 0
    batches: int = 0
    step: int = 0
    all_batches: int = 0
    figures: Metrics | None = None
    running: dict[str, dict[str, float]] = field(default_factory=lambda: {"sums": {}, "steps": {}})
    engine: str = ""
    processes: int = 1

    @property
    def place(self) -> tuple[int, int]:
        """(epoch, part)."""
        return self.epoch, self.part

    @property
    def name(self) -> str:
        """Name of the state's folder; names sort in the order of training."""
        return f"step_{self.step:09}" + ("_trained" if self.figures is not None else "")


@dataclass
class RankState:
    """State of one process: its bad samples and its number of samples in the current part."""

    faults: list[str] = field(default_factory=list)
    samples: int = 0


class StateWriter:
    """Saves the resume states of a run; large files are written in a thread while training continues.

    The files are written to a temporary folder, which is renamed once all of them are on disk. After a kill or on a
    full disk the earlier states are unchanged.
    """

    def __init__(self, run: Path, engine: Engine, keep_last: int):
        self.run, self.engine, self.keep_last = run, engine, keep_last
        self._thread: threading.Thread | None = None
        self._written = threading.Event()  # the files of this process
        self._given_up = threading.Event()  # waiting for those of the others
        self._unseen: list[Path] = []  # of those
        self._error: Exception | None = None

    def save(self, position: TrainState, process: RankState) -> Path:
        """Begins to save a state and returns its folder, which exists after `wait`; every process must call it.

        Raises:
            TrainingError: this state, or the one before, could not be written.
        """
        self.wait()
        final = self.run / FOLDER / position.name
        unfinished = final.with_name(f".{final.name}.unfinished")
        with explain_write_errors(unfinished):
            if distributed.is_main():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
        distributed.barrier()
        files = self.engine.save_state(unfinished)
        own = {"faults": process.faults, "samples": process.samples, "random": random_state()}
        save_tensors(own, unfinished / f"process_{distributed.rank()}.pt")
        others = [path for paths in distributed.gather_objects(list(files)) for path in paths if path not in files]
        complete: Callable[[], object] = bool
        if distributed.is_main():
            complete = partial(self._complete, others, dataclasses.asdict(position), unfinished, final)
        self._written.clear()
        self._given_up.clear()
        self._unseen = []
        self._thread = threading.Thread(target=self._write, args=(files, complete), name=WRITER)
        self._thread.start()
        return final

    def wait(self) -> None:
        """Waits until the state that is being written is complete; every process must call it.

        Raises:
            TrainingError: it could not be written.
        """
        if not self._thread:
            return
        self._written.wait()
        if not self._error:
            distributed.barrier()  # the others have written theirs; or one of them has ended, and this raises
        self._end(SEEN_AFTER)
        if self._unseen:
            raise TrainingError(
                f"{self._unseen[0]}: another process has written this file of a state, and it is not seen here: "
                "path_output must be a folder that all hosts share"
            )

    def close(self) -> None:
        """Waits after an error of the run, which others may not have survived: a second error is logged, not raised."""
        try:
            self._written.wait(None if self._thread else 0)
            self._end(CLOSING)
        except Exception as error:
            LOGGER.error("%s", error)

    def _end(self, patience: float) -> None:
        """Ends the thread, which waits for files of other processes no longer than `patience` seconds."""
        if self._thread:
            self._thread.join(patience)
            self._given_up.set()
            self._thread.join()
            self._thread = None
        if self._error:
            error, self._error = self._error, None
            raise error

    def _write(self, files: dict[Path, Any], complete: Callable[[], object]) -> None:
        try:
            write_files(files)
            self._written.set()
            complete()
        except Exception as error:  # raised by `wait`
            self._error = error
        self._written.set()

    def _complete(self, others: list[Path], position: dict, unfinished: Path, final: Path) -> None:
        while unseen := [path for path in others if not path.exists()]:
            if self._given_up.wait(0.1):
                self._unseen = unseen
                return
        write_json(position, unfinished / POSITION)
        with explain_write_errors(final):
            _settle(unfinished, final)
        for old in _states(self.run)[: -self.keep_last]:
            shutil.rmtree(old, ignore_errors=True)


def write_files(files: dict[Path, Any]) -> None:
    """Writes files with `save_tensors`, and forgets each content that is on disk."""
    while files:
        path, content = files.popitem()
        save_tensors(content, path)
        del content


def _settle(unfinished: Path, final: Path) -> None:
    """Renames a folder to its final name once all its files are on disk."""
    for path in [*unfinished.rglob("*"), unfinished]:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(unfinished, final)


def load_state(state: Path, engine: Engine) -> tuple[TrainState, RankState]:
    """Restores weights, optimizer and random generators; returns the position and the state of this process.

    With a different number of processes, batches are shared differently, so the interrupted part starts again.

    Raises:
        TrainingError: the state belongs to another engine or, under ZeRO, to another number of processes.
    """
    try:
        position = TrainState(**read_object(state / POSITION))
    except TypeError as error:
        raise TrainingError(f"{state / POSITION}: this state cannot be read ({error}); resume from another") from error
    zero = engine.kind == ZERO
    if zero != position.engine.startswith(ZERO):
        raise TrainingError(
            f"{state} is of {position.engine}, and this run trains with {engine.name}: choose --deepspeed as it was"
        )
    is_match = position.processes == distributed.world_size()
    if not is_match and zero:
        raise TrainingError(
            f"{state}: ZeRO split the optimizer over {position.processes} processes, and these are "
            f"{distributed.world_size()}: start as many, or start a new run from the weights with --path_ckpt"
        )
    engine.load_state(state)
    if is_match:
        own = load_tensors(state / f"process_{distributed.rank()}.pt")
        restore_random_state(own.pop("random"))
        return position, RankState(**own)
    LOGGER.warning(
        "%s is of %d processes, these are %d: weights and optimizer go on, the interrupted part starts again",
        *(state, position.processes, distributed.world_size()),
    )
    if position.figures is None:
        position = dataclasses.replace(position, batches=0, running={"sums": {}, "steps": {}})
    return position, RankState()


def remove_temporaries(run: Path) -> None:
    """Removes temporary files that a killed run left behind."""
    if distributed.is_main():
        remove_leftovers(run.rglob(".*.tmp"))


def remove_state(run: Path) -> None:
    """Removes the resume states of a finished run."""
    if distributed.is_main():
        shutil.rmtree(run / FOLDER, ignore_errors=True)


# --- finding a run again ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """Folder that a run has claimed.

    Attributes:
        state: state to resume from; None for a new run.
        finished: the run is complete, and nothing is left to do.
    """

    run: Path
    state: Path | None = None
    finished: bool = False


@contextmanager
def claimed_run(config: Config, name: str, end: Callable[[str], object]) -> Iterator[Claim]:
    """Claims the run that `resume` means, or a new one; inside the context no other process may use its folder.

    Every process must enter it.

    Args:
        name: the middle of the output folder's name.
        end: called with a message in a process that has lost its folder to another run.

    Raises:
        ConfigError: the named folder belongs to a run with other options, or has no state to resume from.
        TrainingError: a live run owns the folder; the message names its host and process.
    """
    found: Claim | LavenderError | None = None
    if distributed.is_main():
        try:
            with _one_start_at_a_time(config):
                found = _claim(config, name)
        except LavenderError as fault:
            found = fault
    found = distributed.broadcast_object(found)
    if isinstance(found, LavenderError):
        raise found
    assert found is not None
    if found.finished or not distributed.is_main():
        yield found
        return
    try:
        with ownership.lock_heartbeat(found.run, end):
            yield found
    finally:
        ownership.release(found.run)


@contextmanager
def _one_start_at_a_time(config: Config) -> Iterator[None]:
    """Serializes starts with `--resume auto`, so that two of them cannot create two runs."""
    path = Path(config.path_output) / STARTING
    if config.resume != "auto":
        yield
        return
    with ExitStack() as stack:
        with suppress(OSError):  # reported when the run's own folder cannot be created
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(ownership.exclusive(path))
            stack.callback(path.unlink, missing_ok=True)
        yield


def _claim(config: Config, name: str) -> Claim:
    for run in _runs(config, name):
        if _is_finished(run) and not _states(run):
            return Claim(run, finished=True)
        if not _states(run) and not (run / ownership.LOCK).exists():
            continue  # it ended before it saved a state
        _take(run, config)
        if states := _states(run):  # another process may have removed the earlier ones
            return Claim(run, Path(config.resume) if Path(config.resume) in states else states[-1])
        ownership.release(run)
        if _is_finished(run):
            return Claim(run, finished=True)
        if config.resume != "auto":
            raise ConfigError(f"--resume {config.resume}: its states were removed just now")
    if config.resume == "auto":
        LOGGER.info("%s: there is no run with these options to resume; a new run starts", config.path_output)
    run = make_folder(config.path_output, name)
    _take(run, config)
    return Claim(run)


def _take(run: Path, config: Config) -> None:
    if fault := ownership.take(run, config.to_dict()):
        raise TrainingError(fault)


def _runs(config: Config, name: str) -> list[Path]:
    """Folders of runs with these options, newest first; if `resume` names a run, that one alone."""
    if config.resume == "auto":
        runs = sorted(Path(config.path_output).glob(f"_{name}_*"), reverse=True)
        return [run for run in runs if _differences(config, run) == []]
    if not config.resume:
        return []
    path = Path(config.resume)
    run = path.parents[1] if path.parent.name == FOLDER else path
    if not _states(run) and not _is_finished(run):
        raise ConfigError(
            f"--resume {path}: no folder of a run with a state to go on from ({FOLDER}/step_…){looked_from(path)}"
        )
    if different := _differences(config, run):
        raise ConfigError(f"--resume {path}: that run has other options: {'; '.join(different[:5])}")
    return [run]


def _states(run: Path) -> list[Path]:
    """Complete states of a run, oldest first."""
    return sorted(path.parent for path in run.glob(f"{FOLDER}/step_*/{POSITION}"))


def _is_finished(run: Path) -> bool:
    try:
        return "best" in load_json((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _differences(config: Config, run: Path) -> list[str]:
    """Options in which a run differs from `config`, in words."""
    path = run / "args.json"
    try:
        found = (
            read_object(path) if path.is_file() else ownership.locked_options(run)
        )  # a run writes it when it has a model
        theirs = from_dict(found or read_object(path), str(path), strict=False).to_dict()
    except LavenderError as fault:
        return [str(fault)]
    ours = config.to_dict()
    return [
        f"{name} is {theirs[name]!r} there, {value!r} here"
        for name, value in ours.items()
        if options()[name].counts and json.dumps(value) != json.dumps(theirs[name])
    ]
