import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lavender.demo import report

KIT = Path(__file__).parents[2] / "conformance" / "kit"


def record(index: int, words: list[tuple[str, str]], right: bool) -> dict:
    guesses = [{"word": word, "prediction": guess} for word, guess in words]
    about = {"index": index, "video": f"vid{index}", "caption": "a red square spins"}
    return {**about, "words": guesses, "matching": {"right": right}}


RECORDS = [
    record(0, [("red", "red"), ("a", "the")], True),
    record(1, [("square", "circle"), ("blue", "red")], False),
    record(2, [("spins", "spins")], True),
    record(3, [], True),
]


def test_scores_are_by_kind_of_word():
    assert report.scores(RECORDS) == {
        "colours": 0.5,
        "shapes": 0.0,
        "motions": 1.0,
        "visual words": 0.5,
        "1-of-4 matching": 0.75,
    }


def test_the_table_of_pretraining_shows_chance_control_and_losses(tmp_path: Path, capsys: pytest.CaptureFixture):
    epochs = [{"train": {"mtm": 2.0, "vtm": 0.6}}, {"train": {"mtm": 0.5, "vtm": 0.1}}]
    (tmp_path / "results.json").write_text(json.dumps({"epochs": epochs}))
    report.print_pretraining(report.scores(RECORDS[1:2]), report.scores(RECORDS), tmp_path)
    said = capsys.readouterr().out
    assert [line.split() for line in said.splitlines() if line.startswith("1-of-4")] == [
        ["1-of-4", "matching", "25%", "0%", "75%"]
    ]
    assert "masked words: 2.00 → 0.50" in said


def test_the_table_of_fine_tuning(tmp_path: Path, capsys: pytest.CaptureFixture):
    runs = []
    for name, before, after in (("a", 0.03, 0.96), ("b", 0.12, 0.91)):
        (tmp_path / name).mkdir()
        results = {"zero_shot": {"test": {"acc": before}}, "best": {"epoch": 2, "test": {"acc": after}}}
        (tmp_path / name / "results.json").write_text(json.dumps(results))
        runs.append(tmp_path / name)
    report.print_fine_tuning({"multiple choice": (runs[0], runs[1])}, {"multiple choice": "acc"})
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.split() == ["multiple", "choice", "20%", "3%", "96%", "12%", "91%"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A frame file whose clips are of one size: those of the toy kit that are copies of `vid0`."""
    first = (KIT / "data" / "toy_val.tsv").read_text().splitlines()[0].split("\t")
    tsv = tmp_path / "img_clips.tsv"
    tsv.write_text("".join("\t".join([f"vid{n}", *first[1:]]) + "\n" for n in range(4)))
    return tsv


def test_the_sheet_of_pretraining_has_a_tile_a_clip(clips: Path, tmp_path: Path):
    records = [record(n, [("red", "red")], True) for n in range(4)]
    report.pretraining_sheet(clips, records, tmp_path / "sheet.png")
    frames = len(clips.read_text().splitlines()[0].split("\t")) - 1
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * (240 + 8 + 2 * 22) + 3 * 8, 3 * 320 * frames + 4 * 8, 3)


def test_the_sheet_of_answers_puts_all_questions_of_a_clip_under_it(clips: Path, tmp_path: Path):
    records = [
        {"video": video, "question": "?", "top": [{"answer": "red", "probability": 0.9}], "right": right}
        for video, right in (("vid0", True), ("vid0", False), ("vid1", True), ("vid1", True))
    ]
    report.answer_sheet(clips, records, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png")).astype(np.int64)
    assert sheet.shape[0] == 240 + 8 + 2 * 22 + 2 * 8
    under = sheet[8 + 240 :]  # the text alone
    red = (under[..., 2] - under[..., :2].max(-1)) > 80  # BGR
    green = (under[..., 1] - np.maximum(under[..., 0], under[..., 2])) > 60
    assert red.any()
    assert green.any()
    assert not red[:, sheet.shape[1] // 3 :].any(), "only the first clip has a wrong answer"


def test_the_table_of_retrieval(tmp_path: Path, capsys: pytest.CaptureFixture):
    runs = []
    for name, recall, rank in (("a", 0.25, 3.5), ("b", 0.75, 1)):
        (tmp_path / name).mkdir()
        metrics = {"r@1": recall, "r@5": 1.0, "median_rank": rank, "videos": 40.0}
        (tmp_path / name / "results.json").write_text(json.dumps({"zero_shot": {"test": metrics}, "epochs": []}))
        runs.append(tmp_path / name)
    report.print_retrieval({"MLM": (runs[0], runs[1])})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert rows == [
        ["R@1", "2%", "25%", "75%"],
        ["R@5", "12%", "100%", "100%"],
        ["median", "rank", "20.5", "3.5", "1.0"],
    ]


def test_the_sheet_of_retrieval_shows_what_was_found_first(clips: Path, tmp_path: Path):
    found = [("vid0", 1.0), ("vid2", 2.5), ("vid2", 1.0)]
    records = [{"prediction": video, "caption": "a red square", "rank": rank} for video, rank in found]
    report.retrieval_sheet(clips, records, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[0] == 240 + 8 + 2 * 22 + 2 * 8


def test_the_table_of_captions(tmp_path: Path, capsys: pytest.CaptureFixture):
    references = {"x": ["a red star spins", "the red star spins"], "y": ["a blue cross grows"]}
    found = {
        "real": [("x", "the red star spins"), ("y", "a blue star grows")],  # both colours, one of two word for word
        "blank": [("x", "a green star spins"), ("y", "a red or blue cross")],
    }
    for name, captions in found.items():
        (tmp_path / name / "predictions").mkdir(parents=True)
        lines = [json.dumps({"video": video, "caption": text}) + "\n" for video, text in captions]
        (tmp_path / name / "predictions" / "test.jsonl").write_text("".join(lines))
    real = {"epochs": [{}], "best": {"test": {"CIDEr": 7.5}}}
    for name, results in (("real", real), ("blank", {"zero_shot": {"test": {"CIDEr": 0.25}}})):
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    report.print_captions(tmp_path / "real", tmp_path / "blank", references)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-3:]]
    assert rows == [
        ["right", "colour", "17%", "0%", "100%"],
        ["word", "for", "word", "0%", "0%", "50%"],
        ["CIDEr", "0.25", "7.50"],
    ]


def test_the_sheet_of_captions_is_green_where_a_reference_was_found(clips: Path, tmp_path: Path):
    records = [{"video": "vid0", "caption": "the red star"}, {"video": "vid1", "caption": "the red star"}]
    references = {"vid0": ["a red star", "the red star"], "vid1": ["a blue star"]}
    report.caption_sheet(clips, records, references, tmp_path / "sheet.png")
    sheet = cv2.imread(str(tmp_path / "sheet.png")).astype(np.int64)[8 + 240 :]
    red = (sheet[..., 2] - sheet[..., :2].max(-1)) > 80  # BGR
    middle = sheet.shape[1] // 3
    assert red[:, middle:].any()
    assert not red[:, :middle].any()
