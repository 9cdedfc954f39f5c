import os
import signal
import threading

import pytest

from lavender.runtime.signals import deferred_stop


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
