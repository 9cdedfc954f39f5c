"""Video files to the few frames that are stored of them."""

import base64
import io
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavender.runtime.errors import DataError


def sample_frames(path: str | Path, count: int, threads: int = 0) -> list[np.ndarray]:
    """`count` frames of a video, evenly spread and without its ends: of N, those at ⌊N/(count+1)·(i+1)⌋.

    Only those frames are held in memory. N is the number of frames that decode; it is guessed from the number of
    packets, and where the guess was wrong the video is decoded again.

    Args:
        path: any file that FFmpeg reads; its main video stream is used.
        count: how many frames; a video of fewer frames gives some twice.
        threads: decoder threads, 0 for one a core.

    Returns:
        uint8 RGB arrays (H, W, 3)

    Raises:
        DataError: the file is missing, empty, damaged, has no video or no frame that decodes.
    """
    import av  # a machine that only trains need not have it

    try:
        wanted = _spread(_count_packets(path), count)
        frames, decoded = _decode(path, wanted, threads)
        if decoded and _spread(decoded, count) != wanted:
            wanted = _spread(decoded, count)
            frames, decoded = _decode(path, wanted, threads)
    except av.FFmpegError as error:
        raise DataError(f"{path} cannot be decoded: {error.strerror}") from None
    if not decoded:
        raise DataError(f"{path}: no frame of it decodes")
    return [frames[i] for i in wanted]


def encode_jpeg(frame: np.ndarray) -> str:
    """A uint8 RGB frame (H, W, 3) as base64 JPEG of PIL's default quality (75), as the original tool stored them."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="JPEG")
    return base64.b64encode(file.getvalue()).decode()


def extract_frames(path: str | Path, count: int, threads: int = 0) -> list[str]:
    """`sample_frames`, each encoded by `encode_jpeg`."""
    return [encode_jpeg(frame) for frame in sample_frames(path, count, threads)]


def in_processes(
    work: Callable[[Path], Any], paths: Iterable[Path], workers: int
) -> Iterator[tuple[Path, Any | DataError]]:
    """Runs `work` on each path in `workers` processes; yields path and result, or DataError, as they are done.

    A file can crash a decoder or exhaust the memory, and then its process is killed. The files that were in work at
    that moment are tried again, each in a process of its own, so that only the file at fault gives a DataError.
    """
    waiting = deque(paths)
    while waiting:
        suspects = yield from _until_killed(work, waiting, workers)
        for path in suspects:
            if (yield from _until_killed(work, deque([path]), 1)):
                yield path, DataError(f"{path}: the process that decoded it was killed (a crash, or too little memory)")


def _until_killed(
    work: Callable[[Path], Any], waiting: deque[Path], workers: int
) -> Generator[tuple[Path, Any | DataError], None, list[Path]]:
    """Works `waiting` off until it is empty or a worker is killed; returns the paths that were then in work."""
    running: dict[Future[Any], Path] = {}
    # Spawned, not forked: the threads and locks of this process do not reach the workers.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    future = pool.submit(work, waiting[0])
                    running[future] = waiting.popleft()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    try:
                        result = future.result()
                    except DataError as fault:
                        result = fault
                    yield running.pop(future), result
        except BrokenProcessPool:
            pass
    return list(running.values())


def _spread(total: int, count: int) -> list[int]:
    step = total / (count + 1)
    return [int(step * (i + 1)) for i in range(count)]


def _count_packets(path: str | Path) -> int:
    """Number of packets of the video stream, found without decoding."""
    with _opened(path) as container:
        return sum(1 for packet in container.demux(_video_stream(container, path)) if packet.size)


def _decode(path: str | Path, wanted: list[int], threads: int) -> tuple[dict[int, np.ndarray], int]:
    """The wanted frames by their number, and the number of all frames."""
    frames, decoded = {}, 0
    with _opened(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"  # threads over frames, and over slices
        stream.codec_context.thread_count = threads
        for frame in container.decode(stream):  # to the end of the file and through the frames the decoder still holds
            if decoded in wanted:
                frames[decoded] = frame.to_ndarray(format="rgb24")
            decoded += 1
    return frames, decoded


def _opened(path: str | Path) -> Any:
    import av

    return av.open(str(path), metadata_errors="ignore")  # titles in old encodings are no reason to lose a clip


def _video_stream(container: Any, path: str | Path) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise DataError(f"{path} has no video stream")
    if stream.codec_context is None:
        raise DataError(f"{path}: FFmpeg has no decoder for its video stream")
    return stream
