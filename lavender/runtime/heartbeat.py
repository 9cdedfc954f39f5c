"""Hosts of a run watch each other: one that is switched off would leave the others waiting for half an hour.

When a process dies, its connections close, and the others notice. When a host loses power or network, they do not: the
first process of each host exchanges a few bytes with the first process of the run every five seconds.
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

INTERVAL = 5.0  # seconds between two signs of life
_BEAT, _FAREWELL = b"beat", b"farewell"


class Heartbeat:
    """One end of the connections between the hosts of a run; each is kept by a thread of its own.

    Args:
        silence: seconds without a sign of life after which the other host is given up.
        end: called then, with a message, in that thread.
        interval: seconds between two signs; also how long a process that was cut off waits before it calls `end`, so
            that the error of its own work, which says more, comes first.
    """

    def __init__(self, silence: float, end: Callable[[str], object], interval: float = INTERVAL):
        self.silence, self.interval, self._end = silence, interval, end
        self._leaving = threading.Event()
        self._threads: list[threading.Thread] = []

    def listen(self, others: int) -> tuple[int, bytes]:
        """On the run's first process: waits, in a thread, for so many hosts. Returns its port, and the key to it."""
        key = secrets.token_bytes(32)
        listener = Listener(("", 0), authkey=key)
        port = listener.address[1]
        self._run(self._accept, listener, others)
        return port, key

    def join(self, address: str, port: int, key: bytes, rank: int) -> None:
        """On the first process of another host, `rank` of the run: connects to the run's first process."""
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
                with suppress(OSError, EOFError, AuthenticationError, ValueError):  # a stranger, who has not the key
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
        """Gives signs of life and looks for those of the host of process `rank`."""
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
            except (OSError, EOFError):  # closed: its process has ended
                if self._leaving.wait(self.interval):
                    return
                return self._give_up(f"process {rank}, the first of its host, exited unexpectedly")
        seconds = time.monotonic() - heard
        self._give_up(f"nothing was heard from the host of process {rank} for {seconds:.0f} s: it is down or cut off")

    def _part(self, connection: Connection) -> None:
        """Says farewell, and reads on until the other end has it: closing over unread signs would cut it off."""
        connection.send_bytes(_FAREWELL)
        end = time.monotonic() + self.interval
        while connection.poll(max(0.0, end - time.monotonic())) and connection.recv_bytes(16) != _FAREWELL:
            pass

    def _give_up(self, message: str) -> None:
        self._end(f"stopped: {message}; to go on from what was saved: --resume auto")


@contextmanager
def watched_hosts(silence: float, end: Callable[[str], object]) -> Iterator[None]:
    """While it lasts, a host that is not heard of for `silence` seconds calls `end` on the others; 0 waits for ever.

    Every process must enter it. It does nothing where all are on one host, whose launcher sees them.
    """
    local_ranks = distributed.gather_objects(distributed.local_rank())
    firsts = [rank for rank, local in enumerate(local_ranks) if local == 0]  # of each host
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
