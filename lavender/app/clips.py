"""Clips on the page: uploads, which are removed once they are decoded, and the frames that are kept for a while."""

import secrets
import shutil
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from lavender.app.decoding import Limits
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import one_line

MEGABYTE = 2**20
# Of the many names of videos those that cameras, telephones and sites give; browsers check them, too.
# fmt: off
EXTENSIONS = [
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".ogv", ".wmv", ".flv", ".3gp",
]
# fmt: on
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Clip:
    """Frames of a clip, (T, H, W, 3), uint8 RGB: as many as evaluation would have stored."""

    name: str
    frames: np.ndarray


class Uploads:
    """The folder in which the server puts uploads, each in a folder of its own.

    Nothing outside of it is ever read or removed, whatever a request names.
    """

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits = folder.resolve(), limits

    def holds(self, path: Any) -> bool:
        """Whether a path, as a request names it, is that of a file of this folder and of no other."""
        if not isinstance(path, str) or "\0" in path:
            return False
        try:
            place = Path(path)
            real = place.resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        return place.is_absolute() and self.folder in real.parents and real.is_file()

    def find(self, payload: Any) -> tuple[Path, str]:
        """The file of an upload, and what to call it.

        Args:
            payload: what the browser says of it, `{"path": …, "orig_name": …}`.

        Raises:
            DataError: it is no file of this folder, no video by its name, or too large.
        """
        path = payload.get("path") if isinstance(payload, dict) else None
        if not self.holds(path):
            raise DataError("there is no such upload: choose the file again")
        file, limit = Path(str(path)).resolve(), self.limits.upload
        name = one_line(str(payload.get("orig_name") or file.name), _LONGEST_NAME)
        if file.suffix.lower() not in EXTENSIONS:
            raise DataError(f"{name}: files of this type are not read; give a video: {', '.join(EXTENSIONS)}")
        if file.stat().st_size > limit * MEGABYTE:
            raise DataError(f"{name}: it is {file.stat().st_size / MEGABYTE:,.0f} MB; at most {limit:g} are allowed")
        return file, name

    def remove(self, payload: Any) -> None:
        """Removes an upload with the folder that it lies in; does nothing where it is none."""
        path = payload.get("path") if isinstance(payload, dict) else None
        if self.holds(path):
            file = Path(str(path)).resolve()
            with suppress(OSError):
                file.unlink()
            if file.parent != self.folder:
                shutil.rmtree(file.parent, ignore_errors=True)


class KeptClips:
    """Clips in memory under keys that nobody can guess; the oldest go when there are too many bytes.

    Args:
        megabytes: of frames, at most; the newest clip is always kept.
    """

    def __init__(self, megabytes: float = 500):
        self._most, self._clips, self._lock = megabytes * MEGABYTE, OrderedDict[str, Clip](), Lock()

    def add(self, clip: Clip) -> str:
        """Keeps a clip; returns its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._clips[key] = clip
            while len(self._clips) > 1 and sum(one.frames.nbytes for one in self._clips.values()) > self._most:
                self._clips.popitem(last=False)
        return key

    def get(self, key: str | None) -> Clip:
        """DataError where there is none of this key."""
        with self._lock:
            if key is None:
                raise DataError("choose a clip first")
            if key not in self._clips:
                raise DataError("this clip is no longer kept: choose it again")
            self._clips.move_to_end(key)
            return self._clips[key]

    def remove(self, key: str | None) -> None:
        """Forgets a clip; does nothing where there is none."""
        with self._lock:
            self._clips.pop(key or "", None)

    def __len__(self) -> int:
        return len(self._clips)
