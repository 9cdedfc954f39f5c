"""python _tools/check_dataset.py _args/args_msrvtt-qa.json

Checks the data of a configuration before training: missing and broken videos, unanswerable questions, videos in both
training and evaluation, duplicates, truncated texts, too few or too small frames. It also estimates the cost of a run.
Options of the training scripts can be added (--data_dir …).

Writes check.json and check.png. The exit code is 1 if something would stop a run or make its metrics wrong.
"""

import argparse
import math
import os
from pathlib import Path

from _root import run, whole

from lavender.config.load import load_config
from lavender.runtime.errors import ConfigError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", help="the JSON file of a task")
    parser.add_argument("--output", type=Path, help="folder of check.json and check.png (default: _check/NAME)")
    parser.add_argument(
        "--decode", type=_videos, default=1000, help="number of videos to decode, evenly spread, or all (default: 1000)"
    )
    parser.add_argument("--fix", type=Path, help="write repaired copies of the data to this folder")
    parser.add_argument(
        "--tflops",
        type=float,
        default=125.0,
        help="TFLOP/s of a GPU in training, for the estimate (default: %(default)s, 40%% of an A100 in bf16)",
    )
    parser.add_argument("--workers", type=whole(1, 512), default=os.cpu_count(), help="processes (default: one a core)")
    arguments, rest = parser.parse_known_args()
    if not 0 < arguments.tflops < math.inf:
        parser.error("--tflops must be above 0")
    if Path(arguments.config).is_dir():
        parser.error(f"{arguments.config} is a folder: name the configuration first, and options after it")
    config = load_config(["--config", arguments.config, *rest])
    if not config.type:
        raise ConfigError(f'{arguments.config}: "type" says what task it is; without it nothing can be checked')
    name = config.task or config.type
    output = arguments.output or Path("_check") / Path(name).name

    from lavender.check.doctor import examine  # takes seconds, not needed for --help

    return examine(config, output, arguments.decode, arguments.fix, arguments.tflops, arguments.workers)


def _videos(text: str) -> int:
    return 0 if text == "all" else whole(1)(text)


if __name__ == "__main__":
    run(main)
