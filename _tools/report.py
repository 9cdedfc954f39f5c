"""python _tools/report.py _snapshot/_msrvtt-qa_20261128120000 [RUN …]

Writes one HTML page about a run, or about several side by side: metrics at the best epochs with tables to paste into a
paper, curves, examples with their frames, accuracy by answer. Runs that differ only by seed share a column, with mean
and standard deviation. The page needs no other file and no network.
"""

import argparse
from pathlib import Path

from _root import run, whole

from lavender.runtime.errors import DataError
from lavender.runtime.files import read_text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the first folder)")
    parser.add_argument(
        "--examples",
        type=whole(0, 1000),
        default=12,
        help="number of predictions shown per split (default: %(default)s)",
    )
    parser.add_argument("--summary", type=Path, help="a text file; its lines stand on top of the page")
    arguments = parser.parse_args()
    output = arguments.output or arguments.runs[0] / "report.html"
    if output.is_dir():
        raise DataError(f"{output} is a folder: name the page, such as {output / 'report.html'}")

    from lavender.report.page import write_page  # takes seconds, not needed for --help
    from lavender.report.runs import open_run

    summary = read_text(arguments.summary, DataError).strip("\n") if arguments.summary else ""
    write_page([open_run(folder) for folder in arguments.runs], output, arguments.examples, summary)
    print(output)


if __name__ == "__main__":
    run(main)
