"""One line a step; all else in log files."""

from pathlib import Path

import pytest

from lavender.demo import screen
from lavender.demo.screen import Screen
from lavender.runtime.errors import TrainingError

SCRIPT = """
import sys
from tqdm import tqdm
assert sys.stderr.isatty()
print("said", *sys.argv[1:])
for _ in tqdm(range(3), desc="bar"):
    pass
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(screen, "ROOT", tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    return "script.py"


def test_a_step_is_one_line(tmp_path: Path, script: str, capsys: pytest.CaptureFixture[str]):
    shown = Screen(tmp_path / "logs")
    for title in ("first thing", "second"):
        with shown.step(title) as step:
            step.run(script, 0, "two words")
            step.result = "well"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["1.", "first"], ["2.", "second"]]
    assert all(line.endswith(" s   well") for line in lines)
    log = (tmp_path / "logs" / "01-first-thing.log").read_text()
    assert log.startswith("$ python script.py 0 'two words'\nsaid 0 two words\n")
    assert "bar: 100%" in log
    assert log.count("bar:") == 1, "a bar is overwritten as on a terminal"


def test_bars_are_shown_on_a_terminal(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch, capsys):
    bars: list[str] = []
    monkeypatch.setattr(screen.Step, "show", lambda step, bar="", end=False: bars.append(bar))
    with Screen(tmp_path / "logs").step("one") as step:
        step.run(script, 0)
    assert any("bar:" in bar for bar in bars)


def test_a_script_that_fails_ends_the_demo_and_tells_what_it_said(tmp_path: Path, script: str, capsys):
    ending = r"said 3[^$]*script\.py ended with exit code 3; see .*01-one\.log"
    with pytest.raises(TrainingError, match=ending), Screen(tmp_path / "logs").step("one") as step:
        step.run(script, 3)
    assert capsys.readouterr().out.splitlines()[-1].endswith("stopped")


def test_a_script_that_is_missing(tmp_path: Path, script: str):
    with pytest.raises(TrainingError, match="exit code 2"), Screen(tmp_path / "logs").step("one") as step:
        step.run("nothing.py")
