"""Runs that go wrong: losses that are not finite, outputs that cannot be written, processes that die.

One line that says what happened, no traceback, no hang, and what was saved before stays whole.
"""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lavender.tasks.pretrain import PretrainTaskSpecificTask

ROOT = Path(__file__).parents[2]
MLM = "main_pretrain_mlm.py"
TOLERANT = ("--on_bad_sample", "zero")

# --- losses that are not finite ---------------------------------------------------------------------------------------


def last_good(error: str) -> Path:
    return Path(re.findall(r"the last good checkpoint is (\S+\.pt)", error)[0])


def test_a_loss_that_is_not_finite(train_here, toy: Path, spoil):
    """The step, the clips and the last checkpoint before it are named."""
    spoil.texts(toy / "txt_toy.json", lambda texts: texts.pop("val"))
    run = train_here("--lr", 1e30, "--size_epoch", 2, "--p_mask", 0.5, data=toy)
    error = run.check_refused("the loss is not finite at step 2 of 4", "--lr")
    assert sorted(re.findall(r"vid\d", error)) == ["vid3", "vid4", "vid5"]
    assert last_good(error).name == "ckpt_violet_pretrain_toy_0_1.pt"
    assert all(tensor.isfinite().all() for tensor in torch.load(last_good(error), weights_only=True).values())


def test_the_last_good_checkpoint_is_good(train_here):
    """Where validation after the step shows that the model is lost, what was saved then is not called good."""
    run = train_here("--lr", 1e30, "--size_epoch", 2, "--p_mask", 0.5)
    error = run.check_refused("not finite", "step", "the last good checkpoint is")
    scored = train_here("--path_ckpt", last_good(error), "--size_epoch", 0).check_passed()
    assert np.isfinite(list(scored.results["zero_shot"]["val"].values())).all()


def test_a_poisoned_checkpoint(train_here):
    """Weights that are not numbers: told at the latest when training begins, and not called good."""
    first = train_here().check_passed()
    path = first.folder / "ckpt_violet_pretrain_toy_1_1.pt"
    state = torch.load(path, weights_only=True)
    state["trsfr.layer.0.output.dense.weight"][0, 0] = float("nan")
    torch.save(state, path)
    error = train_here("--path_ckpt", path).check_refused("not finite")
    assert "last good checkpoint" not in error or "ckpt_violet_pretrain_init_0_0" not in error


def test_a_gradient_that_is_not_finite(train_here, toy: Path, spoil, tmp_path: Path):
    """A finite loss can have an infinite gradient: it must not reach weights that are saved and called good.

    Here it comes from a missing clip: all-zero frames have no variance, and each LayerNorm of a backbone without biases
    multiplies its gradient by 1/√eps.
    """
    bert = tmp_path / "bert"
    bert.mkdir()
    for file in (ROOT / "tests" / "conformance" / "kit" / "bert_micro").iterdir():
        (bert / file.name).write_bytes(file.read_bytes())
    settings = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**settings, "initializer_range": 0.07}))
    spoil.row(toy / "toy_train_0.tsv", 0, lambda fields: fields[:1])
    words = ("--txt_backbone", bert, "--fusion_encoder", bert, "--max_grad_norm", 1, "--p_mask", 0.5)
    run = train_here(*words, *TOLERANT, data=toy)
    for path in run.folder.glob("*.pt"):
        assert all(tensor.isfinite().all() for tensor in torch.load(path, weights_only=True).values()), path.name
    if run.code:
        run.check_refused("not finite")


@pytest.mark.parametrize("task", [None, PretrainTaskSpecificTask])
def test_not_a_number_is_not_a_match(train_here, task):
    """Evaluation of weights that are not numbers is refused, or scores nothing; never 100 %."""
    task = {"task": task} if task else {}
    first = train_here(**task).check_passed()
    path = first.folder / "ckpt_violet_pretrain_toy_1_1.pt"
    state = torch.load(path, weights_only=True)
    state["trsfr.layer.0.output.dense.weight"][0, 0] = float("nan")
    torch.save(state, path)
    run = train_here("--path_ckpt", path, "--size_epoch", 0, "--size_batch", 4, **task)
    if run.code:
        run.check_refused("not finite")
    else:
        assert "acc_vtm 1.0000" not in run.log
        assert run.results["zero_shot"]["val"]["acc_vtm"] == 0


# --- the place of the outputs -----------------------------------------------------------------------------------------


def test_outputs_that_cannot_be_written(train_here, tmp_path: Path):
    place = tmp_path / "taken"
    place.write_text("a file")
    train_here(output=place).check_refused(str(place), "--path_output")
    assert place.read_text() == "a file"


def test_a_full_disk(train_here):
    """Files of at most 100 kB: the checkpoint does not fit. No half of it is left."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        run = train_here()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    run.check_refused("ckpt_violet_pretrain_init_0_0.pt", "could not be written", "--path_output")
    assert list(run.folder.rglob("*ckpt*")) == []


# --- processes --------------------------------------------------------------------------------------------------------


def kill_workers(process: subprocess.Popen) -> None:
    """SIGKILL to every data loading process that shows, as the kernel does when memory runs out.

    To every one: a worker that has handed over its last batch is not missed.
    """
    while process.poll() is None:
        with contextlib.suppress(OSError):
            for server in children(process.pid):
                for worker in children(server):
                    os.kill(worker, signal.SIGKILL)
        time.sleep(0.002)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_killed_worker(start, tmp_path: Path):
    """After the first step: at its first one torch imports more of itself, and logs as a traceback what reaches it."""
    output = tmp_path / "snapshot"

    def kill(process: subprocess.Popen) -> None:
        while process.poll() is None and not any(", step " in log.read_text() for log in output.glob("*/stdout.txt")):
            time.sleep(0.01)
        kill_workers(process)

    run = start(MLM, "--use_checkpoint", "false", "--n_workers", 1, "--size_epoch", 20, output=output, watch=kill)
    run.check_refused("worker")


@pytest.mark.slow
def test_an_interrupted_run(start, tmp_path: Path):
    """Ctrl-C: one line, no traceback, and the outputs so far are whole; in training it is saved what to go on from."""

    output = tmp_path / "snapshot"

    def interrupt(process: subprocess.Popen) -> None:
        while process.poll() is None and not list(output.glob("*/ckpt_violet_pretrain_toy_1_1.pt")):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)

    run = start(
        *(MLM, "--use_checkpoint", "false", "--size_epoch", 50),
        output=output,
        watch=interrupt,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    assert "Traceback" not in run.stderr
    last = run.stderr.rstrip().splitlines()[-1]
    assert (run.code, last.endswith("interrupted")) in ((130, True), (75, False)), run.stderr[-3000:]
    assert run.code == 130 or "to go on: --resume" in last
    assert [path.name for path in run.folder.iterdir() if path.name.endswith(".tmp")] == []
    assert run.results["epochs"]


def check_refused_by_all(run, *words: str) -> None:
    """Under a launcher, which passes a failure on in words of its own: our line is there once or more."""
    assert run.code != 0, run.stderr[-6000:]
    told = re.findall(r"error: [^\r\n]*", run.stderr)  # perhaps behind the bar of another process
    assert any(all(word in line for word in words) for line in told), run.stderr[-6000:]


def check_told_once(run, *words: str) -> None:
    """Our line is printed once by all processes together, and is the cause in torch's report."""
    check_refused_by_all(run, *words)
    ours, _, report = run.stderr.partition("ChildFailedError")
    told = re.findall(r"(?:error|stopped): [^\r\n]*", ours)
    assert len(told) == 1, run.stderr[-6000:]
    cause = report.partition("Root Cause")[2]
    assert [word for word in words if word not in cause] == [], run.stderr[-6000:]


def check_quiet(run) -> None:
    """No process of ours buries the cause under a traceback."""
    ours = [line for line in run.stderr.splitlines() if re.search(r'File ".*/lavender/', line)]
    assert ours == [], run.stderr[-6000:]


def test_two_processes_and_no_text(start, toy: Path, spoil):
    (toy / "txt_toy.json").unlink()
    run = start(MLM, "--deepspeed", "false", launcher="torchrun", data=toy)
    check_told_once(run, "txt_toy.json", "missing", "[process ")
    check_quiet(run)


def test_two_processes_and_a_bad_clip_on_one(start, toy: Path, spoil):
    """The other process is in the middle of a step that will never end: it must not wait, and not drown the cause."""
    spoil.texts(toy / "txt_toy.json", lambda texts: texts["train"].pop("vid5"))
    run = start(MLM, "--deepspeed", "false", launcher="launch", data=toy)
    check_told_once(run, 'no caption for video "vid5"')
    check_quiet(run)


@pytest.mark.parametrize("launcher", ["torchrun", "launch"])
def test_two_processes_and_a_bad_configuration(start, launcher: str):
    run = start(MLM, "--config", "nowhere.json", launcher=launcher)
    check_told_once(run, "nowhere.json", str(ROOT), "[process ")
    check_quiet(run)


@pytest.mark.slow
def test_two_processes_with_deepspeed_and_a_bad_clip_on_one(start, needs, toy: Path, spoil):
    needs("deepspeed")
    spoil.row(toy / "toy_train_1.tsv", 1, lambda fields: [fields[0], "/9j/garbage"])
    run = start(MLM, "--n_workers", 1, launcher="deepspeed", data=toy)
    check_refused_by_all(run, "toy_train_1.tsv, line 2")


@pytest.mark.slow
@pytest.mark.parametrize("deepspeed", ["true", "false"])
def test_two_processes_and_a_loss_that_is_not_finite(start, needs, toy: Path, spoil, deepspeed: str):
    needs("deepspeed")
    spoil.texts(toy / "txt_toy.json", lambda texts: texts.pop("val"))
    words = ("--lr", 1e30, "--size_epoch", 2, "--p_mask", 0.5, "--deepspeed", deepspeed)
    run = start(MLM, *words, launcher="torchrun", data=toy)
    check_refused_by_all(run, "the loss is not finite at step 2 of 4", "vid", "toy_0_1.pt")
    check_quiet(run)


@pytest.mark.slow
def test_two_processes_and_outputs_that_cannot_be_written(start, tmp_path: Path):
    place = tmp_path / "taken"
    place.write_text("a file")
    run = start(MLM, "--deepspeed", "false", launcher="torchrun", output=place)
    check_refused_by_all(run, str(place), "--path_output")


@pytest.mark.slow
def test_two_processes_and_bad_samples_on_both(start, toy: Path, spoil):
    """Counted over all processes, and the run goes on."""
    for path in ("toy_train_0.tsv", "toy_train_1.tsv"):
        for row in range(3):
            spoil.row(toy / path, row, lambda fields: [fields[0], "/9j/garbage"])
    run = start(MLM, "--deepspeed", "false", *TOLERANT, launcher="torchrun", data=toy).check_passed()
    assert [entry["train"]["bad_samples"] for entry in run.results["epochs"]] == [4, 4]  # 3, and one to fill up


@pytest.mark.slow
@pytest.mark.parametrize("content", ['{"zero_optimization": {"stage": 3}}', '{"fp16" 1}', None])
def test_bad_deepspeed_settings(start, needs, tmp_path: Path, content: str | None):
    needs("deepspeed")
    path = tmp_path / "zero.json"
    if content:
        path.write_text(content)
    run = start(MLM, "--deepspeed", "true", "--deepspeed_config", path, launcher="torchrun")
    check_refused_by_all(run, str(path))


@pytest.mark.slow
def test_a_precision_that_the_engine_has_not(start, needs):
    """DeepSpeed computes in fp16 only where the device does: it runs, or says so in one line."""
    needs("deepspeed")
    run = start(MLM, "--deepspeed", "true", "--precision", "fp16", launcher="torchrun")
    if run.code == 0:
        assert "engine: DeepSpeedEngine (ZeRO 1), fp16" in run.log
    else:
        check_refused_by_all(run, "fp16")
        check_quiet(run)
