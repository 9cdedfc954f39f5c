"""python _tools/make_id2lineidx_pkl.py --input_file img_msrvtt.tsv --output_file img_msrvtt.id2lineidx.pkl

Writes a pickled dict, video id (without media extension) → byte offset of its row in the TSV.
"""

import argparse
from pathlib import Path

from _root import run

from lavender.data.index import write_id2lineidx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_file", required=True, type=Path, help="the frame TSV")
    parser.add_argument("--output_file", type=Path, help="the index to write (default: X.id2lineidx.pkl beside X.tsv)")
    arguments = parser.parse_args()

    output = arguments.output_file or arguments.input_file.with_suffix(".id2lineidx.pkl")
    print(f"{output}: {write_id2lineidx(arguments.input_file, output)} videos")


if __name__ == "__main__":
    run(main)
