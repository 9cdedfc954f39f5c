"""Clips of the page: uploads, which are removed after decoding, and their frames, kept in memory for a while."""

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
# Video extensions used by cameras, phones and websites; browsers check them, too.
# fmt: off
EXTENSIONS = [
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".ogv", ".wmv", ".flv", ".3gp",
]
# fmt: on
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Clip:
    """Frames of a clip, (T, H, W, 3), uint8 RGB, as many as evaluation would store."""

    name: str
    frames: np.ndarray


class Uploads:
    """Folder into which the server puts uploads, each in its own subfolder.

    Nothing outside of it is ever read or removed, whatever path a request contains.
    """

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits = folder.resolve(), limits

    def holds(self, path: Any) -> bool:
        """Whether a path from a request is a file in this folder."""
        if not isinstance(path, str) or "\0" in path:
            return False
        try:
            place = Path(path)
            real = place.resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        return place.is_absolute() and self.folder in real.parents and real.is_file()

    def find(self, payload: Any) -> tuple[Path, str]:
        """Returns the file of an upload and its name for messages.

        Args:
            payload: data from the browser, `{"path": …, "orig_name": …}`.

        Raises:
            DataError: it is not a file in this folder, not a video by its name, or too large.
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
        """Removes an upload with its subfolder, if it is one."""
        path = payload.get("path") if isinstance(payload, dict) else None
        if self.holds(path):
            file = Path(str(path)).resolve()
            with suppress(OSError):
                file.unlink()
            if file.parent != self.folder:
                shutil.rmtree(file.parent, ignore_errors=True)


class ClipCache:
    """Clips in memory under unguessable keys; the oldest are removed when there are too many bytes.

    Args:
        megabytes: maximum total size of frames; the newest clip is always kept.
    """

    def __init__(self, megabytes: float = 500):
        self._most, self._clips, self._lock = megabytes * MEGABYTE, OrderedDict[str, Clip](), Lock()

    def add(self, clip: Clip) -> str:
        """Stores a clip; returns its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._clips[key] = clip
            while len(self._clips) > 1 and sum(one.frames.nbytes for one in self._clips.values()) > self._most:
                self._clips.popitem(last=False)
        return key

    def get(self, key: str | None) -> Clip:
        """Clip of a key. DataError if there is none."""
        with self._lock:
            if key is None:
                raise DataError("choose a clip first")
            if key not in self._clips:
                raise DataError("this clip is no longer kept: choose it again")
            self._clips.move_to_end(key)
            return self._clips[key]

    def remove(self, key: str | None) -> None:
        """Removes a clip, if it exists."""
        with self._lock:
            self._clips.pop(key or "", None)

    def __len__(self) -> int:
        return len(self._clips)
