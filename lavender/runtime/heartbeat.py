"""Heartbeat between hosts: without it, a host that loses power would leave the others waiting for half an hour.

When a process dies, its connections close, which the others detect. When a host loses power or network, they do not
close. Therefore the first process of each host exchanges a few bytes with the run's first process every five seconds.
"""

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

from lavender.runtime import distributed
from lavender.runtime.logging import LOGGER

INTERVAL = 5.0  # seconds between two heartbeats
_BEAT, _FAREWELL = b"beat", b"farewell"


class Heartbeat:
    """One end of the connections between the hosts of a run; each connection has its own thread.

    Args:
        silence: timeout in seconds, after which the other host counts as lost.
        end: called then, with a message, in the connection's thread.
        interval: seconds between two heartbeats; also the delay of `end` after a closed connection, so that the more
            specific error of the main thread comes first.
    """

    def __init__(self, silence: float, end: Callable[[str], object], interval: float = INTERVAL):
        self.silence, self.interval, self._end = silence, interval, end
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []

    def listen(self, others: int) -> tuple[int, bytes]:
        """On the run's first process: accepts this many hosts in a thread. Returns port and authentication key."""
        key = secrets.token_bytes(32)
        listener = Listener(("", 0), authkey=key)
        port = listener.address[1]
        self._run(self._accept, listener, others)
        return port, key

    def join(self, address: str, port: int, key: bytes, rank: int) -> None:
        """On the first process of another host, with rank `rank`: connects to the run's first process."""
        self._run(self._connect, address, port, key, rank)

    def stop(self) -> None:
        """Tells the other hosts that this one leaves because its work is done."""
        self._leaving.set()
        for thread in self._threads:
            thread.join(2 * self.interval)

    def _run(self, work: Callable, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True, name="heartbeat")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: Listener, others: int) -> None:
        with listener:
            while others and not self._leaving.is_set():
                with suppress(OSError, EOFError, AuthenticationError, ValueError):  # a stranger without the key
                    connection = listener.accept()
                    self._run(self._keep, connection, int(connection.recv_bytes(16)))
                    others -= 1

    def _connect(self, address: str, port: int, key: bytes, rank: int) -> None:
        try:
            connection = Client((address, port), authkey=key)
            connection.send_bytes(str(rank).encode())
        except (OSError, EOFError, AuthenticationError) as error:
            LOGGER.warning("no connection to %s:%d (%s): a host that dies is noticed late", address, port, error)
            return
        self._keep(connection, 0)

    def _keep(self, connection: Connection, rank: int) -> None:
        """Sends heartbeats and watches those of the host of process `rank`."""
        heard = time.monotonic()
        with connection:
            try:
                while not self._leaving.is_set():
                    while connection.poll():
                        if connection.recv_bytes(16) == _FAREWELL:
                            return
                        heard = time.monotonic()
                    connection.send_bytes(_BEAT)
                    if time.monotonic() - heard > self.silence:
                        break
                    self._leaving.wait(self.interval)
                else:
                    return self._part(connection)
            except (OSError, EOFError):  # connection closed: its process has ended
                if self._leaving.wait(self.interval):
                    return
                return self._give_up(f"process {rank}, the first of its host, exited unexpectedly")
        seconds = time.monotonic() - heard
        self._give_up(f"nothing was heard from the host of process {rank} for {seconds:.0f} s: it is down or cut off")

    def _part(self, connection: Connection) -> None:
        """Sends a farewell and reads until the other end has it: closing with unread data would discard it."""
        connection.send_bytes(_FAREWELL)
        end = time.monotonic() + self.interval
        while connection.poll(max(0.0, end - time.monotonic())) and connection.recv_bytes(16) != _FAREWELL:
            pass

    def _give_up(self, message: str) -> None:
        self._end(f"stopped: {message}; to go on from what was saved: --resume auto")


@contextmanager
def watched_hosts(silence: float, end: Callable[[str], object]) -> Iterator[None]:
    """Context in which a host silent for `silence` seconds makes the others call `end`; 0: no timeout.

    Every process must enter it. It does nothing on a single host, where the launcher watches the processes.
    """
    local_ranks = distributed.gather_objects(distributed.local_rank())
    firsts = [rank for rank, local in enumerate(local_ranks) if local == 0]  # first process of each host
    if silence <= 0 or len(firsts) < 2:
        yield
        return
    heartbeat = Heartbeat(silence, end)
    port, key = distributed.broadcast_object(heartbeat.listen(len(firsts) - 1) if distributed.is_main() else None)
    if distributed.rank() in firsts[1:]:
        heartbeat.join(os.environ["MASTER_ADDR"], port, key, distributed.rank())
    LOGGER.info("%d hosts; one that is silent for %g s ends the run", len(firsts), silence)
    yield
    heartbeat.stop()
