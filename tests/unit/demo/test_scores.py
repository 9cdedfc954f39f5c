"""What the demo says of its runs."""

import json
from pathlib import Path

import pytest

from lavender.data.tsv import TSVWriter
from lavender.demo import scores


def words(*pairs: tuple[str, str]) -> dict:
    return {"words": [{"word": word, "prediction": guess} for word, guess in pairs]}


def test_masked_words_are_counted_by_kind():
    records = [words(("red", "red"), ("a", "the")), words(("square", "circle"), ("blue", "red")), words(("up", "up"))]
    assert scores.by_kind(records) == {"colours": 0.5, "shapes": 0.0, "motions": 1.0}


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """A run of several tasks and an evaluation of retrieval."""
    tasks = {"toy-qa": {"acc_1": 0.9}, "toy-mc": {"acc": 0.8}, "toy-cap": {"CIDEr": 6.5}}
    best = {"tasks": {task: {"epoch": 1, "test": metrics} for task, metrics in tasks.items()}}
    captions = [{"video": "a", "caption": "a red star spins"}, {"video": "b", "caption": "a red cross spins"}]
    for name, results in (
        ("run", {"best": best}),
        ("search", {"zero_shot": {"test": {"r@1": 0.25, "r@5": 0.75, "videos": 40.0}}}),
    ):
        (tmp_path / name / "predictions" / "toy-cap").mkdir(parents=True)
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    path = tmp_path / "run" / "predictions" / "toy-cap" / "test.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in captions))
    (tmp_path / "CAP").mkdir()
    with TSVWriter(tmp_path / "CAP" / "test.caption.tsv") as writer:
        for video in "ab":
            texts = [{"caption": f"{article} red star spins"} for article in ("a", "the")]
            writer.write([video, json.dumps(texts)])
    return tmp_path


def test_the_table_of_a_model_for_all_tasks(demo: Path):
    lines = scores.table(demo / "run", demo / "search", demo)
    assert [line.split("by chance")[0].split()[-1] for line in lines] == ["90%", "80%", "25%", "75%", "50%", "6.5"]
    assert [line.split()[-1] for line in lines[:5]] == ["15%", "20%", "2%", "12%", "0%"]


def test_a_run_of_one_task(demo: Path):
    assert scores.recall(demo / "search") == "R@1 25%, R@5 75%"
    (demo / "search" / "results.json").write_text(json.dumps({"best": {"epoch": 2, "test": {"acc": 0.5}}}))
    assert scores.accuracy(demo / "search", "acc", 0.2) == "50% (chance 20%)"
