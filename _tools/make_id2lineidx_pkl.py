"""python _tools/make_id2lineidx_pkl.py --input_file img_msrvtt.tsv --output_file img_msrvtt.id2lineidx.pkl

Writes a pickled dict, video id (without media extension) → byte offset of its row in the TSV.
"""

import argparse
from pathlib import Path

from _root import named, run

from lavender.data.index import write_id2lineidx
from lavender.runtime.errors import DataError
from lavender.runtime.files import refuse_overwriting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_file", required=True, type=named, help="the frame TSV")
    parser.add_argument("--output_file", type=Path, help="the index to write (default: X.id2lineidx.pkl beside X.tsv)")
    arguments = parser.parse_args()

    output = arguments.output_file or arguments.input_file.with_suffix(".id2lineidx.pkl")
    refuse_overwriting(output, arguments.input_file, error=DataError, option="--output_file")
    print(f"{output}: {write_id2lineidx(arguments.input_file, output)} videos")


if __name__ == "__main__":
    run(main)
