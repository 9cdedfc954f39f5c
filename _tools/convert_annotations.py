"""python _tools/convert_annotations.py msrvtt-qa FOLDER --output _datasets

Converts the published annotation files of a data set in FOLDER to the text files that training reads:

  msrvtt           MSRVTT-v2/ (captioning) and txt_msrvtt-retrieval.json
  msvd             MSVD/ (captioning) and txt_msvd-retrieval.json
  msrvtt-qa, msvd-qa, msrvtt-mc, tgif-action, tgif-transition, tgif-frame, lsmdc-mc, lsmdc-fib
                   txt_NAME.json
  lsmdc, didemo    txt_NAME-retrieval.json
  webvid, cc3m     txt_webvid2.5m.json, txt_webvid10m.json, txt_cc3m.json (pretraining)

docs/annotations.md lists the files that each needs. --videos or --frames also checks that the videos exist; the exit
code is 1 if some are missing, or if malformed rows are skipped.
"""

import argparse
from pathlib import Path

from _root import run, whole

from lavender.prepare.public.names import NAMES, SPLITS_OF_MSRVTT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder of its annotation files")
    parser.add_argument("--output", required=True, type=Path, help="folder to write to, such as _datasets")
    videos = parser.add_mutually_exclusive_group()
    videos.add_argument(
        "--videos", default="", help="check that the videos exist in this folder of videos, images or tars"
    )
    videos.add_argument(
        "--frames", type=Path, help="check that the videos exist in this frame TSV, such as img_msrvtt.tsv"
    )
    parser.add_argument("--drop_missing", action="store_true", help="leave out items whose video is missing")
    parser.add_argument(
        "--split",
        choices=SPLITS_OF_MSRVTT,
        default="",
        help="of msrvtt-retrieval: 7k (the default) or 9k training videos, or the official splits",
    )
    parser.add_argument(
        "--hold_out",
        dest="share",
        type=_share,
        default=0.0,
        help="fraction of the training videos used for validation (default: none)",
    )
    parser.add_argument("--seed", type=whole(0), default=42, help="of --hold_out (default: %(default)s)")
    parser.add_argument(
        "--size_vocab", type=whole(1), default=0, help="answers of the task-specific head (default: as released)"
    )
    parser.add_argument("--encoding", default="", help="encoding of the annotation files if not UTF-8, such as cp1252")
    parser.add_argument("--skip_bad", action="store_true", help="skip and count malformed rows")
    parser.add_argument("--overwrite", action="store_true", help="overwrite existing files")
    arguments = parser.parse_args()
    if arguments.split and arguments.name != "msrvtt":
        parser.error("--split is for msrvtt")
    if arguments.drop_missing and not (arguments.videos or arguments.frames):
        parser.error("--drop_missing needs --videos or --frames")

    from lavender.prepare.public.convert import convert  # takes seconds, not needed for --help

    options = vars(arguments)
    complete = convert(options.pop("name"), options.pop("folder"), options.pop("output"), **options)
    return 0 if complete else 1


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a share; write a number from 0 to below 1, such as 0.1")
    return share


if __name__ == "__main__":
    run(main)
