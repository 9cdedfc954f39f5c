"""SIGTERM and Ctrl-C in the middle of a step: the step is finished first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody asked this process to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def deferred_stop(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Notes SIGTERM and SIGINT, in `request`, instead of obeying them at once; a second one is obeyed.

    Outside the main thread, where signals cannot be handled, nothing is noted.
    """
    request = request or StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        request.asked = True
        signal.signal(number, before[number])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as for a run in the background of a script
            signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_parent(worker: int) -> None:
    """In a data loading process: SIGTERM and Ctrl-C, which launchers and terminals send to all processes, are the main
    one's to obey, which needs its workers to finish the step. They end with it; a second SIGTERM is obeyed. Both are
    blocked until here, see `lavender.data.workers`.
    """

    def ignore_once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore_once)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
