"""Captioning: both configurations on 1, 2 and 3 processes, what they leave behind, and what options change.

Overridden are the data's names, the model's size, the batch and the epochs. Java takes seconds a split, so most runs
are as on a machine without it.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lavender.data.tsv import TSVReader
from lavender.metrics.caption import caption_metrics
from lavender.tasks.caption import CaptionTask

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
CAP = KIT / "data" / "CAP"
CONFIGS = ("msrvtt-cap", "msvd-cap")
YAMLS = tuple(word for split in ("train", "val", "test") for word in (f"--{split}_yaml", f"CAP/{split}.yaml"))
UNSCORED = ("--val_yaml", "", "--test_yaml", "")
HERE, DDP, DEEPSPEED = "Lavender", "DistributedDataParallel", "DeepSpeedEngine (ZeRO 1)"
VIDEOS = {"val": [f"vid{number}" for number in range(4)], "test": [f"vid{number}" for number in range(6)]}
METRICS = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "CIDEr", "ROUGE_L"]
GREEDY = "beam1.max20"
EVALUATE, BRIEF = ("--size_epoch", 0), ("--size_frame", 2, "--max_gen_length", 8)
ENDING = 2.25  # added to the score of `[SEP]`, with which captions end after 5 words, or 10, or not at all
MADE_AGAIN, USED_AGAIN = "captions are made again", "its captions are used again"
NO_JAVA = "there is no Java, so METEOR and SPICE are left out"
WHICH = shutil.which


@pytest.fixture(autouse=True)
def no_java(monkeypatch) -> None:
    """In this process there is none."""
    monkeypatch.setattr(shutil, "which", lambda name, *more, **other: name != "java" and WHICH(name, *more, **other))


@pytest.fixture
def caption(train_here, start, needs) -> Callable[..., Any]:
    """`caption(*options, config=…, by=…, processes=…, data=…, java=…)`, as `ask` is for questions; batches of 3."""

    def run(*options: object, config: str = CONFIGS[0], by: str = "here", java: bool = False, **more: Any) -> Any:
        more = {"data": KIT / "data", "released": ("--config", f"_args/args_{config}.json", *YAMLS), **more}
        if by == "here":
            return train_here(*options, task="main_caption.py", **more)
        for package in ("fairscale", "deepspeed"):
            needs(package)
        more["environment"] = {} if java else {"PATH": str(Path(sys.executable).parent)}
        return start("main_caption.py", *options, launcher=None if by == "python" else by, **more)

    return run


@pytest.fixture
def weights(kit_weights, tmp_path: Path) -> Callable[..., Path]:
    """`weights(ending=…)`: the kit's, in a folder of the test's own; `ending` is added to the bias of `[SEP]`."""

    def save(ending: float = ENDING) -> Path:
        state = torch.load(kit_weights("captioning"), weights_only=True)
        state["fc_mtm.predictions.decoder.bias"][102] += ending
        state["fc_mtm.predictions.bias"] = state["fc_mtm.predictions.decoder.bias"]
        (path := tmp_path / "weights" / "ckpt_violet_3.pt").parent.mkdir(exist_ok=True)
        torch.save(state, path)
        return path

    return save


@pytest.fixture
def predicted(monkeypatch) -> list[str]:
    """The videos that the model is asked about in this process."""
    videos: list[str] = []
    predict = CaptionTask.predict
    monkeypatch.setattr(CaptionTask, "predict", lambda *args: videos.extend(args[2]["video"]) or predict(*args))
    return videos


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def beside(checkpoint: Path, split: str, ending: str = ".tsv", kind: str = GREEDY) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}.pred.CAP.{split}.{kind}{ending}")


def forget(checkpoint: Path) -> None:
    """The captions beside it."""
    for path in checkpoint.parent.glob("*.pred.*"):
        path.unlink()


def check_outputs(run, config: str, engine: str, processes: int = 1, metrics: list[str] = METRICS) -> None:
    args, results = run.check_passed().json("args.json"), run.results
    written = json.loads((ROOT / "_args" / f"args_{config}.json").read_text())
    kept = written.keys() - {word[2:] for word in run.command if word.startswith("--")}
    assert {"type", "size_txt", "size_frame", "p_mask", "max_gen_length", "max_grad_norm"} <= kept
    assert {name: args[name] for name in kept} == {name: written[name] for name in kept}
    assert re.fullmatch(rf"_{config}_\d{{14}}", run.folder.name)
    checkpoints = [run.folder / f"ckpt_violet_{config}_{epoch}.pt" for epoch in range(args["size_epoch"] + 1)]
    (events,) = run.folder.glob("events.out.tfevents.*")
    names = {"args.json", "stdout.txt", "log.json", "results.json", "predictions", events.name}
    endings = itertools.product(checkpoints[1:], VIDEOS, (".tsv", ".lineidx", ".eval.json", ".from.json"))
    names |= {path.name for path in (*checkpoints, *(beside(*parts) for parts in endings))}
    assert {path.name for path in run.folder.iterdir()} == names
    assert {path.name for path in (run.folder / "predictions").iterdir()} == {"val.jsonl", "test.jsonl"}
    assert f"engine: {engine}, fp32, {processes} process(es), cpu" in run.log
    expected = json.loads((KIT / "cases" / "state_dict_micro.json").read_text())["captioning"]
    states = [torch.load(path, weights_only=True) for path in checkpoints]
    assert all({name: list(tensor.shape) for name, tensor in state.items()} == expected for state in states)
    for name in ("enc_img.emb_cls", "enc_txt.emb_txt.word_embeddings.weight", "fc_mtm.predictions.decoder.weight"):
        assert not any(torch.equal(before[name], after[name]) for before, after in itertools.pairwise(states))
    check_training(run, processes)
    for checkpoint, entry in zip(checkpoints[1:], results["epochs"], strict=True):
        check_captions(run, checkpoint, entry, metrics, is_best=entry["epoch"] == results["best"]["epoch"])
    curves = EventAccumulator(str(events)).Reload()
    values = [point.value for point in curves.Scalars("val/CIDEr")][-args["size_epoch"] :]
    assert values == pytest.approx([entry["val"]["CIDEr"] for entry in results["epochs"]])
    assert len(curves.Scalars("train/loss")) == args["size_epoch"]


def check_training(run, processes: int) -> None:
    """12 captions, shared evenly, in two steps or more; the best epoch is that of validation."""
    epochs, share = run.results["epochs"], 12 // processes
    assert [entry["epoch"] for entry in epochs] == list(range(1, len(epochs) + 1))
    assert all(entry["train"]["loss"] > 0 for entry in epochs)
    best = max(epochs, key=lambda entry: entry["val"]["CIDEr"])
    assert run.results["best"] == {key: value for key, value in best.items() if key != "train"}
    assert re.findall(r"step (\d+/\d+): loss", run.log) == [f"{share // 3}/{share // 3}"] * len(epochs)
    assert run.log.count(f"12 samples ({' + '.join([str(share)] * processes)} by process)") == len(epochs)
    figures = {key: [entry[split]["CIDEr"] for entry in epochs] for key, split in (("ac_vl", "val"), ("ac_ts", "test"))}
    assert run.json("log.json") == {"ls_tr": [entry["train"]["loss"] for entry in epochs], **figures}


def check_captions(
    run, checkpoint: Path, figures: dict, metrics: list[str] = METRICS, kind: str = GREEDY, is_best: bool = True
) -> None:
    """Every video once, in the annotation's order, in the file beside the checkpoint; its figures follow from them."""
    for split, videos in VIDEOS.items():
        assert beside(checkpoint, split, ".lineidx", kind).is_file()
        reader = TSVReader(beside(checkpoint, split, kind=kind))
        rows = [(video, json.loads(found)) for video, found in map(reader.row, range(len(reader)))]
        assert [video for video, _ in rows] == videos
        assert all(one.keys() == {"caption", "conf"} and 0 < one["conf"] < 1 for _, found in rows for one in found)
        lines = [{"index": n, "video": v, **found[0], "captions": found} for n, (v, found) in enumerate(rows)]
        assert run.predictions(split) == lines or not is_best
        assert json.loads(beside(checkpoint, split, ".eval.json", kind).read_text()) == figures[split]
        assert sorted(figures[split]) == sorted(metrics)
        if metrics == METRICS:
            sentences = json.loads((CAP / f"{split}.caption_coco_format.json").read_text())["annotations"]
            references = [[one["caption"] for one in sentences if one["image_id"] == video] for video in videos]
            assert figures[split] == caption_metrics([found[0]["caption"] for _, found in rows], references)


@pytest.mark.parametrize("config", CONFIGS)
def test_each_configuration(caption, config: str):
    run = caption("--size_epoch", 2, "--lr", 1e-3, "--report_to", "tensorboard", config=config)
    check_outputs(run, config, HERE)
    assert run.log.index(NO_JAVA) < run.log.index("engine: ")  # told before hours of training


def test_two_processes(caption, weights):
    """As released; the checkpoint is captioned first, as one process captions it, to the last bit."""
    words = ("--path_ckpt", weights())
    pair = caption(*words, by="launch")
    check_outputs(pair, CONFIGS[0], DEEPSPEED, processes=2)
    forget(words[1])
    assert pair.results["zero_shot"] == caption(*words, *EVALUATE).check_passed().results["zero_shot"]


LAUNCHED = itertools.product(("launch", "torchrun"), (1, 2), ("true", "false"))


@pytest.mark.slow
@pytest.mark.parametrize(("by", "processes", "deepspeed"), [("python", 1, "true"), ("python", 1, "false"), *LAUNCHED])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_start(caption, config: str, by: str, processes: int, deepspeed: str):
    java = by == "python" or (by, processes, deepspeed) == ("torchrun", 2, "true")
    run = caption("--deepspeed", deepspeed, config=config, by=by, processes=processes, java=java)
    engine = HERE if by == "python" else DEEPSPEED if deepspeed == "true" else DDP
    check_outputs(run, config, engine, processes, [*METRICS, "METEOR"] if java else METRICS)
    assert ('"deepspeed" is true, but no launcher started' in run.log) == ((by, deepspeed) == ("python", "true"))
    assert (NO_JAVA in run.log) != java


@pytest.mark.slow
def test_what_is_learnt(caption, monkeypatch):
    """How these sentences go (not yet what is seen), and METEOR with Java."""
    words = ("--size_batch", 12, "--lr", 1e-2, "--p_mask", 0.4, "--size_frame", 2, "--max_gen_length", 10)
    run = caption(*words, "--size_epoch", 90, "--val_yaml", "").check_passed()
    sentence = r"(a \w+ \w+|the \w+ is \w+ and it) moves (left|right)"
    assert all(re.fullmatch(sentence, record["caption"]) for record in run.predictions("test"))
    monkeypatch.setattr(shutil, "which", WHICH)
    words = ("--path_ckpt", run.folder / "ckpt_violet_msrvtt-cap_90.pt", *EVALUATE, "--max_gen_length", 10)
    figures = caption(*words, "--val_yaml", "").check_passed().results["zero_shot"]["test"]
    assert figures.pop("METEOR") > 0.2
    assert figures == pytest.approx(run.results["best"]["test"])  # the tokenizers agree on such words
    assert figures["CIDEr"] > 0.5


# --- a checkpoint that is captioned -----------------------------------------------------------------------------------


def same_captions(run, other) -> None:
    """Word for word, and confidence and figures to the last bit."""
    assert run.results == other.results
    assert all(run.predictions(split) == other.predictions(split) for split in VIDEOS)


RELEASED = [("plain", ""), ("prompt", ""), ("task_token", ""), ("plain", "_ending"), ("prompt", "_ending")]


@pytest.mark.parametrize(("variant", "ending"), RELEASED)
def test_the_released_captions(caption, weights, variant: str, ending: str):
    kit = np.load(KIT / "cases" / f"caption_{variant}_generate{ending}.npz")
    words = ("--path_ckpt", weights(float(kit.get("sep_bias_added", 0))), *EVALUATE, "--size_img", 224)
    run = caption(*words, *([] if variant == "plain" else [f"--enable_{variant}"])).check_passed()
    vocabulary = (KIT / "bert_micro" / "vocab.txt").read_text().split("\n")
    special = {vocabulary.index(word) for word in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")}
    sentences = [" ".join(vocabulary[n] for n in row if n not in special) for row in kit["tokens"].tolist()]
    records = run.predictions("test" if ending else "val")
    assert [record["caption"] for record in records] == [sentence.replace(" ##", "") for sentence in sentences]
    assert [record["conf"] for record in records] == pytest.approx(np.exp(kit["mean_logprob"]).tolist(), rel=1e-4)
    check_captions(run, words[1], run.results["zero_shot"])


OPTIONS = {
    "greedy": (),
    "prompt": ("--enable_prompt",),
    "beams": ("--num_beams", 3, "--num_keep_best", 2),
    "sampled": ("--do_sample", "--gen_temperature", 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["true", "false"])
@pytest.mark.parametrize(("by", "processes"), [("launch", 2), ("torchrun", 3)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_any_number_of_processes(caption, weights, options: tuple, by: str, processes: int, deepspeed: str):
    """Batches of 2: val has 2 of them and test 3, so some process has less to do than the others, or nothing."""
    words = ("--path_ckpt", weights(), *EVALUATE, "--size_batch", 2, *options)
    several = caption(*words, "--deepspeed", deepspeed, by=by, processes=processes).check_passed()
    shares = {2: ["2 + 2", "4 + 2"], 3: ["2 + 2 + 0", "2 + 2 + 2"]}[processes]
    assert re.findall(r"samples \(([\d +]+) by process\)", several.log) == shares
    forget(words[1])
    same_captions(several, caption(*words).check_passed())


def test_captions_are_used_again(caption, weights, tmp_path: Path, predicted: list[str]):
    """Only by what they were made for: the same weights, frames and options."""
    shutil.copytree(CAP, data := tmp_path / "data" / "CAP", copy_function=shutil.copyfile)
    path, everything = weights(), [*VIDEOS["val"], *VIDEOS["test"]]

    def evaluate(asked: list[str], *options: object) -> Any:
        predicted.clear()
        run = caption("--path_ckpt", path, *EVALUATE, *BRIEF, *options, data=data.parent).check_passed()
        assert predicted == asked
        assert run.log.count(USED_AGAIN) == 2 * (asked == []) + (asked in VIDEOS.values())
        return run

    first = evaluate(everything)
    same_captions(first, evaluate([]))
    for options in (("--size_frame", 3), ("--enable_prompt",)):
        assert evaluate(everything, *options).log.count(MADE_AGAIN) == 2
    weights(ending=0)
    assert evaluate(everything).predictions("val") != first.predictions("val")
    weights()
    same_captions(first, evaluate(everything))
    evaluate(everything, "--num_beams", 2)
    assert len(TSVReader(beside(path, "val", kind="beam2.max8"))) == 4
    same_captions(first, evaluate([]))  # the beams have files of their own
    os.utime(data / "val.img.tsv", (1, 1))
    same_captions(first, evaluate(VIDEOS["val"]))
    for ending, length in ((".tsv", -30), (".from.json", -1)):
        (cut := beside(path, "test", ending, "beam1.max8")).write_bytes(cut.read_bytes()[:length])
        same_captions(first, evaluate(VIDEOS["test"]))
    references = data / "val.caption_coco_format.json"
    references.write_text(references.read_text().replace("a ", "the "))
    assert (scored := evaluate([])).predictions("val") == first.predictions("val")
    assert scored.results["zero_shot"]["test"] == first.results["zero_shot"]["test"]


def test_what_was_captioned_after_an_epoch(caption, predicted: list[str]):
    """A trained model is known by its folder, where its frames and captions stand too."""
    trained = caption("--size_frame", 3).check_passed()
    predicted.clear()
    again = caption("--path_ckpt", trained.folder / "ckpt_violet_msrvtt-cap_1.pt", *EVALUATE).check_passed()
    assert (predicted, "size_frame: 3 from" in again.log) == ([], True)
    assert again.results["zero_shot"] == {split: trained.results["best"][split] for split in VIDEOS}
    assert again.predictions("test") == trained.predictions("test")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["python", "torchrun"])
def test_a_run_that_is_killed(caption, weights, tmp_path: Path, predicted: list[str], by: str):
    words = ("--path_ckpt", weights(), *EVALUATE, "--size_img", 224, "--size_batch", 1)
    words += ("--device", "cpu", "--deepspeed", "false")  # as here: on them numbers may depend

    def kill(process: Any) -> None:
        while process.poll() is None and not beside(words[1], "val", ".from.json").exists():
            time.sleep(0.005)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in workers or [process.pid]:
            with contextlib.suppress(ProcessLookupError):  # it ended with the one before
                os.kill(int(pid), signal.SIGKILL)

    assert caption(*words, by=by, output=tmp_path / "out", watch=kill).code == {"python": -9, "torchrun": 1}[by]
    run = caption(*words).check_passed()
    assert predicted == VIDEOS["test"]
    forget(words[1])
    same_captions(run, caption(*words))


@pytest.mark.parametrize("ending", [".tsv", ".from.json"])
def test_a_checkpoint_in_a_folder_of_somebody_else(caption, weights, ending: str):
    """Root may write anywhere, so a folder is in the way."""
    beside(path := weights(), "val", ending).mkdir()
    run = caption("--path_ckpt", path, *EVALUATE).check_passed()
    assert f"{beside(path, 'val')} could not be written" in run.log
    assert [record["video"] for record in run.predictions("val")] == VIDEOS["val"]
    assert sorted(run.results["zero_shot"]["val"]) == METRICS
    assert len(TSVReader(beside(path, "test"))) == 6


# --- options ----------------------------------------------------------------------------------------------------------


def test_beams(caption, weights):
    words = ("--path_ckpt", weights(4.0), *EVALUATE)
    beams = caption(*words, *OPTIONS["beams"]).check_passed()
    check_captions(beams, words[1], beams.results["zero_shot"], kind="beam3.max20.best2")
    pairs = [record["captions"] for record in beams.predictions("test")]
    assert all(
        first["caption"] != second["caption"] and first["conf"] >= second["conf"] - 1e-6 for first, second in pairs
    )


def test_sampling(caption, weights):
    words = ("--path_ckpt", weights(), *EVALUATE, *OPTIONS["sampled"])
    first, other, again = (caption(*words, "--seed", seed).check_passed() for seed in (88, 5, 88))
    check_captions(first, words[1], again.results["zero_shot"], kind=f"{GREEDY}.sampled")
    same_captions(first, again)
    assert (other.log.count(MADE_AGAIN), again.log.count(MADE_AGAIN)) == (2, 2)
    greedy, likeliest = (caption(*words, *more) for more in (("--do_sample", "false"), ("--top_k", 1)))
    same_captions(likeliest, greedy)
    texts = {tuple(one["caption"] for one in run.predictions("test")) for run in (first, other, greedy)}
    assert len(texts) == 3


def test_what_is_trained(caption, weights):
    def train(*options: object) -> tuple[int, dict]:
        run = caption("--path_ckpt", weights(), *UNSCORED, *BRIEF, *options).check_passed()
        return int(re.findall(r"(\d+) samples \(", run.log)[0]), run.results["epochs"][0]["train"]

    samples, plain = train()
    assert (samples, plain["count_unlabelled_batches"]) == (12, 0)
    assert [train("--data_ratio", ratio)[0] for ratio in (0.5, 5)] == [6, 5]
    nothing, smooth = train("--p_mask", 0)[1], train("--label_smoothing", 0.1)[1]
    assert (nothing["loss"], nothing["count_unlabelled_batches"]) == (0, 4)
    late, soon = (train("--drop_worst_ratio", 0.5, "--drop_worst_after", step)[1]["loss"] for step in (4, 3))
    assert smooth["loss"] != plain["loss"] == late > soon  # the last of four steps


def test_which_weights_are_trained(caption, weights):
    given = torch.load(weights(), weights_only=True)
    for option, moved in (("--enable_task_token", [3]), ("--enable_prompt", []), ("--reinit_head", [])):
        run = caption("--path_ckpt", weights(), *UNSCORED, *BRIEF, option).check_passed()
        before, after = (run.checkpoint(f"ckpt_violet_msrvtt-cap_{epoch}.pt") for epoch in (0, 1))
        assert (before["emb_task"] != after["emb_task"]).any(dim=1).nonzero().flatten().tolist() == moved
        fresh = {name.split(".")[0] for name in given if not torch.equal(given[name], before[name])}
        assert fresh == ({"fc_mtm"} if option == "--reinit_head" else set())


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["true", "false"])
@pytest.mark.parametrize("options", [OPTIONS["prompt"], ("--enable_task_token",), ("--p_mask", 0.02), ("--p_mask", 0)])
def test_training_on_two_processes(caption, weights, options: tuple, deepspeed: str):
    """DDP refuses its second step where a parameter had no gradient in the first."""
    words = ("--path_ckpt", weights(), *UNSCORED, "--size_epoch", 2, "--size_batch", 2, *options)
    run = caption(*words, "--deepspeed", deepspeed, by="torchrun").check_passed()
    trained = [entry["train"] for entry in run.results["epochs"]]
    expected = {0.02: range(1, 6), 0: [6]}.get(options[-1], range(3))  # of the 6 batches of an epoch
    assert all(entry["count_unlabelled_batches"] in expected for entry in trained)
    assert all((entry["loss"] == 0) == (options[-1] == 0) for entry in trained)
