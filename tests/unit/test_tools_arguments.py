"""What users write on the tools' command lines, right and wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lavender.data.tsv import TSVReader
from tests.unit.test_tools import ROOT, TOY, run, toy, write_clip

__all__ = ["toy"]  # a fixture


WHOLE = ("x", "1e3", "3.0", "", "-1", "9" * 5000)


@pytest.mark.parametrize(
    ("tool", "needed", "option", "wrong"),
    [
        ("extract_video-frame", ("--path=toy",), "--sample", (*WHOLE, "0", "10001")),
        ("extract_video-frame", ("--path=toy", "--sample=1"), "--workers", (*WHOLE, "0", "513")),
        ("extract_tsv", ("--path=toy",), "--quality", (*WHOLE, "0", "96")),
        ("visualize_frame_tsv", ("--input_file=x.tsv",), "--rows", WHOLE),
        ("visualize_frame_tsv", ("--input_file=x.tsv",), "--columns", (*WHOLE, "0", "1001")),
        ("visualize_frame_tsv", ("--input_file=x.tsv",), "--max_pixels", (*WHOLE, "0")),
        ("extract_video-frame", ("--sample=1",), "--path", ("", ".", "/")),
        ("extract_tsv", (), "--path", ("", ".", "/")),
        ("make_id2lineidx_pkl", (), "--input_file", ("", ".", "/")),
        ("visualize_frame_tsv", (), "--input_file", ("", ".", "/")),
    ],
)
def test_arguments_are_refused_by_their_name(tool: str, needed: tuple, option: str, wrong: tuple, monkeypatch, capsys):
    """In this process: the tools are many, and each start takes seconds."""
    import importlib.util

    monkeypatch.syspath_prepend(str(ROOT / "_tools"))
    spec = importlib.util.spec_from_file_location(f"tool_{tool.replace('-', '_')}", ROOT / "_tools" / f"{tool}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for value in wrong:
        monkeypatch.setattr(sys, "argv", [tool, *needed, f"{option}={value}"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        words = capsys.readouterr().err.splitlines()[-1]
        assert ended.value.code == 2
        assert option in words
        assert len(words) < 200


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("make_id2lineidx_pkl", ("--input_file", "img_toy.tsv", "--output_file", "img_toy.tsv")),
        ("make_id2lineidx_pkl", ("--input_file", "img_toy.tsv", "--output_file", "link.pkl")),
        ("visualize_frame_tsv", ("--input_file", "img_toy.tsv", "--output", "./img_toy.tsv")),
    ],
)
def test_no_tool_overwrites_what_it_reads(toy: Path, tool: str, arguments: tuple[str, ...]):
    (toy.parent / "link.pkl").symlink_to(toy.name)
    done = run(tool, *arguments, folder=toy.parent)
    assert done.returncode == 2
    assert "would overwrite" in done.stderr
    assert toy.read_bytes() == TOY.read_bytes()


def test_an_output_that_is_a_folder_or_lies_nowhere_is_named(toy: Path):
    (toy.parent / "taken").mkdir()
    for output in ("taken", "nowhere/x.pkl", "img_toy.tsv/x.pkl"):
        done = run("make_id2lineidx_pkl", "--input_file", toy, "--output_file", output, folder=toy.parent)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith(f"{output}: ")
        assert ".tmp" not in done.stderr
    assert not list((toy.parent / "taken").iterdir())


def test_an_empty_tsv_has_no_picture(tmp_path: Path):
    (tmp_path / "x.tsv").touch()
    done = run("visualize_frame_tsv", "--input_file", "x.tsv", folder=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[-1].startswith("x.tsv")) == (2, True)
    assert not (tmp_path / "x.png").exists()


def test_strange_names_in_a_folder_of_videos(tmp_path: Path):
    folder = tmp_path / "_toy"
    names = ("plain.mp4", "UPPER.MP4", "-dash.mp4", "a b 'q\" é.mp4", "[x]*.mp4", "twice.mp4.mp4")
    write_clip(folder / names[0], 4)
    for name in names[1:]:
        os.link(folder / names[0], folder / name)
    (folder / "folder.mp4").mkdir()
    (folder / "._plain.mp4").write_bytes(b"\0\5\x16\7")  # as macOS leaves it
    (folder / "other.MKV").touch()
    done = run("extract_video-frame", "--path=toy", "--sample=1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 other files" in done.stderr
    assert "other.MKV" in done.stderr
    assert run("extract_tsv", "--path=toy", folder=tmp_path).returncode == 0
    reader = TSVReader(tmp_path / "toy.tsv")
    found = {reader.video_id(number) for number in range(len(reader))}
    assert found == {name.removesuffix(".mp4").removesuffix(".MP4") for name in names}


def test_what_is_no_video_is_skipped_and_the_others_are_written(tmp_path: Path):
    folder = tmp_path / "_toy"
    write_clip(folder / "good.mp4", 4)
    (folder / "page.mp4").write_text("<html>")
    (folder / "gone.mp4").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.mp4")
    done = run("extract_video-frame", "--path=toy", "--sample=1", "--workers=1", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 videos, 3 skipped" in done.stderr
    assert all(f"{name}.mp4" in done.stderr for name in ("page", "gone", "pipe"))


@pytest.mark.parametrize("pattern", ["", "/etc/*", "nothing*"])
def test_a_pattern_that_finds_nothing_is_named(tmp_path: Path, pattern: str):
    (tmp_path / "_toy").mkdir()
    done = run("extract_video-frame", "--path=toy", "--sample=1", f"--pattern={pattern}", folder=tmp_path)
    assert done.returncode == 2
    assert "pattern" in done.stderr or pattern in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_is_no_id_is_told_before_anything_is_decoded(tmp_path: Path):
    write_clip(tmp_path / "_toy" / "a\tb.mp4", 4)
    done: subprocess.CompletedProcess[str] = run("extract_video-frame", "--path=toy", "--sample=1", folder=tmp_path)
    assert done.returncode == 2
    assert "tab" in done.stderr
    assert not (tmp_path / "toy.pkl").exists()
