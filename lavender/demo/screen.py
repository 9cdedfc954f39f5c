"""Screen of the demo: one line per step with progress bar, time and result; details go to log files."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavender.runtime.errors import TrainingError

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.path.relpath(sys.executable) if ".venv" in Path(sys.executable).parts else "python"  # as typed by a user
QUIET = 30.0  # seconds between lines about a step without a terminal
_WIDTH = 100  # terminal width for the scripts
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Step:
    """Current step. `result` is shown at the end of its line.

    Args:
        title: title of its line; log: file for the output of its scripts.
    """

    def __init__(self, title: str, log: Path):
        self.title, self.log, self.result = title, log, ""
        self._started = self._shown = time.monotonic()

    def run(self, script: str, *arguments: Any) -> None:
        """Runs one of the project's scripts like a user at a terminal.

        Raises:
            TrainingError: the script failed; the message contains the end of its output.
        """
        words = [script, *map(str, arguments)]
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"$ python {shlex.join(words)}\n")
            log.flush()
            code = self._follow([sys.executable, str(ROOT / words[0]), *words[1:]], log)
        if code:
            end = "".join(self.log.read_text(encoding="utf-8").splitlines(keepends=True)[-12:])
            raise TrainingError(f"{end}the demo stops here: {script} ended with exit code {code}; see {self.log}")

    def show(self, bar: str = "", end: bool = False) -> None:
        """Draws the line; without a terminal prints its end, and a line now and then."""
        seconds = time.monotonic() - self._started
        if end:
            mark = "\r\x1b[K" if sys.stdout.isatty() else ""
            print(f"{mark}{self.title:<40}{seconds:5.0f} s   {self.result}", flush=True)
        elif sys.stdout.isatty() and time.monotonic() - self._shown > 0.2:
            self._shown = time.monotonic()
            room = os.get_terminal_size().columns - 52
            print(f"\r\x1b[K{self.title:<40}{seconds:5.0f} s   {bar[: max(room, 0)]}", end="", flush=True)
        elif bar and not sys.stdout.isatty() and time.monotonic() - self._shown > QUIET:
            self._shown = time.monotonic()
            print(f"{self.title:<40}{seconds:5.0f} s … {bar[:60].rstrip()}", flush=True)

    def _follow(self, command: list[str], log: Any) -> int:
        """Runs a command in a pseudo-terminal, whose progress bars are shown here; returns its exit code."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, _WIDTH, 0, 0))
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        rest = ""
        try:
            while data := _read(ours):
                *lines, rest = (rest + data.decode(errors="replace")).split("\n")
                for line in lines:
                    log.write(_last(line.rstrip("\r")) + "\n")
                self.show(_last(rest) or (_last(lines[-1].rstrip("\r")) if lines else ""))
            log.write(_last(rest))
            return process.wait()
        finally:
            os.close(ours)
            if process.poll() is None:
                process.terminate()
                process.wait()


class Screen:
    """Numbered steps of the demo.

    Args:
        logs: folder of their log files.
    """

    def __init__(self, logs: Path):
        self.logs = logs
        self._number = 0
        logs.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """One line of the screen."""
        self._number += 1
        name = re.sub(r"\W+", "-", title.lower()).strip("-")
        step = Step(f"{self._number:2d}. {title}", self.logs / f"{self._number:02d}-{name}.log")
        step.show()
        try:
            yield step
        except BaseException:
            step.result = "stopped"
            raise
        finally:
            step.show(end=True)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the pseudo-terminal is closed
        return b""


def _last(line: str) -> str:
    """Visible part of a line with carriage returns, without colours."""
    return _COLOUR.sub("", line.rsplit("\r", 1)[-1])
