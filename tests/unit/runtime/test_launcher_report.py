"""What processes of one launcher say when they end, and what they leave for torchrun's report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lavender.runtime.launcher_report import report_end

Tell = Callable[..., tuple[str, dict]]


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Tell:
    """`tell(rank, message)` as a process of torchrun: what is printed, and the message for its report."""

    def of(rank: int, message: str, consequence: bool = False, attempt: str = "attempt_0") -> tuple[str, dict]:
        folder = tmp_path / attempt / str(rank)
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", 4)):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / "error.json"))
        report_end(message, consequence)
        return capsys.readouterr().err, json.loads((folder / "error.json").read_text())["message"]

    return of


def when(report: dict) -> int:
    return int(report["extraInfo"]["timestamp"])


def test_the_same_is_printed_once(tell: Tell):
    printed, first = tell(1, "error: a.json: no such file")
    assert printed == "error: a.json: no such file [process 1]\n"
    assert first["message"] == printed.strip()
    for rank in (0, 2, 3):
        printed, report = tell(rank, "error: a.json: no such file")
        assert printed == ""
        assert "process 1" in report["message"]
        assert "a.json" in report["message"]
        assert when(report) > when(first), "the report's root cause is the earliest"


def test_what_differs_is_printed(tell: Tell):
    assert [tell(rank, f"error: {rank}")[0] for rank in (0, 1)] == ["error: 0 [process 0]\n", "error: 1 [process 1]\n"]


def test_another_attempt_says_it_again(tell: Tell):
    assert tell(0, "error: a")[0] == tell(0, "error: a", attempt="attempt_1")[0] != ""


def test_a_consequence_is_not_printed_after_its_cause(tell: Tell):
    _, cause = tell(1, "error: a clip")
    printed, report = tell(0, "stopped: another process ended", consequence=True)
    assert printed == ""
    assert when(report) > when(cause)


def test_a_consequence_whose_cause_said_nothing(tell: Tell):
    """A process that was killed, or one of another host."""
    assert tell(0, "stopped: another process ended", consequence=True)[0].startswith("stopped: ")


@pytest.mark.parametrize(
    "place", ["", "error.json", "0/error.json", "some/where/0/error.json", "attempt_0/1/error.json"]
)
def test_without_a_folder_of_torchrun_each_says_it(tmp_path: Path, monkeypatch, capsys, place: str):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / place) if place else "")
    for _ in range(2):
        report_end("error: a")
        assert capsys.readouterr().err == "error: a\n"


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "attempt_0" / "0" / "error.json"))
    for _ in range(2):
        report_end("error: a")
        assert capsys.readouterr().err == "error: a\n"
