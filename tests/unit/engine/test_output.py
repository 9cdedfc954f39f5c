import json
import re
from datetime import datetime
from pathlib import Path

import pytest

from lavender.engine import output
from lavender.engine.output import RunFolder
from lavender.runtime.errors import TrainingError
from lavender.runtime.logging import LOGGER, stop_logging


@pytest.fixture(autouse=True)
def _logger_put_back():
    level, handlers = LOGGER.level, list(LOGGER.handlers)
    LOGGER.setLevel("INFO")
    yield
    stop_logging()
    LOGGER.handlers, LOGGER.level = handlers, level


def test_its_name_and_its_log(tmp_path: Path):
    folder = RunFolder(str(tmp_path / "snapshot"), "pretrain-toy")
    assert folder.path.parent == tmp_path / "snapshot"
    stamp = re.fullmatch(r"_pretrain-toy_(\d{14})", folder.path.name)
    assert stamp
    assert abs((datetime.now() - datetime.strptime(stamp[1], "%Y%m%d%H%M%S")).total_seconds()) < 60
    LOGGER.info("a line")
    assert (folder.path / "stdout.txt").read_text().endswith("  a line\n")


def test_a_folder_that_hosts_do_not_share_is_told(tmp_path: Path, monkeypatch, log):
    """What the first process made is not to be seen from here."""
    monkeypatch.setattr(output.distributed, "is_main", lambda: False)
    monkeypatch.setattr(output.distributed, "broadcast_object", lambda value: tmp_path / "elsewhere")
    RunFolder(str(tmp_path), "x")
    assert "elsewhere is not the folder of the first host" in log.text
    monkeypatch.setattr(output.distributed, "broadcast_object", lambda value: tmp_path)
    log.clear()
    RunFolder(str(tmp_path), "x")
    assert log.text == ""


def test_json_files(tmp_path: Path):
    folder = RunFolder(str(tmp_path), "x")
    for value in ({"lr": 1}, {"lr": 2}):
        folder.write("args.json", value)
    assert json.loads((folder.path / "args.json").read_text()) == {"lr": 2}


def test_curves(tmp_path: Path):
    folder = RunFolder(str(tmp_path), "x")
    assert not list(folder.path.glob("events.*"))
    for step in range(3):
        folder.curve("train/loss", 1.0 / (step + 1), step)
    folder.close()
    (events,) = folder.path.glob("events.*")
    assert events.stat().st_size > 100
    assert events.read_bytes().count(b"train/loss") == 3


def test_the_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    folder = RunFolder(str(tmp_path / "snapshot"), "x")
    folder.write("args.json", {})
    folder.curve("train/loss", 1.0, 0)
    folder.close()
    LOGGER.warning("a line")
    assert not (tmp_path / "snapshot").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "taken").touch()
    with pytest.raises(TrainingError, match=r"taken/_x_\d+: the output folder cannot be made .*--path_output"):
        RunFolder(str(tmp_path / "taken"), "x")


def test_two_runs_in_one_second_do_not_write_over_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 1)

    monkeypatch.setattr(output, "datetime", Stopped)
    first = RunFolder(str(tmp_path), "x")
    first.write("results.json", {"run": 1})
    try:
        second = RunFolder(str(tmp_path), "x")
    except TrainingError:
        pass  # to refuse is as good as to take another name
    else:
        second.write("results.json", {"run": 2})
    assert json.loads((first.path / "results.json").read_text()) == {"run": 1}


def test_a_folder_without_results_is_removed(tmp_path: Path):
    (tmp_path / "_x_1").mkdir()
    (tmp_path / "_x_1" / "args.json").touch()
    folder = RunFolder(str(tmp_path), "x")
    folder.write("args.json", {})
    folder.remove_unused()
    assert not folder.path.exists()
    kept = RunFolder(str(tmp_path), "y")
    kept.write("results.json", {})
    kept.remove_unused()
    RunFolder(str(tmp_path), "x", resumed=tmp_path / "_x_1", state=tmp_path / "_x_1" / "step_1").remove_unused()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_x_1", kept.path.name]
