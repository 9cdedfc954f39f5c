"""Worker processes of the loaders: forked by a server without threads; they share a data set's arrays.

A process with threads must not be forked: a lock held by another thread stays locked in the child, which then waits
forever. Gloo has threads from the first collective on, and loaders start workers throughout a run.
"""

import atexit
import itertools
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, reduction, resource_tracker
from types import ModuleType
from typing import Any
from unittest import mock

from torch.utils.data import Dataset

from lavender.runtime.errors import DataError
from lavender.runtime.signals import leave_signals_to_parent

METHOD = "forkserver"
POLL = 1.0  # seconds between checks that all workers are alive
_ALIGNMENT = 64  # bytes
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def start_server() -> None:
    """Starts the process that forks the workers, if not running; returns at once, while it imports their modules.

    It ends with this process. The signals that end a run stay blocked in the server, and in its workers until
    `leave_signals_to_parent` sets their handlers.
    """
    atexit.unregister(_end_workers)  # once is enough
    atexit.register(_end_workers)
    needed = [name for name in sys.modules if name == "torch" or name.startswith("lavender.data.")]
    multiprocessing.get_context(METHOD).set_forkserver_preload(needed)
    warnings = filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker:UserWarning"])
    environment = {
        "PYTHONPATH": os.pathsep.join(sys.path),  # the server does not inherit sys.path
        "PYTHONWARNINGS": ",".join(warnings),  # the tracker reports resources of a process that exited at once
        "OMP_NUM_THREADS": "1",  # else numpy starts threads at import
    }
    with mock.patch.dict(os.environ, environment):
        resource_tracker.ensure_running()  # before signals are blocked: it unblocks them again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_workers() -> None:
    """At exit: ends workers of loaders that were not closed; multiprocessing would terminate and join them.

    The workers ignore its SIGTERM (`leave_signals_to_parent`), so that join would hang.
    """
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


class SharedDataset(Dataset):
    """Data set sent to worker processes: its arrays are mapped from one shared-memory file, the rest is copied."""

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self._file: tuple[int, list[int]] | None = None

    def __getitem__(self, key: Any) -> Any:
        return self.dataset[key]

    def collate(self, samples: list[Any]) -> Any:
        return self.dataset.collate(samples)

    @contextmanager
    def packed(self) -> Iterator[None]:
        """Context in which newly started processes receive the current data set."""
        arrays: list[pickle.PickleBuffer] = []
        try:
            head = pickle.dumps(self.dataset, protocol=5, buffer_callback=arrays.append)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"{type(self.dataset).__name__} cannot be sent to worker processes ({error}): a data set must be "
                "picklable, without open files, locks and lambdas; or use --n_workers 0"
            ) from error
        sizes = []
        with open(os.memfd_create("dataset"), "wb") as file:
            for piece in (head, *(array.raw() for array in arrays)):
                sizes.append(len(piece))
                file.write(piece)  # type: ignore[arg-type]
                file.write(bytes(-len(piece) % _ALIGNMENT))
            file.flush()
            self._file = file.fileno(), sizes
            try:
                yield
            finally:
                self._file = None

    def __reduce__(self) -> tuple:
        if self._file is None:
            return SharedDataset, (self.dataset,)
        descriptor, sizes = self._file
        return _unpacked, (reduction.DupFd(descriptor), sizes)


def _unpacked(handle: Any, sizes: list[int]) -> SharedDataset:
    with open(handle.detach(), "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    starts = itertools.accumulate((size + -size % _ALIGNMENT for size in sizes), initial=0)
    head, *arrays = (content[start : start + size] for start, size in zip(starts, sizes, strict=False))
    return SharedDataset(pickle.loads(head, buffers=arrays))


def prepare_worker(number: int) -> None:
    """Initializes a worker process: it ends with the process that reads from it."""
    leave_signals_to_parent(number)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()  # torch watches the server only, which lives as long as its workers
    os._exit(1)


def batches_of(
    start: Callable[[], Iterator[Any]], workers: int, dataset: SharedDataset, title: str, patience: float
) -> Iterator[Any]:
    """Yields the batches of one pass of a loader with workers.

    Args:
        start: begins the pass; its iterator times out after `POLL` seconds without a batch.
        patience: timeout in seconds without a batch, after which the workers are stopped; 0: no timeout.

    Raises:
        DataError: the timeout passed, a worker could not be started, or the data set cannot be pickled.
    """
    start_server()
    try:
        with dataset.packed(), _script_hidden(dataset.dataset):
            batches = start()
    except (OSError, EOFError) as error:
        raise worker_killed(error) from error
    asked = time.monotonic()
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (OSError, EOFError) as error:  # the worker ended between announcing a batch and sending it
            raise worker_killed(error) from error
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise
            waited = time.monotonic() - asked
            if patience and waited > patience:
                for worker in multiprocessing.active_children():
                    worker.kill()  # otherwise the exit would wait for them
                raise DataError(
                    f"the {title} has given no batch for {waited:.0f} s: its {workers} worker(s) hang, or "
                    "the disk does; --n_workers 0 shows where, --loader_timeout sets the limit"
                ) from None
            continue
        yield batch
        asked = time.monotonic()


def worker_killed(error: Exception) -> DataError:
    """Returns the error for a worker process that has died."""
    said = str(error) or type(error).__name__
    return DataError(f"a data loading worker process was killed ({said}): most often memory ran out; lower --n_workers")


@contextmanager
def _script_hidden(dataset: Any) -> Iterator[None]:
    """Context in which started processes do not run the main script again, as multiprocessing does by default."""
    if type(dataset).__module__ == "__main__":
        yield
        return
    with mock.patch.dict(sys.modules, {"__main__": ModuleType("__main__")}):
        yield
