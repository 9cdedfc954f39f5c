import json
from pathlib import Path

import cv2
import pytest

from lavender.data.tsv import TSVReader
from lavender.demo.tour import call, draw, print_table, scores
from lavender.runtime.errors import TrainingError

KIT = Path(__file__).parents[2] / "conformance" / "kit"


def record(index: int, words: list[tuple[str, str]], right: bool) -> dict:
    guesses = [{"word": word, "prediction": guess} for word, guess in words]
    return {"index": index, "caption": "a red square spins", "words": guesses, "matching": {"right": right}}


RECORDS = [
    record(0, [("red", "red"), ("a", "the")], True),
    record(1, [("square", "circle"), ("blue", "red")], False),
    record(2, [("spins", "spins")], True),
    record(3, [], True),
]


def test_scores_are_by_kind_of_word():
    assert scores(RECORDS) == {
        "colours": 0.5,
        "shapes": 0.0,
        "motions": 1.0,
        "visual words": 0.5,
        "1-of-4 matching": 0.75,
    }


def test_the_table_shows_chance_control_and_losses(tmp_path: Path, capsys: pytest.CaptureFixture):
    epochs = [{"train": {"mtm": 2.0, "vtm": 0.6}}, {"train": {"mtm": 0.5, "vtm": 0.1}}]
    (tmp_path / "results.json").write_text(json.dumps({"epochs": epochs}))
    print_table(scores(RECORDS[1:2]), scores(RECORDS), tmp_path)
    said = capsys.readouterr().out
    assert [line.split() for line in said.splitlines() if line.startswith("1-of-4")] == [
        ["1-of-4", "matching", "25%", "0%", "75%"]
    ]
    assert "masked words: 2.00 → 0.50" in said


def test_the_picture_has_a_tile_a_clip(tmp_path: Path):
    tsv = KIT / "data" / "toy_val.tsv"
    frames = len(TSVReader(tsv).row(0)) - 1
    same_size = [record(0, [("red", "red")], True)] * 4  # tiles of one sheet are equally large
    draw(tsv, same_size, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (240 + 52) + 3 * 8, 3 * 320 * frames + 4 * 8, 3)


def test_a_script_that_fails_ends_the_tour():
    with pytest.raises(TrainingError, match=r"extract_tsv\.py ended with exit code 2"):
        call("_tools/extract_tsv.py", "--path=/nowhere/at_all")
