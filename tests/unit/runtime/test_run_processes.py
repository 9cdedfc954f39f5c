"""torchrun without its own report: started for real, on small scripts."""

import subprocess
from pathlib import Path

import pytest

from lavender.runtime.run_processes import launch_command
from tests.warm import warm


def run(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess:
    (folder / "script.py").write_text(f"import os, sys, time\nrank = int(os.environ['RANK'])\n{script}")
    _, *command = launch_command(2, ["script.py", *words])  # what follows Python's name
    return warm().run(*command, cwd=folder)


def test_a_script_on_several_processes_from_any_folder(tmp_path: Path):
    done = run(tmp_path, "open(f'came{rank}', 'w').write(' '.join(sys.argv[1:]))", "--x", "a b")
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"came{rank}").read_text() for rank in (0, 1)] == ["--x a b"] * 2


REPORT = """
sys.path.insert(0, {root!r})
from lavender.runtime.launcher_report import report_end
"""


@pytest.mark.parametrize(
    ("script", "code", "last"),
    [
        ("report_end('error: the same'); os._exit(2)", 2, "error: the same [process "),
        ("time.sleep(60 * (1 - rank)); report_end('error: of one'); os._exit(3)", 3, "error: of one [process 1]"),
        ("time.sleep(60 * rank); os.kill(os.getpid(), 9)", 137, "process 0 "),
        ("time.sleep(60 * rank); os._exit(7)", 7, "exit code 7"),
    ],
    ids=["all", "one", "killed", "silent"],
)
def test_our_line_is_the_last(tmp_path: Path, script: str, code: int, last: str):
    root = str(Path(__file__).parents[3])
    done = run(tmp_path, REPORT.format(root=root) + script)
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert last in lines[-1], done.stderr
    assert sum("error: " in line for line in lines) == 1
    assert "Traceback" not in done.stderr


def test_a_traceback_of_a_process_stays(tmp_path: Path):
    done = run(tmp_path, "time.sleep(60 * rank); 1 / 0")
    assert done.returncode == 1
    assert done.stderr.rstrip().splitlines()[-1].startswith("ZeroDivisionError")
    assert done.stderr.count("Traceback") == 1
