"""Measures a machine: one table on the screen, and a JSON file.

    python -m benchmarks            # base size; on a CPU an hour
    python -m benchmarks --quick    # five minutes on two cores
    python -m benchmarks --only input,step

Every ratio is measured in one run that alternates between our code and plain code. `docs/performance.md` explains the
columns.
"""

import argparse
import sys
from pathlib import Path

GROUPS = ("matrix", "input", "encoder", "step", "captions", "retrieval", "start", "save")


def main(arguments: list[str] | None = None) -> int:
    """Runs the measurements; returns 1 if a row has failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: five minutes on two cores")
    parser.add_argument("--only", default="", help=f"some groups of rows, by commas: {', '.join(GROUPS)}")
    parser.add_argument("--bf16", action="store_true", help="the matrix rate in bf16 on a CPU, too")
    parser.add_argument("--size", default="", choices=("", "micro", "tiny", "base"), help="of the model")
    parser.add_argument(
        "--minutes",
        type=float,
        help="rows that would begin later are skipped (by default after 4 with --quick); 0: none",
    )
    parser.add_argument("--out", type=Path, help="the file; by default benchmarks/results/<machine>.json")
    given = parser.parse_args(arguments)
    only = [name.strip() for name in given.only.split(",") if name.strip()]
    if unknown := sorted({*only} - {*GROUPS}):
        parser.error(f"--only: {', '.join(unknown)} is none of {', '.join(GROUPS)}")
    from benchmarks.measure import begin  # torch: not before the options are read

    return begin(given, only)


if __name__ == "__main__":
    sys.exit(main())
