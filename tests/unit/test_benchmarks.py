"""`python -m benchmarks` at micro size: every measurement gives rows, ratios are there, a skipped row says why."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import inputs, measure, others, rows, steps
from benchmarks.plain import plainly
from benchmarks.rows import SIZES, Machine, Row, Skipped, file_name, heading, line
from lavender.models import compiling
from lavender.runtime.errors import TrainingError

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def machine() -> Machine:
    few = {"QA": 1, "retrieval": 2, "pretraining": 2}
    found = Machine(CPU, "fp32", "micro", few, rounds=1, videos=2, captions=1, matrix=64)
    found.saved = "micro"
    found.rates["fp32"] = 1e11
    return found


def test_the_matrix_rate_is_what_shares_are_of(machine, monkeypatch):
    machine.rates.clear()
    assert machine.share(1.0, 1.0) is None
    (row,) = others.matrix(replace(machine))
    assert row.value == pytest.approx(machine.rates["fp32"] / 1e12)
    for later, share in ((0.5, 0.5), (2.0, 0.25)):  # the better rate counts
        monkeypatch.setattr(rows, "matrix_rate", lambda *_, later=later: later * machine.rates["fp32"])
        assert machine.share(machine.rates["fp32"], 2.0) == pytest.approx(share)


def test_input(machine):
    training, evaluation, bare = inputs.measure(machine)
    assert training.value > 0 < bare.value
    assert training.ratio > 0 < evaluation.ratio


def test_the_encoder(machine):
    (row,) = steps.encoder(machine)
    assert min(row.value, row.ratio, row.share) > 0
    assert "plain differs by" in row.note


def test_a_plain_version_that_is_other_mathematics_is_an_error(machine, monkeypatch):
    model = machine.model.build()
    img = steps.batch_of("QA", 1, 64, CPU)["img"]
    monkeypatch.setattr("benchmarks.plain.attend", lambda module, x: x)
    with pytest.raises(AssertionError, match="differ by"):
        steps.compare_outputs(model, img, machine)


def test_the_model_is_as_it_was_after_the_plain_version(machine):
    model = machine.model.build()
    with plainly(model):
        assert any("forward" in module.__dict__ for module in model.modules())
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("task", steps.TASKS)
def test_training_steps(machine, task: str):
    (row,) = steps.step(task, "eager", machine)
    assert row.unit == "s"
    assert min(row.value, row.share) > 0
    assert (row.ratio is not None) == (task == "QA")


def test_operations_of_a_step():
    """83.3 GMAC a clip of 5 frames, 24.8 GMAC a pair, a backward pass of twice the forward one."""
    flop = steps.step_flop("QA", 1, SIZES["base"])
    assert flop == pytest.approx(3 * 2e9 * (83.5 + 24.9), rel=0.02)


def test_captions_and_saving(machine):
    greedy, beams = others.captions(machine)
    assert greedy.ratio > 0 < beams.value
    assert [row.name for row in others.save(machine)] == ["save, checkpoint", "save, state"]


def test_rows_that_cannot_be_or_fail_do_not_stop_the_others(machine, monkeypatch, tmp_path, capsys):
    def works(machine: Machine) -> list[Row]:
        return [Row("good", 1.0, "s", 2.0, 0.5, 3.0, "fine")]

    def needs_fairscale(*_: object) -> None:
        raise TrainingError("FairScale is not installed")

    def fails(machine: Machine) -> list[Row]:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(steps, "checkpoint_activations", needs_fairscale)
    found = [
        ("step", "checkpointed", lambda m: steps.step("QA", "use_checkpoint", m)),
        ("input", "bad", fails),
        ("save", "left out", fails),
        ("input", "good", works),
    ]
    monkeypatch.setattr(measure, "measurements", lambda *_: found)
    rows = measure.run(machine, True, ["step", "input"], 0.0, tmp_path / "out.json")
    assert [(row.name, row.value) for row in rows] == [("checkpointed", None), ("bad", None), ("good", 1.0)]
    shown = capsys.readouterr().out
    assert "skipped: FairScale is not installed" in shown
    assert "FAILED: ZeroDivisionError: by nothing" in shown
    written = json.loads((tmp_path / "out.json").read_text())
    keys = {"date", "commit", "chip", "cores", "threads", "torch", "dtype", "size", "matrix_rate", "rows"}
    assert written.keys() == keys
    row = {"name", "value", "unit", "ratio", "share", "memory", "note", "skipped", "failed"}
    assert all(entry.keys() == row for entry in written["rows"])
    late = measure.run(machine, True, [], 1e-9, tmp_path / "late.json")
    assert all("are over" in row.skipped for row in late)


def test_what_has_no_compiler_is_not_compiled(machine, monkeypatch):
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)
    with pytest.raises(Skipped, match=r"C\+\+ compiler"):
        steps.Step("QA", "compile", machine)


def test_an_unknown_group_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "inputs"])
    assert "inputs is none of matrix, input" in capsys.readouterr().err


def test_lines_and_file_names():
    assert len(line(Row("encoder", 1.0, "s", 2.0, 0.5, 3.0))) <= len(heading())
    assert file_name(CPU).endswith("-cores.json")
    assert not set(" /()@") & set(file_name(CPU))


def test_the_script_for_a_gpu_is_valid():
    subprocess.run(["bash", "-n", str(ROOT / "benchmarks" / "gpu.sh")], check=True)
