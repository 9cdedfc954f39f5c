"""Work on many video files in processes of their own, which a file may crash."""

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

Job = TypeVar("Job")  # what is worked on: its text is what messages call it


def in_processes(
    work: Callable[[Job], Any], jobs: Iterable[Job], workers: int
) -> Iterator[tuple[Job, Any | DataError]]:
    """Runs `work` on each file or other job in `workers` processes; yields (job, result or DataError) as they end.

    A file can crash a decoder or exhaust the memory, and then its process is killed. The files that were in work at
    that moment are tried again, each in a process of its own, so that only the file at fault gives a DataError.
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
    """Works `waiting` off until it is empty or a worker is killed; returns the jobs that were then in work."""
    running: dict[Future[Any], Job] = {}
    # Spawned, not forked: the threads and locks of this process do not reach the workers.
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
        except BaseException:  # stopped: the pool would wait for the clips in work
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise
    return list(running.values())


def _end_with_parent() -> None:
    """In a worker: ends when the main process does, however that ends; Ctrl-C is the main process's to obey."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
