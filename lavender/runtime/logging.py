"""Output of a run: console, `stdout.txt` and progress bars, on the main process only."""

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
EVERY = 30.0  # seconds between progress lines
BAR_SHOWS_IT = {"bar_shows_it": True}  # `extra` of a line that is redundant on a terminal with progress bars
_FORMAT = "%(asctime)s  %(message)s"


class Pace:
    """Rate limit of progress lines: one every `EVERY` seconds, with `-v` unlimited."""

    def __init__(self, at_once: bool = True):
        self._last = -EVERY if at_once else time.monotonic()

    def due(self) -> bool:
        """Whether another line is due; if so, restarts the interval."""
        now = time.monotonic()
        if now - self._last < EVERY and not LOGGER.isEnabledFor(logging.DEBUG):
            return False
        self._last = now
        return True


class _BarFriendlyHandler(logging.Handler):
    """Log handler that writes above a running progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if not (getattr(record, "bar_shows_it", False) and has_bars()) or LOGGER.isEnabledFor(logging.DEBUG):
            tqdm.write(self.format(record), file=sys.stdout)
            sys.stdout.flush()


class _Lines(tqdm):
    """Replacement of progress bars without a terminal: occasional log lines."""

    monitor_interval = 0  # tqdm's monitor thread would request more lines

    def __init__(self, items: Iterable | None, pace: Pace | None, **options: Any):
        self._pace = pace
        layout = "{desc}: {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left"
        super().__init__(
            items, **options | {"file": io.StringIO(), "leave": False, "miniters": 1, "bar_format": layout}
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Writes a line if one is due; ignores the final empty one of tqdm."""
        if self._pace and msg is None and self.n and self._pace.due():
            LOGGER.info("%s", self)


def start_logging() -> None:
    """Sets up console output on the main process, and warnings of the others on stderr; `-v` sets the level earlier."""
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
    """Also writes every line to `path`, on the main process."""
    if distributed.is_main():
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))
        LOGGER.addHandler(handler)


def stop_logging() -> None:
    """Closes log files and resets the level."""
    LOGGER.setLevel(logging.NOTSET)
    for handler in list(LOGGER.handlers):
        handler.close()
        LOGGER.removeHandler(handler)


def has_bars() -> bool:
    """Whether progress bars are drawn: only if stderr is a terminal."""
    return sys.stderr.isatty()


def progress(items: Iterable | None = None, lines: bool = True, **options: Any) -> tqdm:
    """tqdm bar on a terminal, log lines elsewhere; silent except on the main process.

    Args:
        lines: False if the loop writes its own lines.
    """
    if distributed.is_main() and not has_bars():
        return _Lines(items, Pace(at_once=False) if lines else None, **options)
    return tqdm(items, disable=not distributed.is_main(), dynamic_ncols=True, mininterval=0.5, **options)
