"""What a run says: the console, `stdout.txt`, and progress bars, all on the first process only."""

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lavender.runtime import distributed

LOGGER = logging.getLogger("lavender")
_FORMAT = "%(asctime)s  %(message)s"


class _BarFriendlyHandler(logging.Handler):
    """Writes lines above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def start_logging() -> None:
    """Console lines on the first process, warnings of the others on their stderr."""
    LOGGER.propagate = False
    LOGGER.handlers.clear()
    handler: logging.Handler
    if distributed.is_main():
        handler = _BarFriendlyHandler()
        handler.setFormatter(logging.Formatter(_FORMAT, "%H:%M:%S"))
        LOGGER.setLevel(logging.INFO)
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
    """Closes the files."""
    for handler in list(LOGGER.handlers):
        handler.close()
        LOGGER.removeHandler(handler)


def progress(items: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar, silent on all processes but the first."""
    return tqdm(items, disable=not distributed.is_main(), dynamic_ncols=True, mininterval=0.5, **options)
