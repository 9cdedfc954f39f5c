"""Deferred handling of SIGTERM and Ctrl-C: the current step is finished first."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PR_SET_PDEATHSIG = 1


def on_death_of_parent(number: int) -> None:
    """Makes the kernel send this process a signal when its parent dies; 0: none. Call it in the main thread."""
    with suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


class StopRequest:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def deferred_stop(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Context that records SIGTERM and SIGINT in `request` instead of acting on them; a second one acts.

    Outside the main thread signals cannot be handled, so it does nothing.
    """
    request = request or StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:
        request.asked = True
        on_death_of_parent(0)  # a parent with several threads would send it once per thread
        signal.signal(number, before[number])

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # ignored e.g. for a background job of a script
            signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_signals_to_parent(worker: int) -> None:
    """Worker initializer: leaves SIGTERM and Ctrl-C to the main process.

    Launchers and terminals send them to all processes, but the main process needs its workers to finish the step. The
    workers end with it; a second SIGTERM ends them. Both signals are blocked until here, see `lavender.data.workers`.
    """

    def ignore_once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore_once)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
