"""The command line of the page, up to the model."""

import subprocess
import sys
from pathlib import Path

import pytest

from lavender.app.__main__ import main
from lavender.app.toy import find_toy
from tests.conftest import ROOT


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(list(map(str, words))) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_without_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    error = refused(capsys)
    assert "--path_ckpt" in error
    assert "make demo" in error


def test_the_toy_model(tmp_path: Path):
    runs = tmp_path / "_snapshot"

    def add(name: str) -> Path:
        (runs / name).mkdir(parents=True)
        (runs / name / "ckpt_violet_1.pt").write_bytes(b"")
        return runs / name

    later = [add("_pretrain-toy_20260101000000"), add("_pretrain-toy_20260102000000")][1]
    add("_pretrain-toyblank_20260103000000")
    assert find_toy(tmp_path) == (later, tmp_path / "_toy_test")
    (runs / "_toy-all_20260105000000").mkdir()  # without a checkpoint
    assert find_toy(tmp_path)[0] == later
    assert add("_toy-all_20260106000000") == find_toy(tmp_path)[0]


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    (tmp_path / "password").write_text("two words")
    here = ("--path_ckpt", tmp_path / "a.pt")
    assert "no videos" in refused(capsys, *here, "--examples", tmp_path / "empty")
    assert "gone" in refused(capsys, *here, "--examples", tmp_path / "gone")
    assert "one password" in refused(capsys, *here, "--password_file", tmp_path / "password")
    assert "gone" in refused(capsys, *here, "--password_file", tmp_path / "gone")
    for words in (["--max_upload", "0"], ["--max_seconds", "-3"], ["--max_wait", "nan"]):
        with pytest.raises(SystemExit):
            main(words)
    capsys.readouterr()
    monkeypatch.setattr("lavender.app.__main__.find_spec", lambda name: None)
    assert "pip install" in refused(capsys, *here)


def test_help_needs_no_model():
    code = "import sys, runpy; sys.argv = ['x', '--help']; runpy.run_module('lavender.app', run_name='__main__')"
    code = f"try:\n    {code}\nfinally:\n    assert not {{'torch', 'gradio'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--max_upload" in done.stdout
