"""Files that are not as they should be: what is harmless is read, the rest is told with file, line and key."""

import json
import re
from pathlib import Path

import pytest

from tests.unit.prepare.public import public_world as world
from tests.unit.prepare.public.public_world import CLIPS, EVERY, Convert, Files, made


def as_texts(files: Files) -> dict[str, str]:
    return {name: text if isinstance(text, str) else json.dumps(text, indent=1) for name, text in files.items()}


def everything(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "made"
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("name", EVERY)
def test_line_ends_byte_order_marks_and_blank_lines_are_harmless(convert: Convert, tmp_path: Path, name: str):
    files = as_texts(EVERY[name])
    assert convert(name, files).code == 0
    expected = everything(tmp_path)
    for change in (
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: text + "\n",
        lambda text: text.removesuffix("\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n",
    ):
        done = convert(name, {file: change(text) for file, text in files.items()}, "--overwrite")
        assert done.code == 0, done.err
        assert everything(tmp_path) == expected


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_file_is_named_with_those_that_are_there(convert: Convert, tmp_path: Path, name: str):
    done = convert(name, {"notes.txt": "hello\n"})
    assert done.code == 2
    assert "no such file" in done.err
    assert "the folder has notes.txt" in done.err
    assert not (tmp_path / "made").exists(), "nothing is written"


@pytest.mark.parametrize("name", EVERY)
def test_a_file_of_nothing_or_of_something_else(convert: Convert, tmp_path: Path, name: str):
    for content, words in (("", "empty"), ("<!DOCTYPE html>\n<html></html>", "HTML"), (b"\xff\xfeA\0B\0", "UTF-16")):
        done = convert(name, dict.fromkeys(EVERY[name], content))
        assert (done.code, words in done.err) == (2, True), done.err
        assert not list(tmp_path.glob("made/*.json"))


def test_text_of_another_encoding(convert: Convert, tmp_path: Path):
    files = {name: text.encode("cp1252") for name, text in world.WEBVID.items()}
    done = convert("webvid", files)
    assert (done.code, "--encoding" in done.err, "results_2M_val.csv" in done.err) == (2, True, True)
    assert not list(tmp_path.glob("made/*.json"))
    assert convert("webvid", files, "--encoding", "cp1252").code == 0
    assert made(tmp_path, "txt_webvid2.5m.json")["val"] == {"1010": ["Été à la mer"]}
    done = convert("webvid", files, "--encoding", "klingon", "--overwrite")
    assert (done.code, "klingon" in done.err) == (2, True)


def changed(files: Files, file: str, old: str, new: str) -> Files:
    text = as_texts(files)[file]
    assert re.search(old, text), f"{old} is not in {file}"
    return {**files, file: re.sub(old, new, text, count=1)}


TRAIN_ACTION, TEST_ACTION = "Train_action_question.csv", "Test_action_question.csv"
FIB, MC_TEST = "LSMDC16_annos_val_FIB.csv", "LSMDC16_multiple_choice_test_randomized.csv"
VIDEOS = "train_val_videodatainfo.json"
# data set, file, what is replaced by what in it, and what the message says besides the file's name
WRONG = {
    "a renamed column": ("tgif-action", TRAIN_ACTION, "question", "query", ["line 1", "'question'", "'query'"]),
    "a missing column": ("tgif-frame", "Test_frameqa_question.csv", "\tanswer", "", ["line 1", "'answer'"]),
    "a column twice": ("tgif-action", TEST_ACTION, "vid_id", "a1", ["line 1", "'a1'", "twice"]),
    "a renamed column of a csv": ("webvid", "results_2M_val.csv", "videoid", "id", ["line 1", "'videoid'", "'id'"]),
    "a missing column of a csv": ("msrvtt", "MSRVTT_JSFUSION_test.csv", ",sentence", "", ["line 1", "'sentence'"]),
    "a cell too few": ("tgif-action", TRAIN_ACTION, "\tjump", "", ["line 2", "9 cells", "10 columns"]),
    "a tab within a text": ("tgif-action", TEST_ACTION, "wave a", "wave\ta", ["line 2", "11 cells"]),
    "a comma without quotes": ("webvid", "results_2M_train.csv", "Senior", "Senior, old", ["line 3", "6 cells"]),
    "a quote that never ends": ("webvid", "results_2M_train.csv", 'forest"', "forest", ["line 2", "quote"]),
    "a blank cell": ("tgif-action", TRAIN_ACTION, "\trun", "\t", ["line 2", '"a2"', "blank"]),
    "an option that is none": ("tgif-action", TEST_ACTION, "\t1\tACTION", "\t5\tACTION", ["line 2", '"answer"', "'5'"]),
    "an answer in words": ("tgif-action", TEST_ACTION, "\t1\tACTION", "\trun\tACTION", ["line 2", '"answer"', "'run'"]),
    "answers that count from 0": ("lsmdc-mc", MC_TEST, "\t2\n", "\t0\n", ["line 1", '"answer"', "'0'"]),
    "a header in lsmdc": ("lsmdc", "LSMDC16_annos_val.csv", "^", "a\tb\tc\td\te\tf\n", ["line 1", "header"]),
    "too many columns in lsmdc": ("lsmdc", "LSMDC16_annos_val.csv", "runs.", "runs.\tx", ["line 1", "7 cells"]),
    "no gap": ("lsmdc-fib", FIB, "_____", "runs", ["line 1", '"fill_in"']),
    "no answer to train on": ("lsmdc-fib", FIB, "\truns", "\t", ["line 1", '"blank"']),
    "json that is cut": ("msrvtt-qa", "val_qa.json", r"\]", "", ["line", "column"]),
    "json that is no list": ("msrvtt-qa", "val_qa.json", r"^[^\0]*$", "{}", ["list", "dict"]),
    "an empty list": ("didemo", "val_data.json", r"^[^\0]*$", "[]", ["empty list"]),
    "a renamed key": ("msrvtt-qa", "val_qa.json", '"question"', '"query"', ["entry 0", '"question"', "missing"]),
    "a key of another type": ("didemo", "val_data.json", '"a dog runs"', "[1]", ["entry 0", '"description"']),
    "no number of a video": ("msrvtt-qa", "val_qa.json", "1201", '"x9"', ["entry 0", '"video_id"', "'x9'"]),
    "a split of its own": ("msrvtt", VIDEOS, '"validate"', '"later"', ['"videos"', "entry 2", "'later'"]),
    "no sentences": ("msrvtt", VIDEOS, '"sentences"', '"texts"', ['"sentences"', "missing"]),
    "a sentence of no video": ("msrvtt", VIDEOS, '"video6513",', '"video9",', ["'video6513'"]),
    "no caption": ("msvd", "AllVideoDescriptions.txt", "a man cooks", " ", ["line 5", "'abc_1_2'"]),
    "a list too few": ("msvd", "val_list.txt", r"^[^\0]*$", "-4ws_uPCj_5_15\n", ["line 1", "'-4ws_uPCj_5_15'"]),
    "no mapping": ("msvd-qa", "youtube_mapping.txt", "vid1201", "vid1202", ["vid1201"]),
    "a broken mapping": ("msvd-qa", "youtube_mapping.txt", "vid1201", "", ["line 2"]),
    "a tab too few in cc3m": ("cc3m", "Train_GCC-training.tsv", "\thttp://x.org/2", "", ["line 2", "1 cells"]),
    "four options": ("msrvtt-mc", "MSR_MC_test.csv", "\ta5", "", ["line 1", "'a5'"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_its_place(convert: Convert, tmp_path: Path, name: str):
    dataset, file, old, new, words = WRONG[name]
    done = convert(dataset, changed(EVERY[dataset], file, old, new))
    assert done.code == 2, done.out
    told = done.err.splitlines()
    assert len(told) == 1, "one line"
    if name not in ("no mapping",):
        assert file in told[0]
    for word in words:
        assert word in told[0]
    assert not list(tmp_path.glob("made/**/*.json")), "nothing is written"


def test_columns_that_nobody_knows_are_told(convert: Convert):
    files = {name: text.replace("\n", "\tnew\n") for name, text in world.TGIF_FRAME.items()}
    done = convert("tgif-frame", files)
    assert done.code == 0, done.err
    assert done.out.count("unknown columns are not used: 'new'") == 2


def test_columns_may_be_in_another_order_and_case(convert: Convert, tmp_path: Path):
    files = {"results_2M_train.csv": "Name,VideoID\nA dog,7\n", "results_2M_val.csv": "name,videoid\nA cat,8\n"}
    assert convert("webvid", files).code == 0
    assert made(tmp_path, "txt_webvid2.5m.json") == {"train": {"7": ["A dog"]}, "val": {"8": ["A cat"]}}


def test_malformed_rows_can_be_left_out(convert: Convert, tmp_path: Path):
    files = changed(world.TGIF_ACTION, TRAIN_ACTION, "\tjump", "")
    files = changed(files, TEST_ACTION, "\t1\tACTION", "\t5\tACTION")
    done = convert("tgif-action", files, "--skip_bad")
    assert done.code == 1
    assert "2 malformed rows" in done.err
    assert f"{TRAIN_ACTION}, line 2" in done.err
    found = made(tmp_path, "txt_tgif-action.json")
    assert [len(found[split]) for split in ("train", "val", "test")] == [1, 0, 1]


def test_a_row_that_is_left_out_leaves_the_numbers_of_the_others(convert: Convert, tmp_path: Path):
    files = {**world.CC3M, "Train_GCC-training.tsv": "broken\na café\thttp://x.org/2\n"}
    assert convert("cc3m", files, "--skip_bad").code == 1
    assert list(made(tmp_path, "txt_cc3m.json")["train"]) == ["00000001"]
    assert list(made(tmp_path, "txt_cc3m.json")["val"]) == ["00000002"]


def test_videos_that_are_trained_and_tested_on(convert: Convert):
    files = {**world.MSRVTT, "MSRVTT_train.7k.csv": "video_id\nvideo0\nvideo7010\n"}
    done = convert("msrvtt", files)
    assert (done.code, "'video7010'" in done.err, "trained on too" in done.err) == (2, True, True)


def test_two_files_of_one_name(convert: Convert):
    entries = [{"description": "a", "video": name} for name in ("a.avi", "a.mov")]
    done = convert("didemo", {**world.DIDEMO, "val_data.json": entries})
    assert (done.code, "'a.avi'" in done.err, "'a.mov'" in done.err) == (2, True, True)


def test_several_gaps_in_a_sentence_are_told(convert: Convert, tmp_path: Path):
    files = {**world.LSMDC_FIB, FIB: world.tsv(f"{CLIPS[1]}|||||He runs.|_____ and ____.|runs")}
    done = convert("lsmdc-fib", files)
    assert made(tmp_path, "txt_lsmdc-fib.json")["val"][0]["question"] == "[MASK] and [MASK]."
    assert "1 sentences have more than one gap" in done.out
