"""What the page does with clips and texts, without a browser and without a model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lavender.app import drawing
from lavender.app.clips import Uploads
from lavender.app.decoding import Limits
from lavender.app.desk import MOST_LETTERS, MOST_OPTIONS, MOST_TEXTS, Desk
from lavender.app.drawing import Tile
from lavender.inference.results import Answer, Choice, Found, Guess, Hit, Match
from lavender.runtime.errors import DataError

EVIL = "<script>alert('1')</script>"


class Asked:
    """A predictor that remembers what it was asked."""

    config = SimpleNamespace(stored_frames=5, size_frame=2)

    def answer(self, frames: np.ndarray, question: str, k: int) -> Answer:
        self.frames, self.said = frames, (question, k)
        return Answer("", [Guess(EVIL, 0.75), Guess("no", 0.25)], [], question)

    def choose(self, frames: np.ndarray, question: str, options: list[str]) -> Choice:
        self.said = (question, options)
        return Choice("", [Guess(option, 0.5) for option in options], [], question, 0)

    def match(self, frames: np.ndarray, texts: list[str]) -> Match:
        self.said = (texts,)
        return Match("", [Guess(text, 0.5) for text in texts], [])


class Decoded:
    """A decoder whose frames have the shade of their number; a clip called `broken…` has none."""

    def __init__(self) -> None:
        self.read: list[Path] = []

    def frames(self, path: Path, count: int, name: str) -> np.ndarray:
        self.read.append(path)
        assert path.is_file()
        if path.name.startswith("broken"):
            raise DataError(f"{name} cannot be decoded")
        return np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(4, 1).repeat(4, 2).repeat(3, 3)

    def each(self, paths: list[Path], count: int) -> list[Any]:
        frames = np.zeros((count, 4, 4, 3), np.uint8)
        return [DataError("broken") if path.name.startswith("broken") else frames for path in paths]


class Index:
    def check_model(self, predictor: Any) -> None: ...

    def search(self, predictor: Any, texts: list[str], k: int) -> list[Found]:
        return [Found(texts[0], [Hit(0, "/clips/a.mp4", 2.5), Hit(1, "/clips/broken.mp4", -1.25)])]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "uploads").mkdir()
    (tmp_path / "example.mp4").write_bytes(b"x")
    uploads = Uploads(tmp_path / "uploads", Limits())
    examples = [tmp_path / "example.mp4", tmp_path / "broken.mp4"]
    return Desk(Asked(), Decoded(), uploads, examples, {"clips.index": Index()})  # type: ignore[arg-type, dict-item]


def upload(desk: Desk, name: str) -> dict[str, str]:
    folder = desk.uploads.folder / "0123"
    folder.mkdir()
    (folder / name).write_bytes(b"x")
    return {"path": str(folder / name), "orig_name": name}


def test_an_upload_is_decoded_and_removed(desk: Desk):
    key, shown = desk.take_upload(upload(desk, "a&b.mp4"))
    assert "a&amp;b.mp4" in shown
    assert shown.count("<img") == 2
    assert list(desk.uploads.folder.iterdir()) == []
    desk.ask(key, " who? ")
    assert desk.predictor.frames.shape == (5, 4, 4, 3)  # type: ignore[attr-defined]
    assert desk.predictor.said == ("who?", 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["broken.mp4", "a.txt"])
def test_a_broken_upload_is_removed_too(desk: Desk, name: str):
    with pytest.raises(DataError, match=name):
        desk.take_upload(upload(desk, name))
    assert list(desk.uploads.folder.iterdir()) == []


def test_another_file_is_not_even_opened(desk: Desk, tmp_path: Path):
    for payload in ({"path": str(tmp_path / "example.mp4")}, {"path": "/etc/passwd"}, None, "example.mp4"):
        with pytest.raises(DataError, match="no such upload"):
            desk.take_upload(payload)
    assert desk.decoder.read == []  # type: ignore[attr-defined]
    assert (tmp_path / "example.mp4").is_file()


def test_an_example_stays(desk: Desk, tmp_path: Path):
    _, shown = desk.take_example(0)
    assert "example.mp4" in shown
    assert (tmp_path / "example.mp4").is_file()
    for number in (-1, 2, "0", None, 0.0):
        with pytest.raises(DataError, match="no such example"):
            desk.take_example(number)
    assert desk.show_examples().count("data-number") == 2
    assert "no picture" in desk.show_examples()


def test_texts_and_their_bounds(desk: Desk):
    key, _ = desk.take_example(0)
    assert EVIL not in desk.ask(key, "who")
    assert "75.0%" in desk.ask(key, "who")
    desk.choose(key, "", "a\n\n b \n")
    assert desk.predictor.said == ("", ["a", "b"])  # type: ignore[attr-defined]
    desk.compare(key, "a dog\na cat")
    assert desk.predictor.said == (["a dog", "a cat"],)  # type: ignore[attr-defined]
    for call, words in (
        (lambda: desk.ask(key, "  "), "question is empty"),
        (lambda: desk.ask(key, "x" * (MOST_LETTERS + 1)), f"at most {MOST_LETTERS}"),
        (lambda: desk.choose(key, "who", "a\n" * 10_000), f"10,000 options.*at most {MOST_OPTIONS}"),
        (lambda: desk.compare(key, "a\n" * (MOST_TEXTS + 1)), f"at most {MOST_TEXTS}"),
        (lambda: desk.compare(key, "\n"), "give texts"),
        (lambda: desk.compare(key, "x" * (MOST_LETTERS + 1)), f"at most {MOST_LETTERS}"),
        (lambda: desk.search("clips.index", ""), "text is empty"),
        (lambda: desk.search("/etc", "a dog"), "no such index"),
        (lambda: desk.ask(None, "who"), "choose a clip first"),
        (lambda: desk.ask("other", "who"), "choose it again"),
    ):
        with pytest.raises(DataError, match=words):
            call()


def test_a_search_shows_hits_whose_file_is_gone(desk: Desk):
    shown = desk.search("clips.index", "a dog")
    assert shown.index("1. a.mp4") < shown.index("2. broken.mp4")
    assert (shown.count("<img"), shown.count("no picture")) == (1, 1)
    assert "2.50" in shown
    assert "-1.25" in shown
    assert "/clips/" not in shown


def test_all_text_is_escaped():
    frame = np.zeros((4, 4, 3), np.uint8)
    for drawn in (
        drawing.frames(EVIL, [frame]),
        drawing.bars([Guess(EVIL, 1)]),
        drawing.sentence(EVIL, 1),
        drawing.tiles([Tile(frame, EVIL, EVIL), Tile(None, EVIL)]),
        drawing.buttons([Tile(frame, f"'{EVIL}", EVIL)]),
        drawing.fault(EVIL),
        drawing.note(EVIL),
        drawing.facts([(EVIL, EVIL)]),
    ):
        assert "<script" not in drawn
        assert "alert('1')" not in drawn
