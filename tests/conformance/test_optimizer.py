"""Groups, schedule and trajectories of the released optimizer, plain, under DDP and under DeepSpeed."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lavender.engine.optim import learning_rate, parameter_groups
from tests import warm
from tests.conformance.boundary import IS_RECORDED

ON_CPU = pytest.mark.skipif(not IS_RECORDED, reason="trains on the CPU; tests/gpu compares steps of a GPU with it")
TRAJECTORY = Path(__file__).parent / "trajectory.py"


def test_groups(kit, micro):
    groups = parameter_groups(micro, lr=1e-3, backbone_lr_mul=0.5, decay=1e-3)
    for ours, reference in zip(groups, kit.json("optimizer_groups"), strict=True):
        assert sorted(ours["names"]) == sorted(reference["names"])
        assert ours["weight_decay"] == reference["weight_decay"]
        assert ours["peak_lr"] == reference["lr"]


@pytest.mark.parametrize("name", ["optimizer", "optimizer_decay"])
def test_schedule(kit, name):
    case = kit.case(name)
    peaks = (5e-4, 1e-3, 5e-4, 1e-3)
    rows = [
        [learning_rate(peak, step, int(case["max_iter"])) for peak in peaks] for step in range(len(case["lr_schedule"]))
    ]
    assert np.array_equal(np.array(rows, dtype=np.float32), case["lr_schedule"])


def run_trajectory(tmp_path: Path, case: str, engine: str, processes: int) -> dict:
    """The steps of `trajectory.py`, on one process or under a launcher; what the first process found."""
    out = tmp_path / "out.json"
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    python = warm.warm(*(warm.DEEPSPEED if engine == "deepspeed" else ()))
    done = python.run(*launcher, TRAJECTORY, case, engine, out, env={**os.environ, **warm.NO_GPU})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


ONE, DDP, DEEPSPEED = ENGINES = [
    ("torch", 0, "TorchEngine"),
    ("torch", 2, "DistributedDataParallel"),
    ("deepspeed", 2, "DeepSpeedEngine"),
]


def quick(*some: tuple[str, int, str]) -> list:
    """All engines; those that are not in `some` are slow tests. DeepSpeed, which takes a minute, is in both."""
    return [engine if engine in some else pytest.param(*engine, marks=pytest.mark.slow) for engine in ENGINES]


@ON_CPU
@pytest.mark.parametrize(("engine", "processes", "class_name"), quick(ONE, DDP))
def test_six_losses(kit, tmp_path, engine, processes, class_name):
    case = kit.case("optimizer")
    ours = run_trajectory(tmp_path, "optimizer", engine, processes)
    assert class_name.replace("TorchEngine", "Lavender") in ours["engine"]
    assert ours["losses"] == pytest.approx(case["losses"].tolist(), rel=1e-6)
    assert ours["grad_norms"] == pytest.approx(case["grad_norms"].tolist(), rel=1e-5)


@ON_CPU
@pytest.mark.parametrize(("engine", "processes", "class_name"), quick())
def test_ten_losses_with_decay(kit, tmp_path, engine, processes, class_name):
    case = kit.case("optimizer_decay")
    ours = run_trajectory(tmp_path, "optimizer_decay", engine, processes)
    assert ours["losses"] == pytest.approx(case["losses"].tolist(), rel=1e-5)
    for key, reference in case.items():
        if key.startswith("after_10__"):
            found = np.array(ours["parameters"][key.removeprefix("after_10__")], dtype=np.float32)
            assert np.abs(found - reference).max() <= 1e-5 * np.abs(reference).max()
