"""Shared code of all tools. Its import puts the repository's root on sys.path, so that tools run from any folder."""

import argparse
import logging
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def run(main: Callable[[], int | None]) -> None:
    """Runs a tool and exits with its code; an error that the user can fix gives one line on stderr and code 2.

    SIGTERM, SIGHUP and Ctrl-C stop it with code 128 + signal number; unfinished files are removed.
    """
    from lavender.runtime.errors import LavenderError

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored e.g. under nohup
            signal.signal(number, _stop)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        code = main()
    except (LavenderError, OSError) as fault:
        words = str(fault)
        if isinstance(fault, OSError) and fault.filename and fault.strerror:
            words = f"{fault.filename}: {fault.strerror}"
        print(words, file=sys.stderr)
        code = 2
    sys.exit(code)


def whole(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """Returns an argparse type: integers between two bounds."""

    def parse(text: str) -> int:
        if len(text) < 20 and re.fullmatch(r"[+-]?\d+", text.strip()) and minimum <= int(text) <= maximum:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number between {minimum} and {maximum:,}")

    return parse


def named(text: str) -> Path:
    """An argparse type: a path that ends with a name, from which other file names are made."""
    path = Path(text)
    if not path.name or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a valid name of a file or a data set")
    return path


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the removal of unfinished files
    sys.exit(128 + number)
