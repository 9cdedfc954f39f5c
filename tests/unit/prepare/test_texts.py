"""The text files that are written, as the data sets of the tasks read them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lavender.prepare.rows import Rows
from lavender.prepare.texts import TaskFiles, write_tasks
from lavender.runtime.errors import DataError


def items(kind: str, *entries: dict[str, Any]) -> Rows:
    return Rows(**{kind: [{"where": "t.csv", **entry} for entry in entries]})


def written(rows: Rows, folder: Path, size_vocab: int = 100, direct: bool = False) -> dict[str, TaskFiles]:
    return {task.kind: task for task in write_tasks(rows, "mine", folder, size_vocab, direct)}


def captions(*pairs: Sequence[str]) -> Rows:
    return items("captions", *({"video": video, "split": split, "caption": text} for video, split, text in pairs))


def test_captions(tmp_path: Path):
    rows = captions(("a", "train", "one"), ("a", "train", "zwei ä"), ("b", "val", "three"), ("c", "test", "four"))
    tasks = written(rows, tmp_path)
    assert {kind: task.counts for kind, task in tasks.items()} == {
        "retrieval": {"train": 2, "val": 1, "test": 1},
        "captioning": {"train": 1, "val": 1, "test": 1},
    }
    retrieval = json.loads((tmp_path / "txt_mine-retrieval.json").read_text(encoding="utf-8"))
    assert retrieval["train"] == [{"video": "a", "caption": "one"}, {"video": "a", "caption": "zwei ä"}]
    folder = tmp_path / "mine-cap"
    assert (folder / "train.caption.linelist.tsv").read_text() == "0\t0\n0\t1\n"
    assert "img: ../img_mine.tsv\n" in (folder / "train.yaml").read_text()
    references = json.loads((folder / "train.caption_coco_format.json").read_text(encoding="utf-8"))
    assert [(one["image_id"], one["caption"]) for one in references["annotations"]] == [("a", "one"), ("a", "zwei ä")]
    assert tasks["captioning"].options["val_yaml"] == "mine-cap/val.yaml"


def test_captions_of_videos_that_are_read_directly(tmp_path: Path):
    rows = captions(("a", "train", "one"), ("a", "train", "two"), ("b", "val", "three"), ("c", "test", "four"))
    task = written(rows, tmp_path, direct=True)["pretrain"]
    assert task.counts == {"train": 1, "val": 1, "test": 0}
    assert json.loads((tmp_path / "txt_mine.json").read_text()) == {
        "train": {"a": ["one", "two"]},
        "val": {"b": ["three"]},
    }
    assert "img" not in (tmp_path / "mine-cap" / "train.yaml").read_text()


def test_a_split_without_captions_has_no_file(tmp_path: Path):
    options = written(captions(("a", "train", "one"), ("b", "test", "two")), tmp_path)["captioning"].options
    assert options["val_yaml"] == ""
    assert not (tmp_path / "mine-cap" / "val.yaml").exists()


def question(video: str, split: str, answer: str) -> dict[str, Any]:
    return {"video": video, "split": split, "question": "what", "answer_text": answer}


def test_the_vocabulary_is_of_frequent_training_answers(tmp_path: Path):
    entries = [question("a", "train", word) for word in ("dog", "Cat", "cat", "ox", "cat", "dog")]
    rows = items(
        "questions", *entries, question("b", "test", "CAT"), question("c", "test", "ox"), question("d", "test", "")
    )
    task = written(rows, tmp_path, size_vocab=2)["qaoe"]
    assert task.options["size_vocab"] == 2
    content = json.loads((tmp_path / "txt_mine-qa.json").read_text())
    assert content["ans2label"] == {"cat": 0, "dog": 1}
    assert [item.get("answer") for item in content["train"]] == [1, 0, 0, -1, 0, 1], "ox has no class"
    assert [item.get("answer") for item in content["test"]] == [0, -1, None]
    assert [item.get("answer_text") for item in content["test"]] == ["CAT", "ox", None]


def test_answers_of_several_words_are_told(tmp_path: Path):
    entries = (question("a", "train", "red car"), question("a", "train", "dog"), question("b", "val", "dog"))
    (note,) = written(items("questions", *entries), tmp_path)["qaoe"].notes
    assert "1 of 2 training answers" in note
    assert "main_qaoe_task_specific.py" in note


def test_choices(tmp_path: Path):
    entry = {"video": "a", "question": "what", "options": ["x", "y", "z"]}
    rows = items("choices", entry | {"split": "train", "answer": 2}, entry | {"split": "test", "answer": None})
    task = written(rows, tmp_path)["qamc"]
    assert task.options["size_option"] == 3
    content = json.loads((tmp_path / "txt_mine-mc.json").read_text())
    assert content["train"] == [
        {"video": "a", "question": "what", "answer": 2, "option_0": "x", "option_1": "y", "option_2": "z"}
    ]
    assert "answer" not in content["test"][0]


def test_a_task_that_lacks_a_split(tmp_path: Path):
    task = written(captions(("a", "test", "one")), tmp_path)["retrieval"]
    assert task.options["size_epoch"] == 0
    assert "evaluates alone" in task.notes[0]
    task = written(captions(("a", "train", "one")), tmp_path)["retrieval"]
    assert "nothing to evaluate" in task.notes[0]


def test_options_of_several_sizes(tmp_path: Path):
    entry = {"video": "a", "question": "what", "answer": 0, "split": "train"}
    rows = items("choices", entry | {"options": ["x", "y"]}, entry | {"options": ["x", "y", "z"]})
    with pytest.raises(DataError, match=r"2: t\.csv; 3: t\.csv"):
        written(rows, tmp_path)


def test_texts_without_blanks_between_words(tmp_path: Path):
    rows = captions(("a", "train", "一个男人在厨房里做饭然后他把食物放在桌子上"), ("b", "val", "b"))
    assert written(rows, tmp_path)["retrieval"].options["size_txt"] == 25
    rows = captions(("a", "train", "一个男人在厨房里做饭然后他把食物放在桌子上" * 3), ("b", "val", "长" * 57))
    assert written(rows, tmp_path)["retrieval"].options["size_txt"] == 100


def test_texts_fit_into_size_txt(tmp_path: Path):
    rows = captions(*(("a", "train", "word " * 40) for _ in range(100)), ("b", "val", "word " * 1000))
    assert written(rows, tmp_path)["retrieval"].options["size_txt"] == 100


def test_only_the_tasks_that_are_asked_for(tmp_path: Path):
    rows = captions(("a", "train", "one"), ("b", "val", "two"))
    (task,) = write_tasks(rows, "mine", tmp_path, 10, True, ["pretrain", "qa"])
    assert task.kind == "pretrain"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["txt_mine.json"]
    with pytest.raises(DataError, match=r"--tasks qa.*retrieval, captioning"):
        write_tasks(rows, "mine", tmp_path, 10, False, ["qa"])
