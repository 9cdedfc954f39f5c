"""SIGTERM and Ctrl-C in the middle of a step: the step is finished first."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PR_SET_PDEATHSIG = 1


def on_death_of_parent(number: int) -> None:
    """Has the kernel send this process a signal when its parent dies; 0 for none. To be called in the main thread."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


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
        on_death_of_parent(0)  # a parent of several threads would send it again, as each of them ends
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
