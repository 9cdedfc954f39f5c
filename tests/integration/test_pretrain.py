"""Both pretraining scripts, with the released configuration made small, by every launcher and engine."""

import functools
import json
import math
import re
import socket
from concurrent.futures import ThreadPoolExecutor
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
    """`released(script, launcher, deepspeed)`: one run of each kind for all tests, on 2 processes where launched.

    Whole starts as users make them are quick enough for one process, and for DeepSpeed's launcher, which has no other;
    `test_every_launcher_and_engine` has them all.
    """

    @functools.cache
    def run(script: str, launcher: str | None, deepspeed: bool, *options: object, cold: bool = False):
        needs("fairscale")  # the released configuration asks for it
        if deepspeed or launcher == "deepspeed":
            needs("deepspeed")
        words = [*LIVELY, "--deepspeed", str(deepspeed).lower(), *options]
        return start(script, *words, launcher=launcher, cold=cold or launcher is None).check_passed()

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
    assert (args["type"], args["task"], args["dataset"], args["size_img"]) == ("pretrain", "pretrain", ["toy"], 32)
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
    check_outputs(released(script, launcher, deepspeed, cold=True), script, DEEPSPEED if deepspeed else DDP, 2)


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


def test_engines_agree(released, checkpoint: Path):
    """DeepSpeed by its own launcher, DDP by torch's: in fp32 the same losses and the same weights."""
    ddp = released(MLM, "launch", False, "--path_ckpt", checkpoint)
    zero = released(MLM, "deepspeed", True, "--path_ckpt", checkpoint)
    ddp.check_same_losses(zero, 1e-3)
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
        ddp.check_same_losses(run, 1e-3)
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


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["true", "false"])
def test_a_run_on_two_processes_repeats(start, needs, deepspeed: str):
    needs("deepspeed")
    words = (*LIVELY, "--deepspeed", deepspeed)
    first, second = (start(MLM, *words, "--n_workers", number, launcher="torchrun").check_passed() for number in (0, 2))
    assert first.results == second.results
