"""python -m lavender.demo [--all]: the quick start (see `tour.py`); `--all` also runs `baselines.py`."""

import argparse
import os
import sys
from pathlib import Path

from lavender.demo.baselines import baselines
from lavender.demo.tour import tour
from lavender.runtime.errors import LavenderError


def main() -> None:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(prog="python -m lavender.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("_demo"), help="folder of the demo (made afresh)")
    parser.add_argument("--n_train", type=int, default=2000, help="training clips")
    parser.add_argument(
        "--all", action="store_true", help="also controls, a model for each task, and the task-specific heads"
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    folder = arguments.output.resolve()
    try:
        done = tour(folder, arguments.n_train)
        if arguments.all:
            baselines(done)
    except LavenderError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
