"""The quick start to its end, as `make demo` runs it, with a few clips."""

import html
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavender.demo.tour import tour
from tests.warm import warm

ROOT = Path(__file__).parents[2]


def test_the_tour_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(sys, "executable", warm().command[0])
    monkeypatch.setenv("PATH", "/nowhere")  # without Java, whose scores take half a minute
    done = tour(tmp_path / "demo", n_train=16, n_test=12)
    assert done.pretrained.name == "ckpt_violet_pretrain_toy_0_6.pt"
    assert all((run / "results.json").is_file() for run in (done.run, done.search))
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/jpeg") > 12
    summary = (tmp_path / "demo" / "summary.txt").read_text().strip()
    assert summary in html.unescape(page)
    told = capfd.readouterr().out
    assert "report.html" in told
    assert summary in told
    assert len(told.splitlines()) < 60
    commands = [line.split("python ", 1)[1] for line in told.splitlines() if "python -m " in line]
    assert [command.split()[1] for command in commands] == ["lavender.predict", "lavender.app"]
    assert all(Path(command.split("--path_ckpt ")[1]).is_file() for command in commands)


@pytest.mark.slow
def test_the_controls_and_baselines(tmp_path: Path):
    command = [sys.executable, "-m", "lavender.demo", "--all", "--n_train=32", f"--output={tmp_path / 'demo'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    table = done.stdout.split("one model for all")[-1]
    assert all(f"toy-{task} " in table for task in ("retrieval", "qa", "mc", "cap"))
