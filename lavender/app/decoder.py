"""Decoder process of the page: reads one request from standard input, answers it, and exits.

    python -m lavender.app.decoder

A damaged or hostile file can crash a decoder, or exhaust memory or time. This affects only this process, which has no
model, sees only the clips of one request, cannot write files, and has memory and time limits.
"""

import json
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lavender.data.video import survey_packets
from lavender.data.video_seek import read_frames
from lavender.runtime.errors import DataError

MEGABYTE = 2**20


def main() -> None:
    """Answers a request: per file one line of JSON, and the frames as bytes (uint8 RGB) behind it.

    The line is `{"shape": [T, H, W, 3]}`, or `{"fault": "reason"}` without frames.
    """
    import av  # noqa: F401 (loads its libraries before memory is limited)

    request = json.loads(sys.stdin.buffer.readline() or "null")
    if request is None:  # the server has ended
        return
    limits = request["limits"]
    _limit(limits["megabytes"], limits["wait"])
    for file in request["files"]:
        try:
            frames = clip_frames(Path(file), request["count"], **limits["clip"])
        except DataError as fault:
            _send(sys.stdout.buffer, {"fault": str(fault)})
        except MemoryError:
            _send(sys.stdout.buffer, {"fault": f"{file}: decoding it needs more memory than {limits['megabytes']} MB"})
        else:
            _send(sys.stdout.buffer, {"shape": frames.shape}, frames)


def clip_frames(path: Path, count: int, max_pixels: int, max_frames: int, max_seconds: float) -> np.ndarray:
    """Decodes `count` evenly spread frames of a video: (count, H, W, 3), uint8 RGB.

    Raises:
        DataError: it is not a video, cannot be decoded, or is larger or longer than allowed.
    """
    survey = _survey(path, max_pixels)
    times = [time for time in survey.times if time is not None]
    if len(survey.times) > max_frames:
        raise DataError(f"{path}: it has {len(survey.times):,} frames; at most {max_frames:,} are allowed")
    seconds = max(times) - min(times) if times else 0
    if seconds > max_seconds:
        raise DataError(f"{path}: it is {seconds:,.0f} seconds long; at most {max_seconds:,g} are allowed")
    frames = read_frames(path, count, range(count), max_pixels)
    if len({frame.shape for frame in frames}) > 1:
        raise DataError(f"{path}: its frames differ in size")
    return np.stack(frames)


def _survey(path: Path, max_pixels: int) -> Any:
    """Survey of the packets; if they cannot be read, decoding reports the fault."""
    import av

    try:
        return survey_packets(path, max_pixels)
    except (av.FFmpegError, OSError):
        read_frames(path, 1, [0], max_pixels)
        raise DataError(f"{path} cannot be decoded") from None


def _limit(megabytes: int, seconds: float) -> None:
    """Limits this process: total memory and CPU seconds; no file writes, no core dumps."""
    for kind, most in (
        (resource.RLIMIT_AS, megabytes * MEGABYTE),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _send(output: BinaryIO, header: dict[str, Any], frames: np.ndarray | None = None) -> None:
    output.write(json.dumps(header).encode() + b"\n")
    if frames is not None:
        output.write(np.ascontiguousarray(frames).data)
    output.flush()


if __name__ == "__main__":
    main()
