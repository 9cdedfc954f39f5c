"""Captioning where something is wrong, missing or out of the ordinary: in the folder, in the options, on the machine.

Bad input is one line that says what and where, exit code 2, before anything is trained.
"""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest

from lavender.data.tsv import TSVReader
from lavender.metrics.caption import caption_metrics

KIT = Path(__file__).parents[1] / "conformance" / "kit"
SPLITS = ("train", "val", "test")
YAMLS = tuple(word for split in SPLITS for word in (f"--{split}_yaml", f"CAP/{split}.yaml"))
CONFIG = ("--config", "_args/args_msrvtt-cap.json")
EVALUATE, SHORT = ("--size_epoch", 0, "--allow_random", True), ("--size_frame", 1, "--max_gen_length", 6)
TOLERANT = ("--on_bad_sample", "zero")
SCORES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "CIDEr", "ROUGE_L"]
WHICH = shutil.which


@pytest.fixture(autouse=True)
def no_java(monkeypatch) -> None:
    """In this process there is none."""
    monkeypatch.setattr(shutil, "which", lambda name, *more, **other: name != "java" and WHICH(name, *more, **other))


@pytest.fixture
def cap(tmp_path: Path) -> Path:
    """The kit's captioning folder, one's own."""
    return Path(shutil.copytree(KIT / "data" / "CAP", tmp_path / "data" / "CAP", copy_function=shutil.copyfile))


@pytest.fixture
def caption(train_here, start, needs, cap: Path) -> Callable[..., Any]:
    """`caption(*options, by=…)` in the folder `cap`, as `ask` is for questions; batches of 3, short captions."""

    def run(*options: object, by: str = "here", **more: Any) -> Any:
        words, more = (*SHORT, *options), {"data": cap.parent, "released": (*CONFIG, *YAMLS), **more}
        if by == "here":
            return train_here(*words, task="main_caption.py", **more)
        for package in ("fairscale", "deepspeed"):
            needs(package)
        more = {"environment": {"PATH": str(Path(sys.executable).parent)}, **more}
        return start("main_caption.py", *words, launcher=None if by == "python" else by, **more)

    return run


# --- faults of the folder ---------------------------------------------------------------------------------------------

Harm = Callable[[Path], object]


def write(name: str, content: str | bytes | None) -> Harm:
    """A file is another, or is not there."""

    def harm(cap: Path) -> None:
        (cap / name).unlink(missing_ok=True)
        if content is not None:
            (cap / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return harm


def add(name: str, line: str) -> Harm:
    return lambda cap: write(name, (cap / name).read_text() + line + "\n")(cap)


def cut(name: str, length: int) -> Harm:
    return lambda cap: write(name, (cap / name).read_bytes()[:length])(cap)


def row(name: str, number: int, *fields: str | None) -> Harm:
    """Fields of a row are others, but for those that are None; without fields the row goes. So does its index."""

    def harm(cap: Path) -> None:
        reader = TSVReader(cap / name)
        rows = [reader.row(n) for n in range(len(reader))]
        old = rows[number]
        rows[number] = [own if new is None else new for own, new in zip(old, fields, strict=False)] + old[len(fields) :]
        (cap / name).write_text("".join("\t".join(row) + "\n" for n, row in enumerate(rows) if n != number or fields))
        reader.lineidx.unlink()

    return harm


def coco(change: Callable[[list[dict]], Any]) -> Harm:
    """Other annotations in the references of val."""

    def harm(cap: Path) -> None:
        path = cap / "val.caption_coco_format.json"
        path.write_text(json.dumps({"annotations": change(json.loads(path.read_text())["annotations"])}))

    return harm


CAPTIONS, FRAMES, LIST, COCO = (
    "train.caption.tsv",
    "train.img.tsv",
    "train.caption.linelist.tsv",
    "val.caption_coco_format.json",
)
FAULTS = [
    (write("train.yaml", None), ("CAP/train.yaml", "no such file")),
    (write("test.yaml", None), ("CAP/test.yaml", "no such file")),
    (write("val.yaml", "img: val.img.tsv\ncaption: [val\n"), ("CAP/val.yaml, line 3", "not valid YAML")),
    (write("val.yaml", b"img: \xff"), ("CAP/val.yaml", "UTF-8")),
    (write("val.yaml", ""), ("CAP/val.yaml", "is empty")),
    (write("val.yaml", "caption: val.caption.tsv"), ("CAP/val.yaml", '"img" is missing')),
    (write("val.yaml", "img: [a, b]\ncaption: val.caption.tsv"), ("CAP/val.yaml", "\"img\" is ['a', 'b']")),
    (write("val.yaml", "composite: 'yes'"), ("CAP/val.yaml", '"composite"', "true or false")),
    (write(FRAMES, None), ("CAP/train.yaml", '"img" names', FRAMES)),
    (write("test.img.tsv", None), ("CAP/test.yaml", '"img" names', "test.img.tsv")),
    (write(LIST, None), ("CAP/train.yaml", '"caption_linelist" names', LIST)),
    (write(COCO, None), ("CAP/val.yaml", '"caption_coco_format" names', COCO)),
    (row(CAPTIONS, 2, "vid2", '[{"caption": "a blue'), (f"{CAPTIONS}, line 3", "not valid JSON")),
    (row(CAPTIONS, 2, "vid2", '["a blue triangle"]'), (f"{CAPTIONS}, line 3", '{"caption": …}')),
    (row(CAPTIONS, 1, "vid1", '[{"caption": "a"}, {"caption": " "}]'), (f"{CAPTIONS}, line 2, caption 1", "empty")),
    (row(CAPTIONS, 1, "vid1", '[{"caption": 3}]'), (f"{CAPTIONS}, line 2, caption 0", "not text")),
    (row(CAPTIONS, 1, "vid1", '[{"caption": "\\ud800"}]'), (f"{CAPTIONS}, line 2, caption 0", "surrogate")),
    (row(CAPTIONS, 1, ""), (f"{CAPTIONS}, line 2", "video id, is empty")),
    (row("test.caption.tsv", 1, "vid1", "["), ("test.caption.tsv, line 2", "not valid JSON")),
    (row(FRAMES, 2), (f"{CAPTIONS}, line 3", "'vid2'", FRAMES, "1 of 6 annotations have no video")),
    (row(FRAMES, 2, "vid9"), (f"{CAPTIONS}, line 3", "'vid2'", FRAMES, "1 of 6 annotations have no video")),
    (row("val.img.tsv", 0), ("val.caption.tsv, line 1", "'vid0'", "1 of 4 annotations have no video")),
    (add(LIST, "6\t0"), (f"{LIST}, line 13", "row", CAPTIONS)),
    (add(LIST, "5\t2"), (f"{LIST}, line 13", "caption 2", f"{CAPTIONS}, line 6", "2 captions")),
    (add(LIST, "5\t-1"), (f"{LIST}, line 13", "'5\\t-1'")),
    (write(LIST, ""), (LIST, "empty")),
    (cut(COCO, 200), (f"{COCO}, line 1, column", "not valid JSON")),
    (write(COCO, "{}"), (COCO, '"annotations"')),
    (coco(lambda found: [*found, {"image_id": "vid9", "caption": "a"}]), (COCO, "vid9", "1 of 5 videos")),
    (coco(lambda found: [{"caption": "a"}]), (f"{COCO}, annotation 0", '"image_id"')),
    (cut(FRAMES, 300_000), ("train.img.lineidx, line 4", "past the end of", FRAMES)),
    (cut("test.img.tsv", 300_000), ("test.img.lineidx, line 4", "past the end of", "test.img.tsv")),
    (cut("train.img.lineidx", 16), (f"{FRAMES}, line 3", "does not end", "train.img.lineidx", "delete")),
    (write("train.img.lineidx", "0\n5\n9\n12\n20\n30\n"), ("train.img.lineidx", "delete")),
    (write("val.caption.lineidx", "0\n7\n"), ("val.caption.", "delete", "val.caption.lineidx")),
    (write("val.caption.lineidx", "0\nten\n"), ("val.caption.lineidx, line 2", "ten")),
]


@pytest.mark.parametrize(("harm", "told"), FAULTS)
def test_a_bad_folder(caption, cap: Path, harm: Harm, told: tuple):
    harm(cap)
    run = caption()
    run.check_refused(str(cap), *told)
    assert list(run.folder.glob("*.pt")) == []


@pytest.mark.parametrize(
    ("harm", "words", "told"),
    [
        (row(FRAMES, 2, None, None, *["/9j/garbage"] * 8), (), (f"{FRAMES}, line 3, frame ", "cut")),
        (row(FRAMES, 2, None, None, *["!"] * 8), (), (f"{FRAMES}, line 3, frame ", "not base64")),
        (row(FRAMES, 2, None, None, *[""] * 8), (), (f"{FRAMES}, line 3",)),
        (row(FRAMES, 2, None, "{}"), ("--size_frame", 9, "--max_size_frame", 9), (FRAMES, "9 frames", "8 are stored")),
    ],
)
def test_bad_frames(caption, cap: Path, harm: Harm, words: tuple, told: tuple):
    """Frames are not decoded before they are needed; at the first fault the run ends, without a step.

    Their number is looked at before anything is saved.
    """
    harm(cap)
    run = caption("--size_batch", 12, *words)
    run.check_refused(*told)
    kept = [] if "--size_frame" in words else ["ckpt_violet_msrvtt-cap_0.pt"]
    assert [path.name for path in run.folder.rglob("*.pt")] == kept


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--train_yaml", ""), ("train_yaml is empty", "--size_epoch 0")),
        ((*EVALUATE, "--val_yaml", "", "--test_yaml", ""), ("val_yaml and test_yaml are empty",)),
        (("--val_yaml", "CAP/nowhere.yaml"), ("CAP/nowhere.yaml", "no such file")),
        (("--val_yaml", "CAP/val.img.tsv"), ("CAP/val.img.tsv",)),
        (("--num_keep_best", 2), ("num_keep_best is 2", "num_beams")),
        (("--num_beams", 2, "--do_sample"), ("do_sample", "num_beams", "choose one")),
        (("--max_gen_length", 1), ("--max_gen_length",)),
        (("--size_frame", 7), ("size_frame 7", "max_size_frame")),
        (("--config", "_args/args_msvd-qa.json"), ('"type" is qaoe', "captioning")),
        (("--path_ckpt", "/nowhere.pt"), ("/nowhere.pt", "no such checkpoint")),
        (("--size_txt", 513), ("size_txt", "512")),
        pytest.param((*EVALUATE, "--max_gen_length", 513), ("513", "512"), marks=pytest.mark.slow),
    ],
)
def test_a_bad_option(caption, words: tuple, told: tuple):
    run = caption(*words)
    run.check_refused(*told)
    assert list(run.folder.glob("*_1.pt")) == []


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["false", "true"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (row(CAPTIONS, 2, "vid2", '[{"caption": "a blue'), (f"{CAPTIONS}, line 3", "not valid JSON")),
        (write("test.yaml", None), ("CAP/test.yaml", "no such file")),
        (row("val.img.tsv", 3, None, None, *["/9j/garbage"] * 8), ("val.img.tsv, line 4",)),
        (row("test.img.tsv", 0, None, None, *["/9j/garbage"] * 8), ("test.img.tsv, line 1",)),
    ],
)
def test_two_processes(caption, cap: Path, harm: Harm, told: tuple, deepspeed: str):
    """All, or the one that meets bad frames while the other waits for its captions: nobody waits on."""
    harm(cap)
    run = caption("--deepspeed", deepspeed, by="launch")
    assert run.code not in (0, None), run.stderr[-6000:]
    lines = re.findall(r"error: [^\r\n]*", run.stderr)  # perhaps behind the bar of another process
    assert any(all(word in line for word in told) for line in lines), run.stderr[-6000:]
    assert re.findall(r'File ".*/lavender/.*', run.stderr) == [], run.stderr[-6000:]


# --- what can be gone on with -----------------------------------------------------------------------------------------


def captions_of(run, split: str, epoch: int = 1) -> list[dict]:
    """From the file beside the checkpoint."""
    reader = TSVReader(run.folder / f"ckpt_violet_msrvtt-cap_{epoch}.pred.CAP.{split}.beam1.max6.tsv")
    return [json.loads(reader.row(number)[1])[0] for number in range(len(reader))]


def test_videos_that_are_not_there(caption, cap: Path):
    """Counted and told, at each evaluation anew."""
    unreadable = ["/9j/garbage"] * 8
    harms = [row(FRAMES, 1, None, None, *unreadable), row("val.img.tsv", 0), row("test.img.tsv", 0, "vid9", "{}")]
    harms += [row("test.img.tsv", 3, None, None, *unreadable)]
    harms += [coco(lambda found: [*found, {**found[0], "image_id": 7}])]
    for harm in harms:
        harm(cap)
    run = caption(*TOLERANT).check_passed()
    counts = [run.results["epochs"][0][split]["bad_samples"] for split in SPLITS]
    assert counts == [2, 1, 2]  # the first has two captions
    for told in (
        f"{FRAMES}, line 2, frame",
        "val.caption.tsv, line 1: video 'vid0'",
        "test.img.tsv: 1 of 6 rows are not used",
    ):
        assert told in run.log
    assert "val.caption_coco_format.json: 1 of 5 videos are not in" in run.log
    for split in ("val", "test"):
        (evaluated,) = run.folder.glob(f"*_1.pred.CAP.{split}.*.eval.json")
        assert json.loads(evaluated.read_text()) == run.results["best"][split]
        assert len(captions_of(run, split)) == len(run.predictions(split)) == {"val": 4, "test": 6}[split]
    assert list(run.folder.glob("*.from.json")) == []
    words = ("--path_ckpt", run.folder / "ckpt_violet_msrvtt-cap_1.pt", *EVALUATE)
    again = caption(*words, *TOLERANT).check_passed()
    assert again.results["zero_shot"] == {split: run.results["best"][split] for split in ("val", "test")}
    caption(*words).check_refused("val.caption.tsv, line 1", "'vid0'")


def test_a_composite_folder(caption, cap: Path, kit_weights):
    """Rows of several files, by a line list or all of them; what they are compared with are their own captions."""
    shutil.copyfile(kit_weights("captioning"), weights := cap.parent / "ckpt.pt")
    files = "composite: true\nimg: [val.img.tsv, test.img.tsv]\ncaption: [val.caption.tsv, test.caption.tsv]\n"
    write("all.yaml", files)(cap)
    write("some.yaml", f"{files}caption_linelist: some.tsv")(cap)
    write("some.tsv", "1\t5\t0\n0\t2\t1\n1\t5\t1\n1\t0\t0\n")(cap)
    words = ("--path_ckpt", weights, *EVALUATE)
    plain = caption(*words).check_passed()
    run = caption(*words, "--val_yaml", "CAP/all.yaml", "--test_yaml", "CAP/some.yaml").check_passed()
    assert "all_caption_coco_format.json is missing: the references are the captions of" in run.log
    val, test = plain.predictions("val"), plain.predictions("test")
    for split, expected in (("val", [*val, *test]), ("test", [test[5], val[2], test[0]])):
        for index, (ours, own) in enumerate(zip(run.predictions(split), expected, strict=True)):
            assert (ours["index"], ours["video"], ours["caption"]) == (index, own["video"], own["caption"])
            assert ours["conf"] == pytest.approx(own["conf"], rel=1e-5)
    texts = [json.loads(line.split("\t")[1]) for line in (cap / "test.caption.tsv").read_text().splitlines()]
    references = [[one["caption"] for one in texts[number]] for number in (5, 2, 0)]  # val's third is test's
    scores = caption_metrics([one["caption"] for one in run.predictions("test")], references)
    assert run.results["zero_shot"]["test"] == scores
    trained = caption("--train_yaml", "CAP/some.yaml", "--val_yaml", "", "--test_yaml", "").check_passed()
    assert ": 4 samples (4 by process)" in trained.log
    write("some.tsv", "1\t0\t0\n2\t0\t0\n")(cap)
    caption("--train_yaml", "CAP/some.yaml").check_refused("CAP/some.tsv, line 2", "'2\\t0\\t0'")


def test_a_folder_of_few_files(caption, cap: Path):
    """Each video's first caption is trained on; line indices are made, references taken from the captions."""
    for path in [*cap.glob("*.lineidx"), *cap.glob("*.json"), *cap.glob("*.label.tsv"), *cap.glob("*linelist*")]:
        path.unlink()
    for split in SPLITS:
        write(f"{split}.yaml", f"img: {split}.img.tsv\ncaption: {split}.caption.tsv\nimgs: x\n")(cap)
    run, whole = caption().check_passed(), caption(data=KIT / "data").check_passed()
    assert ": 6 samples (6 by process)" in run.log
    assert f"{FRAMES.replace('tsv', 'lineidx')} is missing: building it" in run.log
    assert "train.yaml: imgs is not used" in run.log
    assert run.results["best"].keys() == whole.results["best"].keys()
    words = ("--path_ckpt", run.folder / "ckpt_violet_msrvtt-cap_1.pt", *EVALUATE)
    assert caption(*words, data=KIT / "data").results["zero_shot"]["val"] == run.results["best"]["val"]


# --- the best epoch, and machines without what metrics need -----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "figures", "best"),
    [
        ((), {"val": (0.1, 0.5, 0.2), "test": (0.3, 0.2, 0.9)}, 2),
        (("--val_yaml", ""), {"test": (0.3, 0.2, 0.1)}, 3),
        (("--test_yaml", ""), {"val": (0.7, 0.2, 0.1)}, 1),
        (("--val_yaml", "", "--test_yaml", ""), {}, 3),
    ],
)
def test_the_best_epoch(caption, monkeypatch, words: tuple, figures: dict, best: int):
    """Chosen on val by CIDEr; without val it is the last."""
    values = iter([figures[split][epoch] for epoch in range(3) for split in figures])
    monkeypatch.setattr("lavender.tasks.caption.caption_metrics", lambda *_: {"Bleu_1": 1.0, "CIDEr": next(values)})
    run = caption(*words, "--size_epoch", 3, "--lr", 1e-2, "--size_batch", 6).check_passed()
    assert run.results["best"]["epoch"] == best
    assert {split: run.results["best"][split]["CIDEr"] for split in figures} == {
        split: values[best - 1] for split, values in figures.items()
    }
    curves = {key: list(figures.get(split, ())) for key, split in (("ac_vl", "val"), ("ac_ts", "test"))}
    assert {**run.json("log.json"), "ls_tr": None} == {**curves, "ls_tr": None}
    for split in ("val", "test"):
        said = f"{split}_yaml is empty, so no evaluation on {split}" in run.log
        assert said == (split not in figures) == (not (run.folder / "predictions" / f"{split}.jsonl").exists())
        if split in figures:
            kept = [record["captions"][0] for record in run.predictions(split)]
            assert [kept == captions_of(run, split, epoch) for epoch in (1, 2, 3)].index(True) + 1 == best
    chosen_on_test = f"(do not report): {{'Bleu_1': 1.0, 'CIDEr': {max(figures.get('test', [0]))}}}"
    assert (chosen_on_test in run.log) == ("test" in figures)


def test_without_the_package_of_the_metrics(caption, monkeypatch):
    """Captions are written all the same."""
    find = importlib.util.find_spec
    hide = {"pycocoevalcap"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in hide else find(name, *more))
    run = caption("--size_epoch", 2, "--lr", 1e-2).check_passed()
    assert [[entry["val"], entry["test"]] for entry in run.results["epochs"]] == [[{}, {}]] * 2
    assert run.results["best"]["epoch"] == 2
    assert run.json("log.json") | {"ls_tr": 0} == {"ls_tr": 0, "ac_vl": [None, None], "ac_ts": [None, None]}
    assert run.log.index("pip install pycocoevalcap") < run.log.index("engine: ")
    assert [record["captions"][0] for record in run.predictions("test")] == captions_of(run, "test", 2)
    assert json.loads(next(run.folder.glob("*_2.pred.CAP.val.*.eval.json")).read_text()) == {}


def test_all_metrics(caption, monkeypatch):
    """With Java; SPICE, which would fetch its models from the net, is left out where there is none."""

    def offline() -> None:
        raise URLError("no network")

    monkeypatch.setattr(shutil, "which", WHICH)
    monkeypatch.setattr("pycocoevalcap.spice.spice.get_stanford_models", offline)
    run = caption(*EVALUATE, "--test_yaml", "", "--spice").check_passed()
    assert sorted(run.results["zero_shot"]["val"]) == [*SCORES[:5], "METEOR", "ROUGE_L"]
    assert all(0 <= value <= 1 for value in run.results["zero_shot"]["val"].values())
    assert "there is no Java" not in run.log
    assert re.search("SPICE could not be computed and is left out: .*no network", run.log)


@pytest.mark.slow
@pytest.mark.parametrize("works", ["nothing", "but METEOR"])
def test_java_that_does_not_run(caption, tmp_path: Path, works: str):
    """As on a machine where `java` only says how to install it, or where METEOR's 2 GiB cannot be had."""
    (java := tmp_path / "bin" / "java").parent.mkdir()
    refusal = "echo no Java >&2; exit 1"
    meteor = f'case "$*" in *meteor*) {refusal};; esac; exec {WHICH("java")} "$@"'
    java.write_text(f"#!/bin/sh\n{refusal if works == 'nothing' else meteor}\n")
    java.chmod(0o755)
    words = (*EVALUATE, "--test_yaml", "")
    environment = {"PATH": f"{java.parent}:{Path(sys.executable).parent}:/bin"}
    run = caption(*words, by="python", environment=environment).check_passed()
    assert len(run.predictions("val")) == 4
    figures, expected = (one.results["zero_shot"]["val"] for one in (run, caption(*words).check_passed()))
    assert (works == "nothing" and figures == {}) or figures == pytest.approx(expected, rel=0.1)


@pytest.mark.slow
def test_a_package_that_cannot_be_written_to(caption, monkeypatch):
    """`pycocoevalcap` keeps the tokenizer's input in its own folder, which may be somebody else's."""

    def refuse(*_, **__) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "which", WHICH)
    monkeypatch.setattr("pycocoevalcap.tokenizer.ptbtokenizer.tempfile.NamedTemporaryFile", refuse)
    run = caption(*EVALUATE, "--test_yaml", "").check_passed()
    assert len(run.predictions("val")) == 4
