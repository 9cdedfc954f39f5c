"""Videos of all samples: which have equal content, and the results of decoding them."""

import pickle
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lavender.check.splits import MISSING, Split
from lavender.data.sources.base import FrameSource
from lavender.data.video_processes import in_processes
from lavender.runtime.errors import DataError
from lavender.runtime.logging import progress

_CHUNK = 16  # videos per job of a process


class Video(NamedTuple):
    """Video of a source: (number of the source in `Videos`, number in the source)."""

    source: int
    number: int


@dataclass(frozen=True)
class Decoded:
    """Result of decoding a video: number of frames, their smallest side, or the fault."""

    frames: int = 0
    side: int = 0
    fault: str = ""


class Videos:
    """Distinct videos of all splits.

    Args:
        splits: splits of a configuration.
    """

    def __init__(self, splits: Sequence[Split]):
        self.sources: list[FrameSource] = []
        self.of: list[list[Video | None]] = []  # for each split, the video of each sample
        places: dict[tuple[type, str], int] = {}  # splits or tasks may share a file
        for split in splits:
            numbers = []
            for source in split.sources:
                key = (type(source), str(source.path))
                if key not in places:
                    places[key] = len(self.sources)
                    self.sources.append(source)
                numbers.append(places[key])
            self.of.append(
                [
                    None if source == MISSING else Video(numbers[source], number)
                    for source, number in split.places.tolist()
                ]
            )
        self.all = list(dict.fromkeys(video for videos in self.of for video in videos if video))
        self.names = [str(source.path) for source in self.sources]

    def alike(self) -> dict[Video, bytes]:
        """Video → fingerprint of its content; unreadable videos are left out."""
        marks = {}
        for video in progress(self.all, desc="comparing videos", unit="video"):
            try:
                marks[video] = self.sources[video.source].fingerprint(video.number)
            except DataError:
                continue
        return marks

    def where(self, video: Video) -> str:
        """Id and location of a video."""
        source = self.sources[video.source]
        try:
            return f"{source.video_id(video.number)} ({source.where(video.number)})"
        except DataError as fault:
            return str(fault)

    def decode(self, limit: int, workers: int) -> dict[Video, Decoded]:
        """Decodes `limit` videos, evenly spread over all of them; 0: all."""
        chosen = self.all
        if limit and limit < len(chosen):
            chosen = [chosen[int(place)] for place in np.linspace(0, len(chosen) - 1, limit)]
        by_source: dict[int, list[int]] = defaultdict(list)
        for video in chosen:
            by_source[video.source].append(video.number)
        found: dict[Video, Decoded] = {}
        results = self._results(by_source, workers)
        for source, number, decoded in progress(results, desc="decoding", unit="video", total=len(chosen)):
            found[Video(source, number)] = decoded
        return found

    def _results(self, by_source: dict[int, list[int]], workers: int) -> Iterator[tuple[int, int, Decoded]]:
        with tempfile.TemporaryDirectory() as folder:
            yield from self._stored_results(Path(folder), by_source, workers)

    def _stored_results(
        self, folder: Path, by_source: dict[int, list[int]], workers: int
    ) -> Iterator[tuple[int, int, Decoded]]:
        for place, numbers in by_source.items():
            # The ids of a large source are too much data to send with each job.
            stored = folder / str(place)
            stored.write_bytes(pickle.dumps(self.sources[place]))
            work = partial(_decode, stored)
            jobs = [_Job(self.names[place], numbers[at : at + _CHUNK]) for at in range(0, len(numbers), _CHUNK)]
            for chunk, results in _work_off(work, jobs, workers):
                yield from ((place, number, one) for number, one in zip(chunk, results, strict=True))


class _Job(NamedTuple):
    """Some videos of a source."""

    name: str
    numbers: list[int]

    def __str__(self) -> str:
        return f"{self.name}, video {self.numbers[0]} (counted from 0)"


def _work_off(work: Any, jobs: Iterable[_Job], workers: int) -> Iterator[tuple[list[int], list[Decoded]]]:
    """Yields the results of jobs; a job whose process was killed is repeated, one video at a time."""
    again = []
    for job, results in in_processes(work, jobs, workers):
        if isinstance(results, DataError):
            again += [_Job(job.name, [number]) for number in job.numbers]
        else:
            yield job.numbers, results
    for job, results in in_processes(work, again, 1) if again else ():
        yield job.numbers, [Decoded(fault=str(results))] if isinstance(results, DataError) else results


def _decode(stored: Path, job: _Job) -> list[Decoded]:
    source = _open(stored)
    return [_decode_one(source, number) for number in job.numbers]


@lru_cache(maxsize=1)
def _open(stored: Path) -> FrameSource:
    return pickle.loads(stored.read_bytes())


def _decode_one(source: FrameSource, number: int) -> Decoded:
    try:
        video = source.video(number)
        frames = video.frames(range(len(video)))
    except DataError as fault:
        return Decoded(fault=str(fault))
    return Decoded(len(frames), min(min(frame.shape[:2]) for frame in frames))
