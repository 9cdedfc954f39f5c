"""Work on many video files in processes of their own, which a file may crash."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from lavender.runtime.errors import DataError


def in_processes(
    work: Callable[[Path], Any], paths: Iterable[Path], workers: int
) -> Iterator[tuple[Path, Any | DataError]]:
    """Runs `work` on each path in `workers` processes; yields (path, result or DataError) in order of completion.

    A file can crash a decoder or exhaust the memory, and then its process is killed. The files that were in work at
    that moment are tried again, each in a process of its own, so that only the file at fault gives a DataError.
    """
    waiting = deque(paths)
    while waiting:
        suspects = yield from _until_killed(work, waiting, workers)
        for path in suspects:
            if (yield from _until_killed(work, deque([path]), 1)):
                yield path, DataError(f"{path}: the process that decoded it was killed (a crash, or too little memory)")


def _until_killed(
    work: Callable[[Path], Any], waiting: deque[Path], workers: int
) -> Generator[tuple[Path, Any | DataError], None, list[Path]]:
    """Works `waiting` off until it is empty or a worker is killed; returns the paths that were then in work."""
    running: dict[Future[Any], Path] = {}
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
