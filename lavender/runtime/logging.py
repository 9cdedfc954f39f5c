"""What a run says: the console, `stdout.txt`, and progress bars, all on the first process only."""

import io
import logging
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lavender.runtime import distributed

LOGGER = logging.getLogger("lavender")
EVERY = 30.0  # seconds from one line of progress to the next
BAR_SHOWS_IT = {"bar_shows_it": True}  # `extra` of a line that a terminal, which has bars, need not have
_FORMAT = "%(asctime)s  %(message)s"


class Pace:
    """Says when a line of progress is due: every `EVERY` seconds, and with `-v` always."""

    def __init__(self, at_once: bool = True):
        self._last = -EVERY if at_once else time.monotonic()

    def due(self) -> bool:
        """Whether it is time for another line; the next one is then counted from here."""
        now = time.monotonic()
        if now - self._last < EVERY and not LOGGER.isEnabledFor(logging.DEBUG):
            return False
        self._last = now
        return True


class _BarFriendlyHandler(logging.Handler):
    """Writes lines above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        if not (getattr(record, "bar_shows_it", False) and has_bars()) or LOGGER.isEnabledFor(logging.DEBUG):
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()


class _Lines(tqdm):
    """Where there is no terminal: now and then a line of the log in place of a bar."""

    monitor_interval = 0  # tqdm's own thread would ask for more lines

    def __init__(self, items: Iterable | None, pace: Pace | None, **options: Any):
        self._pace = pace
        layout = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left"
        super().__init__(
            items, **options | {"file": io.StringIO(), "leave": False, "miniters": 1, "bar_format": layout}
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """A line, where one is due; the emptied one that tqdm ends with is none."""
        if self._pace and msg is None and self.n and self._pace.due():
            LOGGER.info("%s", self)


def start_logging() -> None:
    """Console lines on the first process, warnings of the others on their stderr; `-v` has set the level before."""
    LOGGER.propagate = False
    LOGGER.handlers.clear()
    handler: logging.Handler
    if distributed.is_main():
        handler = _BarFriendlyHandler()
        handler.setFormatter(logging.Formatter(_FORMAT, "%H:%M:%S"))
        LOGGER.setLevel(min(LOGGER.level or logging.INFO, logging.INFO))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"rank {distributed.rank()}: %(message)s"))
        LOGGER.setLevel(logging.WARNING)
    LOGGER.addHandler(handler)


def log_to_file(path: Path) -> None:
    """Every line also to `path`, on the first process."""
    if distributed.is_main():
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
        LOGGER.addHandler(handler)


def stop_logging() -> None:
    """Closes the files; the next run says for itself whether it is `-v`."""
    LOGGER.setLevel(logging.NOTSET)
    for handler in list(LOGGER.handlers):
        handler.close()
        LOGGER.removeHandler(handler)


def has_bars() -> bool:
    """Whether bars are drawn: they go to stderr, and only a terminal can draw them."""
    return sys.stderr.isatty()


def progress(items: Iterable | None = None, lines: bool = True, **options: Any) -> tqdm:
    """A tqdm bar on a terminal, lines of the log elsewhere; silent on all processes but the first.

    Args:
        lines: False where what goes round writes lines of its own.
    """
    if distributed.is_main() and not has_bars():
        return _Lines(items, Pace(at_once=False) if lines else None, **options)
    return tqdm(items, disable=not distributed.is_main(), dynamic_ncols=True, mininterval=0.5, **options)
