import re
from pathlib import Path

import pytest

from lavender.runtime.logging import LOGGER, log_to_file, progress, start_logging, stop_logging


@pytest.fixture(autouse=True)
def _logger_put_back():
    before = LOGGER.propagate, LOGGER.level, list(LOGGER.handlers)
    yield
    stop_logging()
    LOGGER.propagate, LOGGER.level, LOGGER.handlers = before


def test_the_first_process_speaks_on_its_console(capsys: pytest.CaptureFixture):
    start_logging()
    LOGGER.info("epoch %d", 3)
    LOGGER.warning("odd")
    LOGGER.debug("nobody asks")
    out, err = capsys.readouterr()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  epoch 3\n\d\d:\d\d:\d\d  odd\n", out)
    assert err == ""


def test_starting_twice_says_nothing_twice(capsys: pytest.CaptureFixture):
    start_logging()
    start_logging()
    LOGGER.info("once")
    assert capsys.readouterr().out.count("once") == 1


def test_the_others_only_warn(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    start_logging()
    log_to_file(tmp_path / "stdout.txt")
    LOGGER.info("epoch 3")
    LOGGER.warning("odd")
    assert capsys.readouterr() == ("", "rank 1: odd\n")
    assert not (tmp_path / "stdout.txt").exists()


def test_every_line_also_to_the_file_until_it_is_closed(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "stdout.txt"
    start_logging()
    log_to_file(path)
    LOGGER.info("größer")
    stop_logging()
    LOGGER.info("later")
    text = path.read_text(encoding="utf-8")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  größer\n", text)
    assert LOGGER.handlers == []


def test_bars_of_the_first_process_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    assert list(progress(range(3), desc="reading")) == [0, 1, 2]
    assert "reading" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    bar = progress(range(3), desc="reading")
    assert list(bar) == [0, 1, 2]
    assert bar.format_dict["rate"] is None
    assert capsys.readouterr() == ("", "")


def test_lines_do_not_break_a_bar(capsys: pytest.CaptureFixture):
    start_logging()
    for number in progress(range(2), desc="reading"):
        LOGGER.info("line %d", number)
    assert re.fullmatch(r"\S+  line 0\n\S+  line 1\n", capsys.readouterr().out)
