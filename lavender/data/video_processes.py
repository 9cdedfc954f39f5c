"""Work on many video files in separate processes, which a bad file may crash."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from lavender.runtime.errors import DataError

Job = TypeVar("Job")  # input of the work; its text is its name in messages


def in_processes(
    work: Callable[[Job], Any], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Any | DataError]]:
    """Runs `work` on each file or other job in `workers` processes; yields (job, result or DataError) when done.

    A file can crash a decoder or exhaust the memory, and then its process is killed. The files in work at that moment
    are tried again, each in its own process, so that only the faulty file gives a DataError.
    """
    waiting = deque(jobs)
    while waiting:
        suspects = yield from _until_killed(work, waiting, workers)
        for job in suspects:
            if (yield from _until_killed(work, deque([job]), 1)):
                yield job, DataError(f"{job}: the process that decoded it was killed (a crash, or too little memory)")


def _until_killed(
    work: Callable[[Job], Any], waiting: deque[Job], workers: int
) -> Generator[tuple[Job, Any | DataError], None, list[Job]]:
    """Works through `waiting` until it is empty or a worker is killed; returns the jobs that were in work then."""
    running: dict[Future[Any], Job] = {}
    # Spawned, not forked: workers must not inherit threads and locks of this process.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    future = pool.submit(work, waiting[0])
                    running[future] = waiting.popleft()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        result = future.result()
                    except DataError as fault:
                        result = fault
                    yield running.pop(future), result
        except BrokenProcessPool:
            pass
        except BaseException:  # on a stop, the pool would wait for the clips in work
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return list(running.values())


def _end_with_parent() -> None:
    """Worker initializer: ends the worker with the main process, which alone handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
