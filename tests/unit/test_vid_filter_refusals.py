"""What the filter of several tasks' training splits refuses, and what it does about files that are missing."""

import json
import os
from pathlib import Path

import pytest

from lavender.runtime.errors import DataError
from tests.unit.filter_world import (
    DEFAULT_COCO,
    LINE_LIST,
    TEXTS,
    TRAIN_YAML,
    VAL_FILES,
    VAL_YAML,
    YAMLS,
    filter_training,
    small_msvd,
    snapshot,
    texts_of,
    write_split,
    write_world,
)


def refused(root: Path, *words: str, output: Path | None = None, dataset: str = "msvd", **options: bool) -> None:
    """The tool names the fault in one line and leaves all as it was."""
    before = snapshot(root.parent)
    with pytest.raises(DataError) as fault:
        filter_training(dataset, root, output or root / "out", **options)
    message = str(fault.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert snapshot(root.parent) == before
    assert not (root / "out").exists()


def test_an_output_that_is_an_input(root: Path, tmp_path: Path):
    small_msvd(root, tested="b")
    (tmp_path / "link").symlink_to(root)
    for output in (root, tmp_path / "link", root / "MSVD" / ".."):
        refused(root, "txt_msvd-retrieval.json would overwrite", "--output_folder", output=output)
    out = tmp_path / "filtered"
    out.mkdir()
    (out / "txt_msvd-qa.json").symlink_to(root / "txt_msvd-retrieval.json")  # of another task, but read as well
    refused(root, f"{out / 'txt_msvd-qa.json'} would overwrite {root / 'txt_msvd-retrieval.json'}", output=out)
    (out / "txt_msvd-qa.json").unlink()
    (out / "MSVD").symlink_to(root / "MSVD")
    refused(root, f"{TRAIN_YAML} would overwrite", output=out)
    (out / "MSVD").unlink()
    filter_training("msvd", root, out)
    write_split(root / "MSVD", "train", "abc", caption_linelist=str(out / "MSVD" / LINE_LIST))
    refused(root, f"{out / 'MSVD' / LINE_LIST} would overwrite", output=out)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("txt_msvd-qa.json", '{"train": [', ["line 1, column 12"]),
        ("txt_msvd-qa.json", "[]", ["a JSON object"]),
        ("txt_msvd-qa.json", '{"train": {"a": 1}}', ['"train" is a dict']),
        ("txt_msvd-qa.json", '{"train": [{"video": "a"}, {"video": 7}]}', ["train, item 1 (counted from 0)"]),
        ("txt_msvd-qa.json", '{"train": [], "val": ["a"]}', ["val, item 0", '"video"']),
        ("txt_msvd-qa.json", '{"train": [], "test": [{"caption": "a"}]}', ["test, item 0"]),
        (f"MSVD/{TRAIN_YAML}", "img: [", ["line 1", "not valid YAML"]),
        (f"MSVD/{TRAIN_YAML}", "img: train.img.tsv\n", ['"caption" is missing']),
        (f"MSVD/{VAL_YAML}", "img: gone.tsv\n", ['"img" names', "gone.tsv"]),
        (f"MSVD/{VAL_YAML}", f"{VAL_FILES}caption_coco_format: gone.json", ["gone.json, which is not there"]),
        (f"MSVD/{VAL_YAML}", f"{VAL_FILES}caption_coco_format: 5", ['"caption_coco_format" is 5']),
        (f"MSVD/{VAL_YAML}", f"{VAL_FILES}label: {{a: 1}}", ['"label" is {']),
        ("MSVD/test.caption.tsv", "z\tno captions\n", ["line 1", "not valid JSON"]),
        (f"MSVD/{DEFAULT_COCO}", "{}", ['no list of "annotations"']),
        (f"MSVD/{DEFAULT_COCO}", '{"annotations": [{"image_id": null}]}', ["annotation 0", '"image_id"']),
        (f"MSVD/{DEFAULT_COCO}", '{"annotations": ["y"]}', ["annotation 0 (counted from 0)"]),
    ],
)
def test_a_broken_file(root: Path, name: str, content: str, words: list[str]):
    small_msvd(root)
    (root / name).write_text(content)
    refused(root, str(root / name), *words)


@pytest.mark.parametrize("name", ["txt_msvd-qa.json", *(f"MSVD/{name}" for name in YAMLS)])
def test_a_missing_file(root: Path, caplog, name: str):
    small_msvd(root, tested="b")
    (root / name).unlink()
    refused(root, str(root / name), "no such file", "--allow_missing")
    filter_training("msvd", root, root / "out", allow_missing=True)
    assert f"{root / name} is missing and left out" in caplog.text
    assert not (root / "out" / name).exists()
    left = ["a", "b", "c"] if name == "txt_msvd-qa.json" else ["a", "c"]
    assert texts_of(root / "out", "msvd-retrieval") == left
    assert "earlier run" not in caplog.text
    (root / "out" / name).touch()
    filter_training("msvd", root, root / "out", allow_missing=True)
    assert f"{root / 'out' / name} of an earlier run stays as it is" in caplog.text


def test_no_file_at_all(root: Path):
    names = [f"txt_{task}.json" for task in TEXTS["lsmdc"]]
    refused(root, *names, "no such file", dataset="lsmdc")
    refused(root, *names, "no such file", dataset="lsmdc", allow_missing=True)


def test_msrvtt_mc_may_be_missing(root: Path, caplog):
    stay = write_world(root)["msrvtt"]
    (root / "txt_msrvtt-mc.json").unlink()
    filter_training("msrvtt", root, root / "out")
    assert "txt_msrvtt-mc.json is missing and left out" in caplog.text
    assert texts_of(root / "out", "msrvtt-qa") == 2 * ["msrvtte", "msrvttf", *stay]  # the two that it alone tests on


def test_a_file_is_written_whole_or_not_at_all(root: Path, monkeypatch: pytest.MonkeyPatch):
    small_msvd(root)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        filter_training("msvd", root, root / "out")
    assert snapshot(root / "out") == {}


@pytest.mark.parametrize(("split", "name"), [("val", "validation"), ("test", "Testing"), ("train", "training")])
def test_a_split_under_another_name(root: Path, split: str, name: str):
    """Its videos would stay in the training splits of the other tasks."""
    small_msvd(root)
    path = root / "txt_msvd-qa.json"
    texts = json.loads(path.read_text())
    texts[name] = texts.pop(split)
    path.write_text(json.dumps(texts))
    refused(root, str(path), f'"{name}"', f'"{split}"')
