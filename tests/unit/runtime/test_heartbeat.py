"""Hosts that watch each other: two ends in this process, over the loopback."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client

import pytest

from lavender.runtime import distributed, heartbeat
from lavender.runtime.heartbeat import Heartbeat, watched_hosts

SILENCE, INTERVAL = 0.6, 0.05
LONG = 30.0  # of silence, where none is meant: a busy machine may stop a thread for a second


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(said: list[str]) -> Iterator[Callable[..., Heartbeat]]:
    made = []

    def heartbeat_of(silence: float = SILENCE) -> Heartbeat:
        made.append(Heartbeat(silence, said.append, INTERVAL))
        return made[-1]

    yield heartbeat_of
    for each in made:
        each.stop()


def wait_for(said: list[str], seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while not said and time.monotonic() < end:
        time.sleep(0.01)
    assert said, "nothing was noticed"
    return said[0]


def connect(port: int, key: bytes, rank: int = 2):
    connection = Client(("127.0.0.1", port), authkey=key)
    connection.send_bytes(str(rank).encode())
    return connection


def test_nothing_is_said_while_all_live_nor_when_they_leave(make, said):
    first, *others = (make(LONG) for _ in range(3))
    port, key = first.listen(2)
    for rank, other in zip((2, 4), others, strict=True):
        other.join("127.0.0.1", port, key, rank)
    time.sleep(3 * SILENCE)
    others[0].stop()
    time.sleep(2 * SILENCE)
    first.stop()
    others[1].stop()
    time.sleep(2 * SILENCE)
    assert said == []
    assert not any(thread.is_alive() for each in (first, *others) for thread in each._threads)


def test_a_host_that_falls_silent(make, said):
    """It is connected, and says nothing: as one that is switched off, whose connections nobody closes."""
    port, key = make().listen(1)
    with connect(port, key):
        told = wait_for(said)
    assert told.startswith("stopped: nothing was heard from the host of process 2 for 1 s: it is down or cut off")
    assert told.endswith("--resume auto")


def test_the_first_host_falls_silent(make, said, monkeypatch):
    first, other = make(), make()
    monkeypatch.setattr(first, "_keep", lambda connection, rank: first._leaving.wait())
    port, key = first.listen(1)
    other.join("127.0.0.1", port, key, 1)
    assert "from the host of process 0 for" in wait_for(said)


def test_a_process_that_ends_without_a_word(make, said):
    port, key = make().listen(1)
    connect(port, key, rank=8).close()
    assert wait_for(said).startswith("stopped: process 8, the first of its host, exited unexpectedly; to go on")


def test_a_farewell_is_heard_however_busy_the_others_are(make, said):
    """Thirty leave while their signs of life are still under way; none of them "exited unexpectedly"."""
    for _ in range(30):
        first, other = make(LONG), make(LONG)
        port, key = first.listen(1)
        other.join("127.0.0.1", port, key, 1)
        other.stop()
        time.sleep(INTERVAL)
        first.stop()
    assert said == []


def test_the_fault_of_its_own_work_comes_first(make, said):
    """The end of a process is told after a while, in which the operation that it was part of fails and says why."""
    first = make()
    port, key = first.listen(1)
    connect(port, key).close()
    first.stop()
    time.sleep(3 * INTERVAL)
    assert said == []


def test_a_stranger_is_not_let_in(make, said):
    first, other = make(LONG), make(LONG)
    port, key = first.listen(1)
    with suppress(AuthenticationError, OSError, EOFError):
        connect(port, b"another key").close()
    other.join("127.0.0.1", port, key, 1)
    time.sleep(2 * SILENCE)
    assert said == []
    assert sum(thread.is_alive() for thread in first._threads) == 1  # it keeps the one that has the key


def test_no_connection_is_told_and_the_run_goes_on(make, said, caplog):
    port, key = make().listen(0)
    time.sleep(0.2)  # it does not listen any more
    make().join("127.0.0.1", port, key, 1)
    end = time.monotonic() + 60
    while not caplog.text and time.monotonic() < end:
        time.sleep(0.01)
    assert "a host that dies is noticed late" in caplog.text
    assert said == []


@pytest.mark.parametrize(("local_ranks", "silence"), [([0, 1, 2], 45.0), ([0], 45.0), ([0, 0], 0.0)])
def test_one_host_is_not_watched(monkeypatch, local_ranks: list[int], silence: float, said):
    monkeypatch.setattr(distributed, "gather_objects", lambda value: local_ranks)
    threads = threading.active_count()
    with watched_hosts(silence, said.append):
        assert threading.active_count() == threads


def test_two_hosts_are(monkeypatch, said, caplog):
    """The first process of the first host listens; another host that never comes does no harm."""
    monkeypatch.setattr(distributed, "gather_objects", lambda value: [0, 1, 0, 1])
    caplog.set_level("INFO", logger="lavender")
    with watched_hosts(45, said.append):
        assert any(thread.name == "heartbeat" for thread in threading.enumerate())
        assert "2 hosts; one that is silent for 45 s ends the run" in caplog.text


def test_signs_are_given_often_enough():
    """A host that dies is told within a minute by the default time of silence, several signs long."""
    from lavender.config.schema import Config

    assert 3 * heartbeat.INTERVAL < Config().host_timeout <= 60 - 2 * heartbeat.INTERVAL
