import logging
import re
from pathlib import Path

import pytest

from lavender.runtime.logging import BAR_SHOWS_IT, LOGGER, Pace, log_to_file, progress, start_logging, stop_logging


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


def test_bars_of_the_first_process_alone(terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    assert list(progress(range(3), desc="reading")) == [0, 1, 2]
    assert "reading" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    bar = progress(range(3), desc="reading")
    assert list(bar) == [0, 1, 2]
    assert bar.format_dict["rate"] is None
    assert capsys.readouterr() == ("", "")


def test_lines_do_not_break_a_bar(terminal, capsys: pytest.CaptureFixture):
    start_logging()
    for number in progress(range(2), desc="reading"):
        LOGGER.info("line %d", number)
    assert re.fullmatch(r"\S+  line 0\n\S+  line 1\n", capsys.readouterr().out)


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch):
    """stderr is a terminal."""
    monkeypatch.setattr("lavender.runtime.logging.has_bars", lambda: True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """`clock[0]`: the time, in seconds, that a `Pace` reads."""
    now = [100.0]
    monkeypatch.setattr("lavender.runtime.logging.time.monotonic", lambda: now[0])
    return now


def test_a_line_is_due_at_once_and_then_every_30_seconds(clock: list[float]):
    pace, seen = Pace(), []
    for clock[0] in (0.0, 10.0, 29.0, 31.0, 50.0, 62.0):
        seen.append(pace.due())
    assert seen == [True, False, False, True, False, True]


def test_a_line_for_everything_with_verbose(clock: list[float]):
    LOGGER.setLevel(logging.DEBUG)
    pace = Pace()
    assert [pace.due() for _ in range(3)] == [True, True, True]


def test_verbose_lasts_for_one_run(capsys: pytest.CaptureFixture):
    LOGGER.setLevel(logging.DEBUG)
    start_logging()
    LOGGER.debug("all of it")
    stop_logging()
    start_logging()
    LOGGER.debug("too much")
    out = capsys.readouterr().out
    assert ("all of it" in out, "too much" in out) == (True, False)


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture, clock: list[float]):
    start_logging()
    for _ in progress(range(4), desc="reading", unit="batch", total=4, mininterval=0):
        clock[0] += 20.0
    out, err = capsys.readouterr()
    assert re.findall(r"reading: (\d) of 4 batch", out) == ["2", "4"]
    assert err == ""


def test_without_a_terminal_quick_work_is_silent(capsys: pytest.CaptureFixture):
    start_logging()
    assert list(progress(range(3), desc="reading")) == [0, 1, 2]
    with progress(total=5, desc="scoring") as bar:
        bar.update(5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("verbose", [False, True])
def test_a_terminal_has_bars_for_what_the_file_has_lines_for(
    verbose: bool, terminal, tmp_path: Path, capsys: pytest.CaptureFixture
):
    if verbose:
        LOGGER.setLevel(logging.DEBUG)
    start_logging()
    log_to_file(tmp_path / "stdout.txt")
    LOGGER.info("step 3", extra=BAR_SHOWS_IT)
    LOGGER.info("val: 5 samples")
    out = capsys.readouterr().out
    assert ("step 3" in out, "val: 5 samples" in out) == (verbose, True)
    assert "step 3" in (tmp_path / "stdout.txt").read_text()
