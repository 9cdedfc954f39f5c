"""Report of why a process ends: one line, even if several processes end for the same reason.

torchrun (and torch.distributed.launch) ends with a report of its own, whose root cause is the failure with the earliest
time. Each of its processes may leave a message for that report in a file.
"""

import hashlib
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

from lavender.runtime.errors import LavenderError
from lavender.runtime.launchers import find_launch

_LATER = 5  # seconds added to a consequence's time, so that its cause stays the earliest


def report_end(message: str, consequence: bool = False) -> None:
    """Prints why this process ends, unless another process on this host has already done so; informs torchrun.

    Args:
        consequence: another process failed first, which ends this one, too.
    """
    place = _shared_folder()
    first = None
    if place is not None:
        first = _failed_before(place) if consequence else _reported_before(place, message)
    if first is None:
        message = f"{message}{_process()}"
        print(message, file=sys.stderr, flush=True)
    else:
        message = f"as process {first} of this host: {message}" if not consequence else message
    _report(message, late=consequence or first is not None)


def _process() -> str:
    """Suffix of a line that identifies this process among several."""
    try:
        launch = find_launch(os.environ)
    except LavenderError:  # the launcher's variables themselves are faulty
        return ""
    return f" [process {launch.rank}]" if launch and launch.world_size > 1 else ""


def _shared_folder() -> Path | None:
    """Folder that torchrun gives to its processes on this host; None without torchrun."""
    file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    known = file.parent.name == os.environ.get("LOCAL_RANK") and re.fullmatch(r"attempt_\d+", file.parents[1].name)
    return file.parents[1] if known else None


def _reported_before(place: Path, message: str) -> str | None:
    """Local rank of the process that has reported the same message; None if this is the first."""
    note = place / f".said-{hashlib.sha256(message.encode(errors='replace')).hexdigest()[:16]}"
    try:
        with open(note, "x", encoding="utf-8") as file:
            file.write(os.environ["LOCAL_RANK"])
    except FileExistsError:
        with suppress(OSError):
            return note.read_text(encoding="utf-8") or "0"
    except OSError:  # then the message is repeated
        pass
    return None


def _failed_before(place: Path) -> str | None:
    """A process on this host that has reported a failure."""
    own = os.environ["LOCAL_RANK"]
    return next((file.parent.name for file in sorted(place.glob("*/error.json")) if file.parent.name != own), None)


def _report(message: str, late: bool) -> None:
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": message, "extraInfo": {"timestamp": str(int(time.time()) + _LATER * late)}}}
        with suppress(OSError):
            Path(path).write_text(json.dumps(content), encoding="utf-8")
