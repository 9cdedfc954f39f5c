"""Extraction of frames into a frame TSV, by many processes, with continuation after a stop."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from lavender.data.index import write_id2lineidx
from lavender.data.tsv import TSVReader, TSVWriter
from lavender.data.video_processes import in_processes
from lavender.prepare.clips import Clip, Clips
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, lock_file
from lavender.runtime.quoting import one_line


def write_frames(clips: Clips, used: list[str], path: Path, count: int, workers: int, **options: Any) -> list[str]:
    """Writes the frame TSV of the clips in `used`, its lineidx and its id index; returns the ids in it.

    Clips that it already held and that still exist stay in it.

    Frames extracted earlier with the same options from unchanged files are reused: those of a stopped command, in
    `<path>.part`, and those of a finished TSV, whose options are in `<path>.made`. Clips that cannot be decoded are
    listed on stderr and in `clips.faults`.

    Args:
        count: frames per video file; an image folder keeps all of its images.

    Raises:
        DataError: no clip can be decoded, or another process is writing the same file.
    """
    facts = {"count": count, **options}
    stamps = {name: clips[name].stamp() for name in used}
    made = _FinishedTSV(path, facts)
    with _PartialTSV(path, facts) as part:
        known = {name for name in used if stamps[name] in (made.stamps.get(name), part.stamps.get(name))}
        waiting = [name for name in used if name not in known]
        if known:
            print(f"{path}: {len(known):,} clips were extracted before, {len(waiting):,} are left", file=sys.stderr)
        bar = tqdm(total=len(waiting), unit="clip", ascii=True, disable=not waiting)
        jobs = (_Job(name, clips[name]) for name in waiting)
        work = partial(_extract, count=count, options=options)
        for job, frames in in_processes(work, jobs, max(1, min(workers, len(waiting)))):
            bar.update()
            if isinstance(frames, DataError):
                clips.faults[job.name] = str(frames)
                bar.write(f"skipped: {frames}", file=sys.stderr)
            else:
                part.add(job.name, stamps[job.name], frames)
        bar.close()
        held = [name for name in used if name not in clips.faults]
        if not held:
            raise DataError(f"{clips.path}: none of its {len(used)} clips can be decoded")
        # Clips of an earlier command with other tables, whose text files may still name them.
        others = [name for name in made.stamps if name not in stamps and name in clips]
        stamps |= {name: made.stamps[name] for name in others}
        held += others
        if any(made.stamps.get(name) != stamps[name] for name in held) or len(made.stamps) > len(held):
            with TSVWriter(path) as writer:
                for name in held:
                    stored = part.frames(name) if part.stamps.get(name) == stamps[name] else made.frames(name)
                    writer.write([name, *stored])
            write_id2lineidx(path, path.with_suffix(".id2lineidx.pkl"))
            made.write({name: stamps[name] for name in held})
        part.path.unlink()  # all its rows are in the TSV now
    return held


class _Job(NamedTuple):
    """Clip to be extracted."""

    name: str
    clip: Clip

    def __str__(self) -> str:
        return str(self.clip)


def _extract(job: _Job, count: int, options: dict[str, Any]) -> list[str]:
    return job.clip.stored(count, **options)


class _FinishedTSV:
    """Contents of a finished TSV; empty if it is missing or was made with other options.

    `stamps` is id → stamp of the clip, in row order.
    """

    def __init__(self, tsv: Path, facts: dict[str, Any]):
        self._tsv, self._facts = tsv, facts
        self._path = tsv.with_name(f"{tsv.name}.made")
        self.stamps: dict[str, str] = {}
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["options"] == facts and content["bytes"] == tsv.stat().st_size:
                self.stamps = dict(content["clips"])
        except (OSError, ValueError, LookupError, TypeError):
            return
        self._reader = TSVReader(tsv)
        self._rows = {name: row for row, name in enumerate(self.stamps)}

    def frames(self, name: str) -> list[str]:
        """Frames of a clip."""
        return self._reader.row(self._rows[name])[1:]

    def write(self, stamps: dict[str, str]) -> None:
        """Records how the TSV was made."""
        content = {"options": self._facts, "bytes": self._tsv.stat().st_size, "clips": stamps}
        with atomic_file(self._path) as file:
            file.write(json.dumps(content, ensure_ascii=False).encode())


class _PartialTSV:
    """Rows extracted so far: `<path>.part`. Its first line has the options, a row has id, stamp and frames."""

    def __init__(self, tsv: Path, facts: dict[str, Any]):
        self.path = tsv.with_name(f"{tsv.name}.part")
        self._head = json.dumps(facts, sort_keys=True).encode() + b"\n"
        self.stamps: dict[str, str] = {}
        self._places: dict[str, tuple[int, int]] = {}  # id → start and length of its row
        self._file: BinaryIO

    def __enter__(self) -> "_PartialTSV":
        self._file = self.path.open("a+b")
        try:
            self._load_rows()
        except BaseException:
            self._file.close()
            raise
        return self

    def _load_rows(self) -> None:
        lock_file(self._file, self.path, DataError)
        self._file.seek(0)
        if (head := self._file.readline()) != self._head:
            if len(head) < (rest := self.path.stat().st_size):
                options = one_line(head.decode(errors="replace").strip())
                raise DataError(
                    f"{self.path}: {rest:,} bytes of frames were extracted with other options, {options}; give these "
                    "again, or delete the file"
                )
            self._file.truncate(0)
            self._file.write(self._head)
            self._file.flush()
        end = len(self._head)
        self._file.seek(end)
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):  # stopped in the middle of a row
                break
            name, mark = line.split(b"\t", 2)[:2]
            self.stamps[name.decode()] = mark.decode()
            self._places[name.decode()] = (end, len(line))
            end += len(line)
        self._file.truncate(end)

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, name: str, mark: str, frames: list[str]) -> None:
        """Writes the frames of a clip to disk."""
        row = "\t".join([name, mark, *frames]).encode() + b"\n"
        start = self._file.seek(0, 2)
        self._file.write(row)
        self._file.flush()
        self.stamps[name], self._places[name] = mark, (start, len(row))

    def frames(self, name: str) -> list[str]:
        """Stored frames of a clip."""
        start, length = self._places[name]
        self._file.seek(start)
        return self._file.read(length).decode().rstrip("\n").split("\t")[2:]
