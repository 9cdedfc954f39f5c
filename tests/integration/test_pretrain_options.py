"""What options, checkpoints and data sets change in a pretraining run, and what they must leave alone."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
import torch

LIVELY = ("--p_mask", 0.5, "--lr", 1e-3)  # so that the few words of the toy captions are hidden, and steps are felt
FIRST, LAST = "ckpt_violet_pretrain_init_0_0.pt", "ckpt_violet_pretrain_toy_1_1.pt"

# --- what must not change the losses ----------------------------------------------------------------------------------


def test_a_run_repeats(train_here):
    """The same seed gives the same run, a run before it in the process and another folder notwithstanding."""
    first, second = (train_here(*LIVELY, "--seed", 5).check_passed() for _ in range(2))
    assert first.results == second.results
    assert first.predictions("val") == second.predictions("val")
    other = train_here(*LIVELY, "--seed", 6).check_passed()
    assert other.results["epochs"][0]["train"] != first.results["epochs"][0]["train"]


def test_workers_do_not_matter(train_here):
    alone, helped = (train_here(*LIVELY, "--n_workers", number).check_passed() for number in (0, 2))
    assert alone.results == helped.results


@pytest.mark.parametrize(("offload", "precision"), [("false", "fp32"), ("true", "fp32"), ("false", "bf16")])
def test_activation_checkpointing(train_here, needs, offload: str, precision: str):
    needs("fairscale")
    words = (*LIVELY, "--precision", precision)
    plain = train_here(*words).check_passed()
    spared = train_here(*words, "--use_checkpoint", "true", "--checkpoint_offload", offload).check_passed()
    plain.check_same_losses(spared, 1e-6 if precision == "fp32" else 1e-4)
    assert spared.checkpoint(FIRST).keys() == plain.checkpoint(FIRST).keys()


def test_gradient_accumulation(train_here):
    """Two batches make a step: the first leaves the weights alone, the second moves them."""
    run = train_here(*LIVELY, "--gradient_accumulation", 2, "--size_epoch", 2).check_passed()
    names = [FIRST, *(f"ckpt_violet_pretrain_toy_{part}_{epoch}.pt" for epoch in (1, 2) for part in (0, 1))]
    start_, *after = [run.checkpoint(name)["enc_img.emb_cls"] for name in names]
    changed = [not torch.equal(a, b) for a, b in zip([start_, *after], after, strict=False)]
    assert changed == [False, True, False, True]
    assert re.findall(r"lr (\S+),", run.log) == ["1.00e-03", "1.00e-03", "5.00e-04", "5.00e-04"]


def test_bf16_without_deepspeed(train_here):
    run = train_here(*LIVELY, "--precision", "bf16").check_passed()
    assert "engine: Lavender, bf16, 1 process(es), cpu" in run.log
    assert len(run.results["epochs"]) == 2
    exact = train_here(*LIVELY).check_passed()
    assert run.results != exact.results
    run.check_same_losses(exact, 0.02)


# --- checkpoints in ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_scored_before_training(train_here):
    first = train_here(*LIVELY).check_passed()
    words = ("--path_ckpt", first.folder / LAST, *LIVELY)
    second = train_here(*words).check_passed()
    assert second.results["zero_shot"]["val"] == first.results["epochs"][-1]["val"]
    assert len(second.results["epochs"]) == 2
    given, begun = first.checkpoint(LAST), second.checkpoint(FIRST)
    assert all(torch.equal(given[name], begun[name]) for name in given)
    words = (*words, "--size_epoch", 0, "--save_evaluated")
    fresh = train_here(*words, "--reinit_head", "--allow_random", True).check_passed().checkpoint(FIRST)
    word_weights = "fc_mtm.predictions.transform.dense.weight"
    assert not torch.equal(fresh[word_weights], given[word_weights])
    assert torch.equal(fresh["enc_img.emb_cls"], given["enc_img.emb_cls"])


def test_evaluation_alone_has_no_epochs(train_here):
    first = train_here().check_passed()
    run = train_here("--path_ckpt", first.folder / LAST, "--size_epoch", 0).check_passed()
    assert run.results == {"zero_shot": {"val": first.results["epochs"][-1]["val"]}, "epochs": []}
    assert run.json("log.json").keys() == {"toy"}


def test_the_model_is_known_from_the_checkpoint(train_here):
    """`args.json` beside it says its shape; with nothing to train, also which frames and texts to read."""
    trained = train_here("--size_txt", 20, "--size_frame", 3, "--kinetics", 400).check_passed()
    words = ("--path_ckpt", trained.folder / LAST, "--size_batch", 3, "--n_workers", 0)
    run = train_here(*words, "--size_epoch", 0, small=()).check_passed()
    args = run.json("args.json")
    inherited = {"vis_backbone_size": "micro", "kinetics": 400, "size_img": 32, "size_txt": 20, "size_frame": 3}
    assert {name: args[name] for name in inherited} == inherited
    assert Path(args["fusion_encoder"]).name == "bert_micro"
    assert "vis_backbone_size: micro from" in run.log
    assert run.results["zero_shot"]["val"] == trained.results["epochs"][-1]["val"]

    run = train_here(*words, "--size_epoch", 0, "--size_txt", 32, small=()).check_passed()
    assert run.json("args.json")["size_txt"] == 32
    assert "size_txt: 32 from the command line, though the checkpoint was trained with 20" in run.log

    run = train_here(*words, "--size_epoch", 1, "--size_img", 32, "--size_part", 2, small=()).check_passed()
    args = run.json("args.json")
    assert (args["vis_backbone_size"], args["size_txt"], args["size_frame"]) == ("micro", 32, 4)


# --- data sets --------------------------------------------------------------------------------------------------------


def test_several_data_sets(train_here, toy: Path):
    """They are trained on one after the other; each is validated by itself and has curves of its own."""
    for path in list(toy.iterdir()):
        path.with_name(path.name.replace("toy", "other")).write_bytes(path.read_bytes())
    words = ("--dataset", "other", "toy", "--size_part", '{"toy": 2, "other": 1}', "--size_epoch", 2)
    run = train_here(*words, *LIVELY, data=toy).check_passed()
    assert re.fullmatch(r"_pretrain-other-toy_\d{14}", run.folder.name)
    epochs = run.results["epochs"]
    order = [("other", 0), ("toy", 0), ("toy", 1)]
    assert [(entry["epoch"], entry["dataset"], entry["part"]) for entry in epochs] == [
        (epoch, *where) for epoch in (1, 2) for where in order
    ]
    log = run.json("log.json")
    assert {name: len(log[name]["ls_vtm"]) for name in log} == {"other": 2, "toy": 4}
    names = {path.name for path in run.folder.glob("*.pt")}
    assert names == {
        "ckpt_violet_pretrain_init_0_0.pt",
        *(f"ckpt_violet_pretrain_{name}_{part}_{epoch}.pt" for epoch in (1, 2) for name, part in order),
    }
    assert {path.name for path in (run.folder / "predictions").iterdir()} == {"other-val.jsonl", "toy-val.jsonl"}


def test_data_sets_in_folders_of_their_own(train_here, toy: Path):
    elsewhere = toy.with_name("elsewhere")
    toy.rename(elsewhere)
    run = train_here("--dataset", json.dumps({"toy": str(elsewhere)}), data=toy).check_passed()
    assert len(run.results["epochs"]) == 2


@pytest.mark.parametrize(("ratio", "videos"), [(0.34, 2), (2, 2), (5, 5), (100, 6)])
def test_few_shot(train_here, ratio: float, videos: int):
    """Below 1 a fraction of the training videos, above 1 their number, over all parts; validation stays whole."""
    run = train_here("--data_ratio", ratio).check_passed()
    trained = re.findall(r"toy \d: (\d+) samples", run.log)
    assert sum(map(int, trained)) == videos
    assert len(run.predictions("val")) == 4


@pytest.mark.parametrize("frames", ["with", "without"])
def test_no_validation_split(train_here, toy: Path, frames: str):
    """It is left out, the log says so, and the best is the last."""
    captions = json.loads((toy / "txt_toy.json").read_text())
    (toy / "txt_toy.json").write_text(json.dumps({"train": captions["train"]}))
    if frames == "without":
        (toy / "toy_val.tsv").unlink()
    run = train_here(*LIVELY, data=toy).check_passed()
    assert "toy: no validation captions, so no validation" in run.log
    best = run.results["best"]
    assert "no validation" in best.pop("chosen")
    assert best == {"epoch": 1, "dataset": "toy", "part": 1}
    assert set(run.json("log.json")["toy"]) >= {"ls_mtm", "ls_vtm"}


def test_runs_of_the_same_second_do_not_mix(train_here, tmp_path: Path, monkeypatch):
    """Two jobs that begin together under one --path_output must not write over each other."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2024, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr("lavender.engine.output.datetime", Stopped)
    first = train_here("--seed", 1, output=tmp_path / "snapshot").check_passed()
    before = {path.name: path.read_bytes() for path in first.folder.glob("*.*")}
    assert first.folder.name == "_pretrain-toy_20240102030405"
    train_here("--seed", 2, output=tmp_path / "snapshot")
    assert {path.name: path.read_bytes() for path in first.folder.glob("*.*")} == before
