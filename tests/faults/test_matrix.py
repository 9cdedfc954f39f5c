"""Fault × stage × engine: how the run ends, what is kept, and that `--resume auto` gives what an undisturbed run does.

Each cell runs a script twice: with the fault (inject.py), and again to its end.
"""

import itertools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
KIT = ROOT / "tests" / "conformance" / "kit"
SCRIPT, INJECT = "main_qaoe_mlm.py", "tests/faults/inject.py"
OPTIONS = (
    *("--config", "_args/args_msvd-qa.json", "--dataset", "toy", "--task", "toy-qa", "--on_bad_sample", "zero"),
    *("--use_checkpoint", "false", "--size_batch", "1", "--size_epoch", "2", "--n_workers", "2", "--lr", "1e-3"),
    *("--logging_steps", "1", "-v", "--save_steps", "2"),
)
ENGINES = {"plain": (None, "false"), "DDP": ("launch", "false"), "DeepSpeed": ("torchrun", "true")}

# Stage → what is there to go on from after a fault that gives no time to save: steps of the state, last weights.
KEPT = {
    "start": (None, None),
    "training": ("000000002", 0),
    "evaluation": ("trained", 0),
    "saving a state": ("000000002", 0),
    "writing a state": ("000000002", 0),
    "writing a share": ("000000002", 0),
    "saving weights": ("trained", 0),
}
IN_TRAINING = ("training", "saving a state")  # where a signal lets the step end
CELLS = [
    *itertools.product(("killed", "terminated"), [stage for stage in KEPT if not stage.startswith("writing")]),
    *(("interrupted", stage) for stage in ("start", "training", "evaluation")),
    *(("full disk", stage) for stage in ("start", "saving a state", "saving weights")),
    *(("lost worker", stage) for stage in ("training", "evaluation")),
]
ALL = [
    *((*cell, engine) for cell, engine in itertools.product(CELLS, ENGINES)),
    *(("killed", "writing a state", engine) for engine in ENGINES),
    ("killed", "writing a share", "DeepSpeed"),
]
QUICK = {("killed", "writing a state", "plain")}
MATRIX = [pytest.param(*cell, marks=() if cell in QUICK else pytest.mark.slow) for cell in ALL]


@pytest.fixture
def train(start, needs) -> Callable[..., Any]:
    """`train(engine, output, *options, fault=…, stage=…)`"""

    def run(engine: str, output: Path, *options: object, fault: str = "", stage: str = "", **more: Any) -> Any:
        needs("deepspeed")
        launcher, deepspeed = ENGINES[engine]
        told = {"SCRIPT": SCRIPT, "FAULT": fault, "STAGE": stage}  # launchers put words of theirs among the options
        return start(
            *(INJECT if fault else SCRIPT, *OPTIONS, "--deepspeed", deepspeed, *options),
            **{"launcher": launcher, "released": (), "data": KIT / "data", "output": output, **more},
            environment=told if fault else None,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
        )

    return run


@pytest.fixture(scope="session")
def undisturbed() -> dict[str, Any]:
    """Engine → the run that nothing happened to."""
    return {}


def check_end(run: Any, fault: str, stage: str, launched: bool) -> None:
    """The exit code, and one line that says what happened where the process could still speak."""
    says = {
        "full disk": (2, "could not be written"),
        "lost worker": (2, "a data loading worker process was killed"),
        "killed": (-signal.SIGKILL, ""),
        "terminated": (75, "to go on: --resume") if stage in IN_TRAINING else (-signal.SIGTERM, ""),
        "interrupted": (75, "to go on: --resume") if stage in IN_TRAINING else (130, "interrupted"),
    }
    code, words = says[fault]
    told = f"{run.stdout[-2000:]}\n{run.stderr[-4000:]}"
    assert run.code == code if not launched else run.code != 0, told
    assert words in run.stderr, told
    ours = [line for line in run.stderr.splitlines() if "/lavender/" in line and line.lstrip().startswith("File ")]
    assert ours == [], told


def check_kept(run: Any, fault: str, stage: str) -> None:
    """Only whole states and whole weights, and no fewer than there were."""
    state, weights = KEPT[stage]
    saves = fault in ("terminated", "interrupted") and stage in IN_TRAINING
    states = sorted(path.parent.name for path in run.folder.glob("resume/step_*/position.json"))
    if saves:
        assert [int(name.split("_")[1]) for name in states] >= [2]
    else:
        assert [name.endswith(state) for name in states] == [True] if state else states == []
    files = sorted(run.folder.glob("*.pt"))
    names = [path.name for path in files]
    if weights is not None or names:  # while one process is struck at the start, the first may be a file ahead
        assert names == [f"ckpt_violet_toy-qa_{weights or 0}.pt"]
    for path in files:
        assert torch.load(path, weights_only=True)


@pytest.mark.parametrize(("fault", "stage", "engine"), MATRIX)
def test_a_fault(train, undisturbed: dict, tmp_path_factory, fault: str, stage: str, engine: str):
    if engine not in undisturbed:
        undisturbed[engine] = train(engine, tmp_path_factory.mktemp("whole") / "run").check_passed()
    whole, output = undisturbed[engine], tmp_path_factory.mktemp("struck") / "run"
    struck = train(engine, output, fault=fault, stage=stage)
    check_end(struck, fault, stage, launched=engine != "plain")
    check_kept(struck, fault, stage)
    again = train(engine, output, "--resume", "auto").check_passed()
    begun_anew = stage == "start" and fault != "full disk"  # which leaves no folder, as it could tidy up
    assert len(list(output.iterdir())) == (2 if begun_anew else 1)
    assert again.results == whole.results
    assert again.json("log.json") == whole.json("log.json")
    for path in whole.folder.glob("*.pt"):
        ours, theirs = again.checkpoint(path.name), whole.checkpoint(path.name)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), path.name
    left = [path.name for path in again.folder.iterdir() if path.name == "resume" or path.name.startswith(".")]
    assert left == []
