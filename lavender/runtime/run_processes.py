"""python -m lavender.runtime.run_processes --nproc_per_node=8 SCRIPT …: torchrun without its own report.

The processes report themselves why they end, as the last line; the exit code is that of the first failure.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import main as torchrun

_ROOT = Path(__file__).resolve().parents[2]


def launch_command(processes: int, script: Sequence[str]) -> list[str]:
    """Command that runs a script with its arguments on several processes of this host, with a free port."""
    start = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from {__name__} import main; main()"
    return [sys.executable, "-c", start, "--standalone", f"--nproc_per_node={processes}", *script]


def main() -> None:
    """Runs torchrun with the command-line arguments."""
    logging.disable(logging.ERROR)  # its loggers repeat the following report
    try:
        torchrun()
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if not _has_reported(failure):
            print(f"error: process {rank} ended with {_way_to_end(failure)}", file=sys.stderr, flush=True)
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)


def _has_reported(failure: ProcessFailure) -> bool:
    """Whether the process reported why it ended: by a message, or a traceback."""
    return isinstance(failure.message, dict) or failure.exitcode == 1


def _way_to_end(failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        return f"signal {-failure.exitcode} ({failure.signal_name()})"
    return f"exit code {failure.exitcode}"


if __name__ == "__main__":
    main()
