"""python _tools/make_dataset.py --name mine --table captions.csv --table qa.csv --videos clips --output _datasets

Makes a data set of your own files: tables (CSV, TSV, JSON, JSONL), and a folder of videos, of image folders or of
WebDataset tars. The columns of a table are `video, caption`, or `video, question, answer`, or `video, question,
option_0 …, answer`; and `split`, if you have one. Tars that bring captions need no table.

Writes frames (img_NAME.tsv), the texts of every task that the columns allow, and a configuration for each task, and
ends with the commands to run. After a stop, run the same command again: it continues, and extracts only what is new or
has changed. Broken clips are listed and left out.
"""

import argparse
import os
from pathlib import Path

from _root import run, whole

from lavender.data.frames import MAX_PIXELS
from lavender.prepare.texts import TASKS
from lavender.runtime.errors import DataError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, type=_name, help="of the data set: letters, digits, - and _")
    parser.add_argument("--table", type=Path, action="append", default=[], help="a table; may be given again")
    parser.add_argument(
        "--videos", required=True, help="folder of videos, image folders or tars, at any depth; or a pattern of tars"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write to")
    parser.add_argument("--args_dir", type=Path, help="folder of the configurations (default: _args in --output)")
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="MEANING=NAME",
        help="map columns, such as caption=text_en; split= for no split column",
    )
    parser.add_argument("--encoding", default="", help="encoding of the tables if not UTF-8, such as cp1252")
    parser.add_argument(
        "--answers_from", type=int, choices=[0, 1], help="number of the first option, if answers are numbers"
    )
    parser.add_argument(
        "--frame_source",
        choices=["tsv", "videos", "shards"],
        default="tsv",
        help="store frames in a TSV, or read the videos or tars directly in training (default: %(default)s)",
    )
    parser.add_argument("--frames", type=whole(1, 10_000), default=5, help="frames of a clip (default: %(default)s)")
    parser.add_argument(
        "--split",
        nargs=3,
        type=float,
        default=[0.8, 0.1, 0.1],
        metavar=("TRAIN", "VAL", "TEST"),
        help="fractions of the videos per split, if the table has no split column (default: 0.8 0.1 0.1)",
    )
    parser.add_argument("--seed", type=whole(0), default=42, help="of that split (default: %(default)s)")
    parser.add_argument(
        "--size_vocab", type=whole(1), default=1000, help="answers of the task-specific head (default: %(default)s)"
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="which tasks (default: all)")
    parser.add_argument("--max_pixels", type=whole(1), default=MAX_PIXELS, help="skip clips with larger frames")
    parser.add_argument("--workers", type=whole(1, 512), default=os.cpu_count(), help="processes (default: one a core)")
    arguments = parser.parse_args()
    if not (sum(arguments.split) > 0 and all(0 <= share <= 1 for share in arguments.split) and arguments.split[0] > 0):
        parser.error("--split takes three shares from 0 to 1, and training needs one above 0")

    from lavender.prepare.dataset import make_dataset  # takes seconds, not needed for --help

    faults = make_dataset(
        arguments.name,
        arguments.table,
        arguments.videos,
        arguments.output,
        args_dir=arguments.args_dir,
        columns=dict(map(_pair, arguments.columns)),
        encoding=arguments.encoding,
        answers_from=arguments.answers_from,
        frame_source=arguments.frame_source,
        count=arguments.frames,
        shares=arguments.split,
        seed=arguments.seed,
        size_vocab=arguments.size_vocab,
        tasks=arguments.tasks,
        max_pixels=arguments.max_pixels,
        workers=arguments.workers,
    )
    return 1 if faults else 0


def _name(text: str) -> str:
    if text and text.replace("-", "").replace("_", "").isalnum() and text.isascii():
        return text
    raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a valid name; write letters, digits, - and _")


def _pair(text: str) -> tuple[str, str]:
    meaning, sign, name = text.partition("=")
    if not (meaning and sign):
        raise DataError(f"--columns {text}: write it as caption=text_en")
    return meaning.strip(), name.strip()


if __name__ == "__main__":
    run(main)
