"""Both pretraining scripts, with the released configuration made small, by every launcher and engine."""

import functools
import json
import math
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import torch

from lavender.tasks.pretrain import PretrainTask, PretrainTaskSpecificTask

KIT = Path(__file__).parents[1] / "conformance" / "kit"
MLM, TASK_SPECIFIC = "main_pretrain_mlm.py", "main_pretrain_task_specific.py"
STATE_DICTS = {MLM: "pretrain_mlm", TASK_SPECIFIC: "pretrain_task_specific"}
LIVELY = ("--p_mask", 0.5, "--lr", 1e-3)  # so that the few words of the toy captions are hidden, and steps are felt
CHECKPOINTS = [
    "ckpt_violet_pretrain_init_0_0.pt",
    "ckpt_violet_pretrain_toy_0_1.pt",
    "ckpt_violet_pretrain_toy_1_1.pt",
]
DDP, DEEPSPEED = "DistributedDataParallel", "DeepSpeedEngine (ZeRO 1)"


@pytest.fixture(scope="session")
def released(start, needs):
    """`released(script, launcher, deepspeed)`: one run of each kind for all tests, on 2 processes where launched."""

    @functools.cache
    def run(script: str, launcher: str | None, deepspeed: bool, *options: object):
        needs("fairscale")  # the released configuration asks for it
        if deepspeed or launcher == "deepspeed":
            needs("deepspeed")
        words = [*LIVELY, "--deepspeed", str(deepspeed).lower(), *options]
        return start(script, *words, launcher=launcher).check_passed()

    return run


@pytest.fixture(scope="session")
def checkpoint(released) -> Path:
    """What a plain run of the MLM script ended with."""
    return released(MLM, None, True).folder / CHECKPOINTS[-1]


def check_outputs(run, script: str, engine: str, processes: int) -> None:
    """Everything a pretraining run must leave behind."""
    assert re.fullmatch(r"_pretrain-toy_\d{14}", run.folder.name)
    events = [path.name for path in run.folder.glob("events.out.tfevents.*")]
    assert len(events) == 1, events
    names = {"args.json", "stdout.txt", "log.json", "results.json", "predictions", *CHECKPOINTS, *events}
    assert {path.name for path in run.folder.iterdir()} == names
    check_figures(run, script)
    check_predictions(run, script)
    check_curves(run)
    check_shares(run, engine, processes)
    expected = json.loads((KIT / "cases" / "state_dict_micro.json").read_text())[STATE_DICTS[script]]
    weights = [run.checkpoint(name) for name in CHECKPOINTS]
    for state in weights:
        assert {name: list(tensor.shape) for name, tensor in state.items()} == expected
        assert {tensor.dtype for tensor in state.values()} <= {torch.float32, torch.int64}
        assert all(tensor.isfinite().all() for tensor in state.values())
    for before, after in ((0, 1), (1, 2)):
        assert not torch.equal(weights[before]["enc_img.emb_cls"], weights[after]["enc_img.emb_cls"])


def check_figures(run, script: str) -> None:
    """`args.json`, `results.json` and `log.json` tell the same story."""
    args = run.json("args.json")
    assert (args["type"], args["task"], args["dataset"], args["size_img"]) == ("pretrain", "pretrain", ["toy"], 64)
    assert (args["temp"], args["size_txt"], args["max_grad_norm"], args["decay"]) == (0.05, 32, 1.0, 1e-3)
    epochs = run.results["epochs"]
    assert [(entry["epoch"], entry["dataset"], entry["part"]) for entry in epochs] == [(1, "toy", 0), (1, "toy", 1)]
    for entry in epochs:
        train, val = entry["train"], entry["val"]
        assert train["loss"] == pytest.approx(train["mtm"] + train["vtm"], rel=1e-5)
        assert train["mtm"] > 0
        assert train["count_unlabelled_batches"] == 0
        assert set(val) == {"acc_mtm", "loss_mtm", "acc_vtm", "loss_vtm", "loss"}
        assert all(0 <= val[name] <= 1 for name in ("acc_mtm", "acc_vtm"))
        assert val["loss"] == pytest.approx(val["loss_mtm"] + val["loss_vtm"])
    assert epochs[0]["val"]["loss"] != epochs[1]["val"]["loss"]
    best = min(epochs, key=lambda entry: entry["val"]["loss"])
    assert run.results["best"] == {key: value for key, value in best.items() if key != "train"}
    assert run.json("log.json") == {
        "toy": {
            **{f"ls_{name}": [entry["train"][name] for entry in epochs] for name in ("mtm", "vtm")},
            **{f"ac_{name}": [entry["val"][f"acc_{name}"] for entry in epochs] for name in ("mtm", "vtm")},
        }
    }


def check_predictions(run, script: str) -> None:
    """Each validation clip once, in order, and the metrics follow from the records."""
    records = run.predictions("val")
    assert [(record["index"], record["video"]) for record in records] == [(i, f"vid{i}") for i in range(4)]
    captions = json.loads((KIT / "data" / "txt_toy.json").read_text())["val"]
    assert all(record["caption"] == captions[record["video"]][0] for record in records)
    words = [word for record in records for word in record["words"]]
    assert all(word["word"] in record["caption"].split() for record in records for word in record["words"])
    assert [len(record["matching"]["scores"]) for record in records] == [3, 3, 3, 1]  # batches of 3: 3 + 1
    val = run.results["epochs"][-1]["val"]
    assert val["acc_mtm"] == sum(word["word"] == word["prediction"] for word in words) / len(words)
    assert val["acc_vtm"] == sum(record["matching"]["right"] for record in records) / 4
    losses = [loss for record in records for loss in record["matching"]["losses"]]
    assert len(losses) == (3 + 3 + 3 + 1 if script == MLM else 4)
    assert val["loss_vtm"] == pytest.approx(sum(losses) / len(losses))


def check_curves(run) -> None:
    """TensorBoard's events hold the losses of the last step and every validation."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    curves = accumulator.EventAccumulator(str(run.folder))
    curves.Reload()
    epochs = run.results["epochs"]
    for split, name in (("train", "loss"), ("train", "vtm"), ("val", "loss"), ("val", "acc_vtm")):
        points = [point.value for point in curves.Scalars(f"{split}/{name}")][-2:]
        assert points == pytest.approx([entry[split][name] for entry in epochs], rel=1e-5)


def check_shares(run, engine: str, processes: int) -> None:
    """`stdout.txt` names the engine, and how many clips each process trained on and evaluated."""
    assert f"engine: {engine}, fp32, {processes} process(es), cpu" in run.log
    trained, evaluated = {1: ("3 samples (3", "4 samples (4"), 2: ("4 samples (2 + 2", "4 samples (3 + 1")}[processes]
    for part in (0, 1):
        assert f"epoch 1/1, toy {part}: {trained} by process)" in run.log
    assert len(re.findall(re.escape(f"val: {evaluated} by process)"), run.log)) == 2 + ("zero_shot" in run.results)
    for line in run.log.splitlines()[3:]:
        assert line.split("  ", 1)[1] in run.stdout, "stdout.txt and the console differ"


# --- the commands -----------------------------------------------------------------------------------------------------


def test_plain_python(released):
    run = released(MLM, None, True)
    check_outputs(run, MLM, "Lavender", 1)
    assert '"deepspeed" is true, but no launcher started this process' in run.log
    assert "zero_shot" not in run.results


@pytest.mark.slow
def test_plain_python_task_specific(released):
    check_outputs(released(TASK_SPECIFIC, None, True), TASK_SPECIFIC, "Lavender", 1)


def test_launch_without_deepspeed(released, checkpoint: Path):
    run = released(MLM, "launch", False, "--path_ckpt", checkpoint)
    check_outputs(run, MLM, DDP, 2)


def test_torchrun_with_deepspeed(released):
    check_outputs(released(TASK_SPECIFIC, "torchrun", True), TASK_SPECIFIC, DEEPSPEED, 2)


def test_deepspeed_launcher(released, checkpoint: Path):
    run = released(MLM, "deepspeed", True, "--path_ckpt", checkpoint)
    check_outputs(run, MLM, DEEPSPEED, 2)


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", [True, False])
@pytest.mark.parametrize("launcher", ["launch", "torchrun", "deepspeed"])
@pytest.mark.parametrize("script", [MLM, TASK_SPECIFIC])
def test_every_launcher_and_engine(released, script: str, launcher: str, deepspeed: bool):
    check_outputs(released(script, launcher, deepspeed), script, DEEPSPEED if deepspeed else DDP, 2)


@pytest.mark.slow
def test_mpirun_sets_other_variables(start, kept_toy: Path, tmp_path: Path):
    """Two processes with the environment that mpirun gives them, and no other."""

    def one(rank: int):
        environment = {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": "2",
            "MASTER_PORT": port,
        }
        options = (*LIVELY, "--deepspeed", "false", "--use_checkpoint", "false")
        return start(MLM, *options, output=tmp_path / "snapshot", environment=environment).check_passed()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, range(2))
    assert len(list((tmp_path / "snapshot").iterdir())) == 1
    check_outputs(first, MLM, DDP, 2)
    assert second.stdout == ""  # the first process alone speaks


@pytest.mark.slow
@pytest.mark.parametrize(("deepspeed", "engine"), [("true", DEEPSPEED), ("false", DDP)])
def test_a_launcher_with_one_process(start, needs, deepspeed: str, engine: str):
    needs("deepspeed")
    run = start(MLM, *LIVELY, "--deepspeed", deepspeed, launcher="torchrun", processes=1).check_passed()
    check_outputs(run, MLM, engine, 1)


# --- engines agree ----------------------------------------------------------------------------------------------------


def check_same_losses(first, second, tolerance: float = 1e-3) -> None:
    """Training and validation losses of two runs, entry by entry; `tolerance` is relative."""
    pairs = list(zip(first.results["epochs"], second.results["epochs"], strict=True))
    assert pairs
    for ours, theirs in pairs:
        for split, names in (("train", ("loss", "mtm", "vtm")), ("val", ("loss", "loss_mtm", "loss_vtm"))):
            for name in names:
                assert ours[split][name] == pytest.approx(theirs[split][name], rel=tolerance), (split, name)


def test_engines_agree(released, checkpoint: Path):
    """DeepSpeed by its own launcher, DDP by torch's: in fp32 the same losses and the same weights."""
    ddp = released(MLM, "launch", False, "--path_ckpt", checkpoint)
    zero = released(MLM, "deepspeed", True, "--path_ckpt", checkpoint)
    check_same_losses(ddp, zero)
    ours, theirs = ddp.checkpoint(CHECKPOINTS[-1]), zero.checkpoint(CHECKPOINTS[-1])
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


@pytest.mark.slow
def test_engines_agree_over_more_steps(start, needs):
    needs("deepspeed")
    words = (*LIVELY, "--size_batch", 1, "--size_epoch", 3, "--gradient_accumulation", 2)
    ddp, *zero = [
        start(MLM, *words, *engine, launcher="torchrun").check_passed()
        for engine in (
            ("--deepspeed", "false"),
            ("--deepspeed", "true", "--zero_stage", 0),
            ("--deepspeed", "true", "--zero_stage", 1),
            ("--deepspeed", "true", "--zero_stage", 2),
        )
    ]
    for stage, run in enumerate(zero):
        assert f"engine: DeepSpeedEngine (ZeRO {stage}), fp32, 2 process(es), cpu" in run.log
        check_same_losses(ddp, run)
    rates = [re.findall(r"lr (\S+),", run.log) for run in (ddp, *zero)]
    assert len(set(rates[0])) > 3  # a schedule, not a constant
    assert all(other == rates[0] for other in rates)


def test_two_processes_evaluate_as_one(released, checkpoint: Path, train_here):
    """Three clips a batch do not divide four: 3 + 1 on two processes, and the same figures to the last bit."""
    alone = train_here("--path_ckpt", checkpoint, "--size_epoch", 0, *LIVELY).check_passed()
    for launcher, deepspeed in (("launch", False), ("deepspeed", True)):
        pair = released(MLM, launcher, deepspeed, "--path_ckpt", checkpoint)
        assert pair.results["zero_shot"] == alone.results["zero_shot"]


@pytest.mark.slow
@pytest.mark.parametrize("size_batch", [1, 3, 4])  # 4: the second process has nothing to do
@pytest.mark.parametrize("script", [MLM, TASK_SPECIFIC])
def test_evaluation_alone_on_two_processes(start, released, train_here, script: str, size_batch: int):
    task = {MLM: PretrainTask, TASK_SPECIFIC: PretrainTaskSpecificTask}[script]
    weights = released(script, None, True).folder / CHECKPOINTS[-1]
    words = ("--path_ckpt", weights, "--size_epoch", 0, "--size_batch", size_batch, "--p_mask", 0.5)
    pair = start(script, *words, "--deepspeed", "false", launcher="torchrun").check_passed()
    alone = train_here(*words, task=task).check_passed()
    assert pair.results == alone.results
    assert pair.predictions("val") == alone.predictions("val")
    assert [record["index"] for record in pair.predictions("val")] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (MLM, ("--pretrain_tasks", "mtm")),
        (MLM, ("--pretrain_tasks", "vtm")),
        (MLM, ("--pretrain_tasks", "mtm", "--enable_task_token")),
        (MLM, ("--enable_task_token",)),
        (MLM, ("--enable_prompt",)),
        (MLM, ("--p_mask", 0)),
        (TASK_SPECIFIC, ("--pretrain_tasks", "mtm")),
        (TASK_SPECIFIC, ("--pretrain_tasks", "vtm")),
    ],
)
@pytest.mark.parametrize("deepspeed", ["true", "false"])
def test_losses_that_leave_parameters_out(start, needs, script: str, options: tuple, deepspeed: str):
    """DDP refuses its second step where a parameter had no gradient in the first."""
    if deepspeed == "true":
        needs("deepspeed")
    run = start(script, *LIVELY, *options, "--deepspeed", deepspeed, launcher="torchrun").check_passed()
    assert len(run.results["epochs"]) == 2
    assert all(math.isfinite(entry["train"]["loss"]) for entry in run.results["epochs"])
    if "--p_mask" in options:
        assert [entry["train"]["mtm"] for entry in run.results["epochs"]] == [0, 0]
        assert [entry["train"]["count_unlabelled_batches"] for entry in run.results["epochs"]] == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_deepspeed_in_bf16(start, needs, checkpoint: Path, stage: int):
    needs("deepspeed")
    words = ("--deepspeed", "true", "--precision", "bf16", "--zero_stage", stage, "--path_ckpt", checkpoint)
    run = start(MLM, *LIVELY, *words, launcher="torchrun")
    if stage == 0 and run.code:  # DeepSpeed's plain optimizer keeps no exact weights in a form that can be read
        assert any("zero_stage" in line for line in run.errors), run.stderr[-3000:]
        return
    run.check_passed()
    assert f"engine: DeepSpeedEngine (ZeRO {stage}), bf16" in run.log
    check_figures(run, MLM)
    begun, ended = run.checkpoint(CHECKPOINTS[0]), run.checkpoint(CHECKPOINTS[-1])
    given = torch.load(checkpoint, weights_only=True)
    for name, tensor in given.items():
        assert begun[name].dtype == ended[name].dtype == tensor.dtype, name
        assert torch.allclose(begun[name], tensor, rtol=2**-7, atol=1e-6), name
    moved = ended["fc_mtm.predictions.bias"]
    assert not torch.equal(moved, moved.bfloat16().float()), "saved from the rounded weights, not from the exact ones"


@pytest.mark.slow
def test_what_is_not_trained_is_saved_as_it_came(start, needs, checkpoint: Path):
    """Parameters that this run leaves out belong to others that use the checkpoint: no rounding to bf16."""
    needs("deepspeed")
    words = ("--deepspeed", "true", "--precision", "bf16", "--path_ckpt", checkpoint)
    run = start(MLM, *LIVELY, *words, launcher="torchrun").check_passed()
    given, ended = torch.load(checkpoint, weights_only=True), run.checkpoint(CHECKPOINTS[-1])
    assert torch.equal(ended["emb_task"], given["emb_task"])


def test_bf16_without_deepspeed(train_here):
    run = train_here(*LIVELY, "--precision", "bf16").check_passed()
    assert "engine: Lavender, bf16, 1 process(es), cpu" in run.log
    check_figures(run, MLM)
    exact = train_here(*LIVELY).check_passed()
    assert run.results != exact.results
    check_same_losses(run, exact, tolerance=0.02)


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


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["true", "false"])
def test_a_run_on_two_processes_repeats(start, needs, deepspeed: str):
    needs("deepspeed")
    words = (*LIVELY, "--deepspeed", deepspeed)
    first, second = (start(MLM, *words, "--n_workers", number, launcher="torchrun").check_passed() for number in (0, 2))
    assert first.results == second.results


@pytest.mark.parametrize(("offload", "precision"), [("false", "fp32"), ("true", "fp32"), ("false", "bf16")])
def test_activation_checkpointing(train_here, needs, offload: str, precision: str):
    needs("fairscale")
    words = (*LIVELY, "--precision", precision)
    plain = train_here(*words).check_passed()
    spared = train_here(*words, "--use_checkpoint", "true", "--checkpoint_offload", offload).check_passed()
    check_same_losses(plain, spared, tolerance=1e-6)
    assert spared.checkpoint(CHECKPOINTS[0]).keys() == plain.checkpoint(CHECKPOINTS[0]).keys()


def test_gradient_accumulation(train_here):
    """Two batches make a step: the first leaves the weights alone, the second moves them."""
    run = train_here(*LIVELY, "--gradient_accumulation", 2, "--size_epoch", 2).check_passed()
    names = [CHECKPOINTS[0], *(f"ckpt_violet_pretrain_toy_{part}_{epoch}.pt" for epoch in (1, 2) for part in (0, 1))]
    start_, *after = [run.checkpoint(name)["enc_img.emb_cls"] for name in names]
    changed = [not torch.equal(a, b) for a, b in zip([start_, *after], after, strict=False)]
    assert changed == [False, True, False, True]
    assert re.findall(r"lr (\S+),", run.log) == ["1.00e-03", "1.00e-03", "5.00e-04", "5.00e-04"]


# --- checkpoints in ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_scored_before_training(train_here):
    first = train_here(*LIVELY).check_passed()
    words = ("--path_ckpt", first.folder / CHECKPOINTS[-1], *LIVELY)
    second = train_here(*words).check_passed()
    assert second.results["zero_shot"]["val"] == first.results["epochs"][-1]["val"]
    assert len(second.results["epochs"]) == 2
    given, begun = first.checkpoint(CHECKPOINTS[-1]), second.checkpoint(CHECKPOINTS[0])
    assert all(torch.equal(given[name], begun[name]) for name in given)
    fresh = train_here(*words, "--reinit_head", "--size_epoch", 0).check_passed().checkpoint(CHECKPOINTS[0])
    word_weights = "fc_mtm.predictions.transform.dense.weight"
    assert not torch.equal(fresh[word_weights], given[word_weights])
    assert torch.equal(fresh["enc_img.emb_cls"], given["enc_img.emb_cls"])


def test_evaluation_alone_has_no_epochs(train_here):
    first = train_here().check_passed()
    run = train_here("--path_ckpt", first.folder / CHECKPOINTS[-1], "--size_epoch", 0).check_passed()
    assert run.results == {"zero_shot": {"val": first.results["epochs"][-1]["val"]}, "epochs": []}
    assert run.json("log.json").keys() == {"toy"}


def test_the_model_is_known_from_the_checkpoint(train_here):
    """`args.json` beside it says its shape; with nothing to train, also which frames and texts to read."""
    trained = train_here("--size_txt", 20, "--size_frame", 3, "--kinetics", 400).check_passed()
    words = ("--path_ckpt", trained.folder / CHECKPOINTS[-1], "--size_batch", 3, "--n_workers", 0)
    run = train_here(*words, "--size_epoch", 0, small=()).check_passed()
    args = run.json("args.json")
    inherited = {"vis_backbone_size": "micro", "kinetics": 400, "size_img": 64, "size_txt": 20, "size_frame": 3}
    assert {name: args[name] for name in inherited} == inherited
    assert Path(args["fusion_encoder"]).name == "bert_micro"
    assert "vis_backbone_size: micro from" in run.log
    assert run.results["zero_shot"]["val"] == trained.results["epochs"][-1]["val"]

    run = train_here(*words, "--size_epoch", 0, "--size_txt", 32, small=()).check_passed()
    assert run.json("args.json")["size_txt"] == 32
    assert "size_txt: 32 from the command line, though the checkpoint was trained with 20" in run.log

    run = train_here(*words, "--size_epoch", 1, "--size_img", 64, "--size_part", 2, small=()).check_passed()
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
    assert run.results["best"] == {"epoch": 1, "dataset": "toy", "part": 1}
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
