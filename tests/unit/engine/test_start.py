"""How scripts start and end. Options are read before anything heavy is imported, so that mistakes are told at once."""

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lavender.engine.start import guarded, main
from lavender.runtime import launchers

ROOT = Path(__file__).parents[3]
TASK = "lavender.tasks.pretrain:PretrainTask"
SCRIPTS = sorted(path.name for path in [*ROOT.glob("main_*.py"), *ROOT.glob("eval_*.py")])
HEAVY = {"torch", "numpy", "transformers", "torchvision", "timm", "cv2", "deepspeed", "yaml"}
LOOK = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as exited:
    print(json.dumps([exited.code, [name for name in sys.modules if "." not in name]]))
"""


def imported(script: str, *words: str) -> tuple[int, set[str], str]:
    """Exit code of a script in a process of its own, the packages that it imported, and its messages."""
    line = [sys.executable, "-c", LOOK, script, *words]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    code, modules = json.loads(ended.stdout.splitlines()[-1])
    return code or 0, set(modules), ended.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script: str):
    code, modules, _ = imported(script, "--help")
    assert code == 0
    assert not HEAVY & modules


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--batch_size", "8"], "--size_batch"),
        (["--lr", "fast"], "lr"),
        (["--config", "gone.json"], "gone.json"),
        (["--path_ckpt", "gone.pt"], "gone.pt"),
        (["--vis_backbone_path", "gone.pth"], "gone.pth"),
        (["--size_epoch", "0"], "--path_ckpt"),
        (["--size_epoch", "0"], "--allow_random true"),
    ],
)
def test_nor_does_a_mistake(words: list[str], named: str):
    code, modules, message = imported("main_pretrain_mlm.py", *words)
    assert code == 2
    assert named in message
    assert len(message.splitlines()) == 1
    assert not HEAVY & modules


def test_a_script_names_a_task_that_is_there():
    for script in SCRIPTS:
        text = (ROOT / script).read_text(encoding="utf-8")
        names = re.findall(r'"([\w.]+:\w+)"', text)
        assert names[0].startswith("lavender.tasks.")
        assert all(callable(pkgutil.resolve_name(name)) for name in names)


def test_main_tells_a_fault_of_the_input_in_one_line(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exited:
        main(TASK, ["--config", "nowhere.json"])
    assert exited.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: nowhere.json: no such file")


def test_main_leaves_on_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lavender.engine.run.run", interrupt)
    with pytest.raises(SystemExit) as exited:
        main(TASK, [])
    assert exited.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """What stands for the end of the process: an exception with its exit code."""

    class Left(BaseException):
        pass

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(launchers.os, "_exit", leave)
    return Left


def test_launched_processes_leave_without_winding_down(left, monkeypatch: pytest.MonkeyPatch):
    """There a thread of gloo may abort a run that went well."""
    done = []
    guarded(lambda: done.append("alone"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(left, match="0"):
        guarded(lambda: done.append("launched"))
    assert done == ["alone", "launched"]


def test_main_of_several_processes_leaves_at_once(left, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(left, match="2"):
        main(TASK, ["--config", "nowhere.json"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: nowhere.json: no such file")
    assert line.endswith(" [process 1]")
