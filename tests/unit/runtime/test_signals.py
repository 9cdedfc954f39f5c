import ctypes
import os
import signal
import threading

import pytest

from lavender.runtime.signals import deferred_stop, leave_signals_to_parent, on_death_of_parent

PR_GET_PDEATHSIG = 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_is_noted_and_the_second_obeyed(number: int):
    obeyed = []
    before = signal.signal(number, lambda *_: obeyed.append(True))
    try:
        with deferred_stop() as request:
            assert not request.asked
            os.kill(os.getpid(), number)
            assert request.asked
            assert not obeyed
            os.kill(os.getpid(), number)
            assert obeyed == [True]
        os.kill(os.getpid(), number)
        assert obeyed == [True, True], "afterwards all is as it was"
    finally:
        signal.signal(number, before)


def test_the_death_of_a_launcher_is_one_signal():
    """The kernel sends it again as each thread of a killed parent ends; the second would end a rank in its step."""
    libc, asked_for = ctypes.CDLL(None), ctypes.c_int()
    on_death_of_parent(signal.SIGTERM)
    try:
        with deferred_stop():
            libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(asked_for))
            assert asked_for.value == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)
            libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(asked_for))
            assert asked_for.value == 0
    finally:
        on_death_of_parent(0)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_stop() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert not request.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_noted():
    asked = []

    def work() -> None:
        with deferred_stop() as request:
            asked.append(request.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]


def test_a_worker_leaves_the_first_signal_to_its_parent():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        leave_signals_to_parent(0)
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "a second one is obeyed: a worker that hangs can end"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
