"""Creation of a data set from user tables and clips, including its configurations."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lavender.data.corpora import CORPORA
from lavender.data.frames import MAX_PIXELS
from lavender.prepare.clips import Clips
from lavender.prepare.columns import check_given, find_columns
from lavender.prepare.configs import commands, write_config
from lavender.prepare.frames import write_frames
from lavender.prepare.made import Made
from lavender.prepare.rows import SPLITS, Rows, check_splits, leave_out_unanswered, read_rows, share_out
from lavender.prepare.table import Table, read_table
from lavender.prepare.texts import TASKS, possible_tasks, write_tasks
from lavender.runtime.errors import DataError

ROOT = Path(__file__).resolve().parents[2]  # folder of the scripts


def make_dataset(
    name: str,
    tables: Sequence[Path],
    videos: str,
    output: Path,
    *,
    args_dir: Path | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str = "",
    answers_from: int | None = None,
    frame_source: str = "tsv",
    count: int = 5,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 42,
    size_vocab: int = 1000,
    tasks: Sequence[str] = TASKS,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
) -> list[str]:
    """Writes frames, the texts of every task that the columns allow, and its configuration; prints a report.

    Args:
        name: name of the data set.
        tables: CSV, TSV, JSON or JSONL files; none if the clips are tars with captions.
        videos: path as for `Clips`.
        args_dir: folder of the configurations; by default `_args` in `output`.
        columns: role → column, to correct the guess; encoding: encoding of the tables, if not UTF-8.
        answers_from: whether numbers of options count from 0 or from 1; None: inferred from the column.
        frame_source: "tsv" stores frames; "videos" or "shards" read them from the clips.
        count: frames per video.
        shares: fractions of videos for train, val and test if no column names the split; seed: seed of that draw.
        size_vocab: maximum number of answers of the task-specific head.
        tasks: which of `TASKS` to make, if the columns allow them.
        workers: number of processes; by default one per core.

    Returns:
        the clips that were left out because they cannot be decoded

    Raises:
        DataError: a table or the clips are faulty, or nothing is usable.
        OSError: a file cannot be written.
    """
    if name in CORPORA:
        raise DataError(f"--name {name} is that of a public data set with rules of its own; choose another")
    clips = Clips(videos)
    if frame_source not in ("tsv", clips.kind):
        raise DataError(f"{videos} holds {clips.kind}: --frame_source tsv or {clips.kind}")
    rows = _rows(clips, tables, columns or {}, encoding, answers_from)
    made = Made(output, name, {"seed": seed, "shares": list(shares)})
    made.refuse_strange(["retrieval", "qa", "mc"], tables, args_dir or output / "_args")
    parts = {split: share / sum(shares) for split, share in zip(SPLITS, shares, strict=True)}
    made.drawn |= share_out(rows, parts, seed, made.drawn)
    leave_out_unanswered(rows)
    options: dict[str, Any] = clips.options(count) if frame_source != "tsv" else {}
    checked = partial(_check, rows, tasks, bool(options))
    checked()

    output.mkdir(parents=True, exist_ok=True)
    made.write()  # written first, so that a stopped command can continue
    if frame_source == "tsv":
        used = sorted({item["video"] for item in rows.all()})
        tsv = output / f"img_{name}.tsv"
        held = write_frames(clips, used, tsv, count, workers or os.cpu_count() or 1, max_pixels=max_pixels)
        rows.keep(set(held), "its clip cannot be decoded")
        checked()
    for line in rows.report():
        print(line, file=sys.stderr)
    lengths = [clips[video].length(count) for video in {item["video"] for item in rows.all()}]
    said = []
    for task in write_tasks(rows, name, output, size_vocab, bool(options), tasks):
        config = write_config(task, output, args_dir or output / "_args", options, lengths)
        said += ["", f"{task.name}: " + ", ".join(f"{number:,} {split}" for split, number in task.counts.items())]
        said += [f"  {line}" for line in (*task.notes, *commands(task, config))]
    if any("--path_ckpt" in line for line in said):
        said.append("\nCHECKPOINT is a pretrained model (_models/lavender.pt); without one leave --path_ckpt out")
    if Path.cwd() != ROOT:
        said.append(f"\nThese commands are run in {ROOT}")
    print("\n".join(said))
    if clips.faults:
        words = "clips cannot be decoded and were left out; they are listed above"
        print(f"\n{len(clips.faults)} {words}", file=sys.stderr)
    return sorted(clips.faults)


def _rows(
    clips: Clips, tables: Sequence[Path], columns: Mapping[str, str], encoding: str, answers_from: int | None
) -> Rows:
    """Reads the items of all tables; prints how columns and answers are interpreted."""
    if twice := [
        path for number, path in enumerate(tables) if path.resolve() in {one.resolve() for one in tables[:number]}
    ]:
        raise DataError(f"{twice[0]} is given twice")
    read = [read_table(path, encoding) for path in tables] or [caption_table(clips)]
    check_given(read, columns)
    pairs = [(table, find_columns(table, columns)) for table in read]
    rows = read_rows(pairs, clips, clips.path, answers_from)
    used = {item["video"] for item in rows.all()}
    for line in (*(found.describe(table) for table, found in pairs), *rows.notes):
        print(line)
    print(f"{clips.path}: {len(clips):,} clips, {len(used):,} of them have texts")
    return rows


def _check(rows: Rows, tasks: Sequence[str], direct: bool) -> None:
    """Raises DataError if the rows give nothing."""
    if tuple(tasks) != ("pretrain",):
        check_splits(rows)
    possible_tasks(rows, direct, tasks)


def caption_table(clips: Clips) -> Table:
    """Table of the captions stored in tars. DataError if there are none."""
    rows = [(number, [video, text]) for number, (video, text) in enumerate(clips.captions())]
    if not rows:
        raise DataError(f"{clips.path} brings no captions: --table names the table of texts")
    return Table(Path(clips.path), ["video", "caption"], rows)
