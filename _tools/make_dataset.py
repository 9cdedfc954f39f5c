"""python _tools/make_dataset.py --name mine --table captions.csv --table qa.csv --videos clips --output _datasets

Makes a data set of your own files: tables (CSV, TSV, JSON, JSONL) and a folder of videos or image folders. The columns
of a table are `video, caption`, or `video, question, answer`, or `video, question, option_0 …, answer`; and `split`, if
you have one.

Writes frames (img_NAME.tsv), the texts of every task that the columns allow, and a configuration for each task, and
ends with the commands to run. The same command goes on where it was stopped. Broken clips are listed and left out.
"""

import argparse
import os
import sys
from pathlib import Path

from _root import run, whole

from lavender.data.frames import MAX_PIXELS
from lavender.prepare.columns import check_given, find_columns
from lavender.prepare.configs import commands, write_config
from lavender.prepare.frames import find_clips, write_frames
from lavender.prepare.rows import SPLITS, read_rows, share_out
from lavender.prepare.table import read_table
from lavender.prepare.texts import write_tasks
from lavender.runtime.errors import DataError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, type=_name, help="of the data set: letters, digits, - and _")
    parser.add_argument("--table", required=True, type=Path, action="append", help="a table; may be given again")
    parser.add_argument("--videos", required=True, type=Path, help="folder of videos or image folders, at any depth")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--args_dir", type=Path, help="folder of the configurations (default: _args in --output)")
    parser.add_argument("--columns", nargs="+", default=[], metavar="MEANING=NAME", help="such as caption=text_en")
    parser.add_argument("--encoding", default="", help="of the tables, where it is not UTF-8; such as cp1252")
    parser.add_argument(
        "--frame_source",
        choices=["tsv", "videos"],
        default="tsv",
        help="store frames in a TSV, or let training read the videos (default: %(default)s)",
    )
    parser.add_argument("--frames", type=whole(1, 10_000), default=5, help="frames of a clip (default: %(default)s)")
    parser.add_argument(
        "--split",
        nargs=3,
        type=float,
        default=[0.8, 0.1, 0.1],
        metavar=("TRAIN", "VAL", "TEST"),
        help="shares of the videos, for tables without a column of splits (default: 0.8 0.1 0.1)",
    )
    parser.add_argument("--seed", type=whole(0), default=42, help="of that split (default: %(default)s)")
    parser.add_argument(
        "--size_vocab", type=whole(1), default=1000, help="answers of the task-specific head (default: %(default)s)"
    )
    parser.add_argument("--max_pixels", type=whole(1), default=MAX_PIXELS, help="leave out clips of larger frames")
    parser.add_argument("--workers", type=whole(1, 512), default=os.cpu_count(), help="processes (default: one a core)")
    arguments = parser.parse_args()
    if not (sum(arguments.split) > 0 and all(0 <= share <= 1 for share in arguments.split) and arguments.split[0] > 0):
        parser.error("--split takes three shares from 0 to 1, and training needs one above 0")
    return make(arguments)


def make(arguments: argparse.Namespace) -> int:
    """Makes the data set; returns the exit code: 1 where clips were left out."""
    name, output = arguments.name, arguments.output
    given = dict(_pair(text) for text in arguments.columns)
    tables = [read_table(path, arguments.encoding) for path in arguments.table]
    check_given(tables, given)
    columns = [find_columns(table, given) for table in tables]
    for table, found in zip(tables, columns, strict=True):
        print(found.told(table))
    clips = find_clips(arguments.videos)
    pairs = list(zip(tables, columns, strict=True))
    rows = read_rows(pairs, clips, clips.folder)
    used = sorted({item["video"] for item in rows.all()})
    print(f"{clips.folder}: {len(clips):,} clips, {len(used):,} of them have texts")

    output.mkdir(parents=True, exist_ok=True)
    frames = {"frame_source": "videos", "video_dir": str(clips.folder.resolve()), "stored_frames": arguments.frames}
    if arguments.frame_source == "tsv":
        tsv = output / f"img_{name}.tsv"
        held = write_frames(clips, used, tsv, arguments.frames, arguments.workers, max_pixels=arguments.max_pixels)
        frames = {}
        if len(held) < len(used):
            rows = read_rows(pairs, held, tsv)
    total = sum(arguments.split)
    shares = {split: share / total for split, share in zip(SPLITS, arguments.split, strict=True)}
    share_out(rows, shares, arguments.seed)
    for line in rows.report():
        print(line, file=sys.stderr)
    tasks = write_tasks(rows, name, output, arguments.size_vocab)
    folder = arguments.args_dir or output / "_args"
    for task in tasks:
        config = write_config(task, output, folder, frames, arguments.frames)
        print(f"\n{task.name}: " + ", ".join(f"{count:,} {split}" for split, count in task.counts.items()))
        for line in commands(task, config):
            print(f"  {line}")
    if clips.faults:
        print(
            f"\n{len(clips.faults)} clips cannot be decoded and were left out; they are listed above", file=sys.stderr
        )
    return 1 if clips.faults else 0


def _name(text: str) -> str:
    if text and text.replace("-", "").replace("_", "").isalnum() and text.isascii():
        return text
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is no name; write letters, digits, - and _")


def _pair(text: str) -> tuple[str, str]:
    meaning, sign, name = text.partition("=")
    if not (meaning and sign and name):
        raise DataError(f"--columns {text}: write it as caption=text_en")
    return meaning.strip(), name.strip()


if __name__ == "__main__":
    run(main)
