"""Decoding of clips in a separate process (see `decoder.py`), which a bad file may crash or block."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavender.runtime.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
_COMMAND = [sys.executable, "-P", "-m", "lavender.app.decoder"]


@dataclass(frozen=True)
class Limits:
    """Limits of the page.

    Args:
        upload: megabytes of a file. seconds: length of a clip. pixels: pixels of a frame. frames: frames of a clip.
        wait: seconds of decoding. memory: megabytes of the decoder process.
    """

    upload: float = 100
    seconds: float = 300
    pixels: int = 4096 * 2304
    frames: int = 36_000
    wait: float = 60
    memory: int = 1000


class Decoder:
    """Decodes clips, one request at a time, each in a new process. The next process is started in advance.

    A process receives paths and returns numbers and text, no pickles.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self._lock = threading.Lock()
        self._ready: subprocess.Popen | None = None

    def prepare(self) -> None:
        """Starts the next process in advance."""
        if self._ready is None or self._ready.poll() is not None:
            self._ready = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # messages of FFmpeg and crashes; faults of clips are in the answer
                env=_environment(),
            )

    def close(self) -> None:
        """Ends the waiting process."""
        process, self._ready = self._ready, None
        if process is not None:
            _end(process)

    def frames(self, path: Path, count: int, name: str | None = None) -> np.ndarray:
        """`count` evenly spread frames of a clip, (count, H, W, 3), uint8 RGB.

        Args:
            name: its name in messages, instead of its path.

        Raises:
            DataError: it is not a video, exceeds the limits, or its decoding crashed or timed out.
        """
        (found,) = self.each([path], count)
        if isinstance(found, DataError):
            raise DataError(str(found).replace(str(path), name)) if name else found
        return found

    def each(self, paths: Sequence[Path], count: int) -> list[np.ndarray | DataError]:
        """Like `frames`, for several clips; unreadable clips give a DataError instead of frames."""
        found: list[np.ndarray | DataError] = []
        while len(found) < len(paths):
            rest = paths[len(found) :]
            answers, late = self._ask(rest, count)
            found += answers[: len(rest)]
            if len(answers) < len(rest):  # the process crashed at this clip: a new one gets the rest
                reason = (
                    f"decoding took longer than {self.limits.wait:g} seconds and was stopped"
                    if late
                    else "decoding failed: the file is damaged, or needs too much memory"
                )
                found.append(DataError(f"{rest[len(answers)]}: {reason}"))
        return found

    def _ask(self, paths: Sequence[Path], count: int) -> tuple[list[np.ndarray | DataError], bool]:
        """Answers of one process, which may be incomplete, and whether it timed out."""
        limits = self.limits
        clip = {"max_pixels": limits.pixels, "max_frames": limits.frames, "max_seconds": limits.seconds}
        facts = {"megabytes": limits.memory, "wait": limits.wait, "clip": clip}
        request = {"files": [str(path.absolute()) for path in paths], "count": count, "limits": facts}
        with self._lock:
            self.prepare()
            process, self._ready = self._ready, None
            assert process is not None
            late = False
            try:
                output, _ = process.communicate(json.dumps(request).encode() + b"\n", timeout=limits.wait)
            except subprocess.TimeoutExpired as fault:
                output, late = fault.stdout or b"", True
            finally:
                _end(process)
            self.prepare()
        return _answers(output), late


def _environment() -> dict[str, str]:
    """Environment of the process: few threads, to save memory, and no secrets of this process."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL") if name in os.environ}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    found = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, **threads, "PYTHONPATH": found}


def _end(process: subprocess.Popen) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()
    process.wait()


def _answers(output: bytes) -> list[np.ndarray | DataError]:
    """Complete answers in the output. The process may be compromised, so the format is checked strictly."""
    found: list[np.ndarray | DataError] = []
    at = 0
    while (end := output.find(b"\n", at)) >= 0:
        try:
            header: dict[str, Any] = json.loads(output[at:end])
            at = end + 1
            if "fault" in header:
                found.append(DataError(str(header["fault"])))
                continue
            count, height, width, _ = shape = tuple(map(int, header["shape"]))
            size = count * height * width * 3
            if min(shape) < 1 or len(output) < at + size:
                break
            found.append(np.frombuffer(output, np.uint8, size, at).reshape(count, height, width, 3))
            at += size
        except (ValueError, TypeError, LookupError):
            break
    return found
