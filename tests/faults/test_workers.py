"""Workers that are started while the processes of a run talk to each other: forked from one of them, one in hundreds
hung for ever (see lavender/data/workers.py).
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROUNDS = 1000


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_rounds_of_evaluation_loader_and_gathering(start, workers: int):
    """On a loaded machine: two more processes than it has to run compute all the while."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        numbers = (str(ROUNDS), str(workers))  # its first words
        run = start("tests/faults/rounds.py", launcher="torchrun", released=numbers, small=())
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert f"\n{ROUNDS} rounds" in run.check_passed().stdout
