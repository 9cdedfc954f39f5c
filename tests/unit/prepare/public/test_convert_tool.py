"""The tool around the readers: videos that are looked for, files that are there already, options, the next command."""

import json
import re
import shlex
from pathlib import Path

import pytest

from lavender.config.load import load_config
from lavender.prepare.public.names import NAMES
from lavender.prepare.public.outputs import Questions
from lavender.prepare.public.source import Source
from tests.unit.prepare.public import public_world as world
from tests.unit.prepare.public.public_world import EVERY, ROOT, Convert, lay, made
from tests.warm import warm


def frames(path: Path, *videos: str) -> str:
    path.write_text("".join(f"{video}\t/9j/4AAQ\n" for video in videos))
    return str(path)


def videos(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def everything(tmp_path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted((tmp_path / "made").rglob("*")) if file.is_file()}


def test_videos_that_are_missing_are_counted_and_named(convert: Convert, tmp_path: Path):
    done = convert(
        "tgif-frame", world.TGIF_FRAME, "--frames", frames(tmp_path / "img_tgif.tsv", "tumblr_Train1_250.gif")
    )
    assert done.code == 1
    assert "1 of 2 videos are missing: 'tumblr_Test1_250'" in done.out
    assert "items without their video: 2 test (kept; --drop_missing leaves them out)" in done.out
    assert len(made(tmp_path, "txt_tgif-frame.json")["test"]) == 2


def test_items_of_missing_videos_can_be_left_out(convert: Convert, tmp_path: Path):
    there = frames(tmp_path / "img_tgif.tsv", "tumblr_Train1_250", "tumblr_other")
    done = convert("tgif-frame", world.TGIF_FRAME, "--frames", there, "--drop_missing")
    assert done.code == 1
    assert "2 test (left out)" in done.out
    found = made(tmp_path, "txt_tgif-frame.json")
    assert (len(found["train"]), found["test"]) == (2, [])


def test_only_a_few_missing_videos_are_named(convert: Convert, tmp_path: Path):
    rows = [f"tumblr_{n}|how many ?|two|1|F{n}|{n}|two" for n in range(9)]
    files = {
        **world.TGIF_FRAME,
        "Test_frameqa_question.csv": world.tsv("gif_name|question|answer|type|vid_id|key|description", *rows),
    }
    there = frames(tmp_path / "img_tgif.tsv", "tumblr_Train1_250", "TUMBLR_0")
    done = convert("tgif-frame", files, "--frames", there)
    line = next(line for line in done.out.splitlines() if "are missing" in line)
    assert "9 of 10" in line
    assert ("'tumblr_4'" in line, "'tumblr_5'" in line) == (True, False)
    assert "is 'TUMBLR_0' meant?" in line


def test_videos_in_folders_are_found_by_their_names(convert: Convert, tmp_path: Path):
    there = videos(tmp_path / "clips", *(f"film/{clip}.avi" for clip in world.CLIPS))
    done = convert("lsmdc", world.LSMDC, "--videos", there)
    assert done.code == 0, done.out
    assert "all 3 videos are there" in done.out
    assert f"--frame_source videos --video_dir {there}" in done.out


def test_a_corpus_whose_videos_are_in_folders(convert: Convert, tmp_path: Path):
    there = videos(tmp_path / "clips", "006001_006050/21179416.mp4", "x/1010.mp4")
    done = convert("webvid", world.WEBVID, "--videos", there, "--drop_missing")
    assert done.code == 1
    assert "1 of 3 videos are missing: '5629184'" in done.out
    assert list(made(tmp_path, "txt_webvid2.5m.json")["train"]) == ["21179416"]


def test_captions_and_retrieval_look_for_their_own_videos(convert: Convert, tmp_path: Path):
    there = frames(tmp_path / "img_msrvtt.tsv", "video0", "video1", "video6513", "video7010")
    done = convert("msrvtt", world.MSRVTT, "--frames", there, "--drop_missing")
    assert done.out.count("1 of 5 videos are missing: 'video7011'") == 2
    assert made(tmp_path, "txt_msrvtt-retrieval.json")["val"] == []
    references = json.loads((tmp_path / "made/MSRVTT-v2/test_32frames.caption_coco_format.json").read_text())
    assert [entry["id"] for entry in references["images"]] == ["video7010"]


def test_a_run_is_told_where_the_frames_are(convert: Convert, tmp_path: Path):
    there = ["tumblr_Train1_250", "tumblr_Test1_250"]
    done = convert("tgif-frame", world.TGIF_FRAME, "--frames", frames(tmp_path / "img_tgif.tsv", *there))
    assert (done.code, f"--img_tsv_dir {tmp_path} " in done.out) == (0, True)
    done = convert("tgif-frame", {}, "--frames", frames(tmp_path / "other.tsv", *there), "--overwrite")
    assert (done.code, "--img_tsv_dir" in done.out) == (0, False), "a run looks for img_tgif.tsv"


@pytest.mark.parametrize("name", EVERY)
def test_none_of_the_videos_is_there(convert: Convert, tmp_path: Path, name: str):
    there = frames(tmp_path / "img_other.tsv", "other")
    done = convert(name, EVERY[name], "--frames", there)
    assert (done.code, "are --videos or --frames those of this data set?" in done.out) == (1, True)
    done = convert(name, EVERY[name], "--frames", there, "--drop_missing", "--overwrite")
    assert (done.code, len(done.err.splitlines())) == (2, 1)


@pytest.mark.parametrize("option", ["--frames", "--videos"])
def test_nowhere_to_look(convert: Convert, tmp_path: Path, option: str):
    done = convert("cc3m", world.CC3M, option, str(tmp_path / "nowhere"))
    assert (done.code, "nowhere" in done.err, option in done.err) == (2, True, True)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_overwritten_without_a_word(convert: Convert, tmp_path: Path, name: str):
    assert convert(name, EVERY[name]).code == 0
    before = everything(tmp_path)
    done = convert(name, EVERY[name])
    assert done.code == 2
    assert ("there already" in done.err, "--overwrite" in done.err) == (True, True)
    assert everything(tmp_path) == before
    for path in (tmp_path / "made").glob("**/*.json"):
        path.write_text("{}")
    done = convert(name, EVERY[name], "--overwrite")
    assert (done.code, "(replaced)" in done.out) == (0, True)
    assert everything(tmp_path) == before


def test_the_files_of_a_captioning_folder_are_not_overwritten_either(convert: Convert, tmp_path: Path):
    assert convert("msvd", world.MSVD).code == 0
    written = {path.name for path in (tmp_path / "made" / "MSVD").iterdir() if path.suffix != ".lineidx"}
    kept = tmp_path / "made" / "MSVD" / "val_32frames.caption.linelist.tsv"
    for path in [tmp_path / "made" / "txt_msvd-retrieval.json", *kept.parent.iterdir()]:
        if path != kept:
            path.unlink()
    done = convert("msvd", {})
    assert (done.code, f"{kept}: there already" in done.err) == (2, True)
    assert convert("msvd", {}, "--overwrite").code == 0
    assert {path.name for path in kept.parent.iterdir() if path.suffix != ".lineidx"} == written


def test_training_videos_are_held_out_whole(convert: Convert, tmp_path: Path):
    rows = [f"tumblr_{n // 2}|how many {n} ?|two|1|F{n}|{n}|two" for n in range(40)]
    head = "gif_name|question|answer|type|vid_id|key|description"
    files = {**world.TGIF_FRAME, "Train_frameqa_question.csv": world.tsv(head, *rows)}
    convert("tgif-frame", files, "--hold_out", "0.1")
    first = made(tmp_path, "txt_tgif-frame.json")
    assert [len(first[split]) for split in ("train", "val", "test")] == [36, 4, 2]
    assert not {item["video"] for item in first["train"]} & {item["video"] for item in first["val"]}
    convert("tgif-frame", files, "--hold_out", "0.1", "--overwrite")
    assert made(tmp_path, "txt_tgif-frame.json") == first
    convert("tgif-frame", files, "--hold_out", "0.1", "--seed", "7", "--overwrite")
    assert made(tmp_path, "txt_tgif-frame.json")["val"] != first["val"]


def test_the_head_has_as_many_classes_as_is_said(convert: Convert, tmp_path: Path):
    done = convert("msrvtt-qa", world.XU_QA, "--size_vocab", "1")
    assert made(tmp_path, "txt_msrvtt-qa.json")["ans2label"] == {"squirrel": 0}
    assert "1 train, 1 val, 1 test answers outside the 1 classes" in done.out
    assert "--size_vocab 1" in done.out


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("cc3m", ("--hold_out", "0.1"), "--hold_out"),
        ("msrvtt-mc", ("--hold_out", "0.1"), "--hold_out"),
        ("msrvtt", ("--size_vocab", "10"), "--size_vocab"),
        ("msvd", ("--split", "9k"), "--split"),
        ("msvd", ("--drop_missing",), "--drop_missing"),
        ("msvd", ("--hold_out", "1.5"), "--hold_out"),
        ("msvd", ("--hold_out", "x"), "--hold_out"),
        ("mvsd", (), "NAME"),
    ],
)
def test_options_that_cannot_mean_anything(convert: Convert, tmp_path: Path, name: str, options: tuple, word: str):
    done = convert(name, EVERY.get(name, {}), *options)
    assert (done.code, word in done.err.splitlines()[-1]) == (2, True)
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_not_there(tool, monkeypatch: pytest.MonkeyPatch, convert: Convert, tmp_path: Path):
    done = convert("msvd", {})
    assert (done.code, "no files" in done.err) == (2, True)


@pytest.mark.parametrize("name", EVERY)
def test_the_next_command_is_one_that_runs(
    convert: Convert, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    done = convert(name, EVERY[name], *(["--size_vocab", "5"] if name.endswith("qa") else []))
    commands = re.findall(r"next, .*: python (.*)", done.out)
    assert commands
    monkeypatch.chdir(ROOT)
    for command in commands:
        script, *words = shlex.split(command)
        assert (ROOT / script).is_file()
        assert Path(words[words.index("--config") + 1]).is_file()
        config = load_config(words)
        assert config.data_dir == str(tmp_path / "made")
        names = [config.task] if config.type != "pretrain" else config.dataset
        if config.type == "captioning":
            assert [(tmp_path / "made" / path).is_file() for path in (config.train_yaml, config.test_yaml)] == [
                True
            ] * 2
        else:
            assert all((tmp_path / "made" / f"txt_{text}.json").is_file() for text in names)


def test_frames_that_are_not_there_yet(convert: Convert, tmp_path: Path):
    done = convert("tgif-frame", world.TGIF_FRAME)
    assert ("img_tgif.tsv is not there yet" in done.out, "--video_dir" in done.out) == (True, True)
    frames(tmp_path / "made" / "img_tgif.tsv", "tumblr_Train1_250")
    assert "not there yet" not in convert("tgif-frame", {}, "--overwrite").out


def test_from_the_folder_of_the_tools(tmp_path: Path):
    lay(tmp_path / "given", world.CC3M)
    words = ["cc3m", str(tmp_path / "given"), "--output", str(tmp_path / "made")]
    done = warm().run("convert_annotations.py", *words, cwd=ROOT / "_tools")
    assert (done.returncode, done.stderr) == (0, "")
    done = warm().run("convert_annotations.py", *words, cwd=ROOT / "_tools")
    assert (done.returncode, len(done.stderr.splitlines()), "txt_cc3m.json" in done.stderr) == (2, 1, True)


def test_every_name_is_tried_here():
    assert NAMES.keys() == EVERY.keys()


def test_the_classes_are_as_many_as_in_the_released_configurations(tmp_path: Path):
    for name, files in EVERY.items():
        lay(tmp_path / name, files)
        for output in NAMES[name].read(Source(tmp_path / name), "7k"):
            if isinstance(output, Questions):
                config = json.loads((ROOT / "_args" / f"args_{output.task}.json").read_text())
                assert (config["size_vocab"], config["dataset"]) == (output.size_vocab, NAMES[name].dataset)
