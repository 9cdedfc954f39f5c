"""`--compile true` in whole runs; parts are traced and run as they are. `unit/models/test_compiling.py` compiles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = "main_qaoe_mlm.py"
QA = ("--config", "_args/args_msvd-qa.json", "--dataset", "toy", "--task", "toy-qa", "--on_bad_sample", "zero")
OPTIONS = (*QA, "--size_batch", 1, "--size_epoch", 2, "--lr", "1e-3", "--save_steps", 2)
STOP = 3  # the step in which a run is asked to stop
COMPILED = """
import functools, os, runpy, signal, sys
from lavender.engine import engines, run

run.compile_model = functools.partial(run.compile_model, backend="eager")
steps, train_batch = 0, engines.Engine.train_batch

def asked_to_stop(*words, **more):
    global steps
    steps += 1
    if steps == int(os.environ["STOP"]):
        os.kill(os.getpid(), signal.SIGTERM)
    return train_batch(*words, **more)

engines.Engine.train_batch = asked_to_stop
sys.argv[0] = os.environ["SCRIPT"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def train(start, needs, tmp_path: Path, kept_questions: Path) -> Callable[..., Any]:
    """`train(compiled, launcher, deepspeed, *options, stop=…)`; STOP as an option ends it in that step."""
    (tmp_path / "compiled.py").write_text(COMPILED)

    def run(compiled: bool, launcher: str | None, deepspeed: str, *options: object, stop: int = 0) -> Any:
        needs("deepspeed")
        script = str(tmp_path / "compiled.py") if compiled else SCRIPT
        words = ("--compile", str(compiled).lower(), "--deepspeed", deepspeed, *OPTIONS, *options)
        told = {"SCRIPT": SCRIPT, "STOP": str(stop), "PYTHONPATH": str(Path(__file__).parents[2])}
        output = tmp_path / f"compiled_{compiled}"
        return start(
            script,
            *words,
            launcher=launcher,
            released=(),
            data=kept_questions,
            output=output,
            environment=told,
            cold=True,
        )

    return run


@pytest.mark.parametrize(
    ("launcher", "deepspeed", "recomputed"),
    [(None, "false", "true"), ("torchrun", "false", "true"), ("torchrun", "true", "false")],
)
def test_compiled_runs_learn_the_same_and_go_on_after_a_stop(
    train, launcher: str | None, deepspeed: str, recomputed: str
):
    words = ("--use_checkpoint", recomputed)
    plain = train(False, launcher, deepspeed, *words).check_passed()
    stopped = train(True, launcher, deepspeed, *words, stop=STOP)
    assert stopped.code != 0
    assert "to go on: --resume" in stopped.stderr
    compiled = train(True, launcher, deepspeed, *words, "--resume", "auto").check_passed()
    assert compiled.folder == stopped.folder
    for ours, theirs in zip(compiled.results["epochs"], plain.results["epochs"], strict=True):
        assert ours["train"]["loss"] == pytest.approx(theirs["train"]["loss"], rel=1e-5)
    ours, theirs = (run.checkpoint("ckpt_violet_toy-qa_2.pt") for run in (compiled, plain))
    assert ours.keys() == theirs.keys()
    for name, weights in theirs.items():
        if weights.is_floating_point():
            assert float((ours[name] - weights).abs().max()) < 1e-4, name
