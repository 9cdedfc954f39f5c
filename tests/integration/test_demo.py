"""The quick start to its end, as `make demo` runs it, with a few clips."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavender.demo.tour import tour

ROOT = Path(__file__).parents[2]
PICTURES = {"pretraining.png", "answers.png", "retrieval.png", "captions.png"}


def test_the_tour_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    pretrained, runs = tour(tmp_path / "demo", n_train=32, n_test=12)
    assert pretrained.name == "ckpt_violet_pretrain_toy_0_6.pt"
    assert set(runs) == {"toy-retrieval", "toy-qa", "toy-mc", "toy-cap"}
    assert all((run / "results.json").is_file() for run in runs.values())
    assert {path.name for path in (tmp_path / "demo").glob("*.png")} == PICTURES
    told = capfd.readouterr().out
    assert all(name in told for name in PICTURES)


@pytest.mark.slow
def test_one_model_for_all_beside_them(tmp_path: Path):
    command = [sys.executable, "-m", "lavender.demo", "--all", "--n_train=32", f"--output={tmp_path / 'demo'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "four models" in done.stdout
    assert all(f"toy-{task} " in done.stdout.split("four models")[-1] for task in ("retrieval", "qa", "mc", "cap"))
