"""The tools as their users run them: from the repository's root and from `_tools`."""

import os
import pickle
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lavender.data.frames import decode_image
from lavender.data.tsv import TSVReader
from tests.warm import warm

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "conformance" / "kit" / "data" / "img_toy.tsv"


def run(tool: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return warm().run(ROOT / "_tools" / f"{tool}.py", *arguments, cwd=folder)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A copy of the kit's frames, without any index."""
    path = tmp_path / "img_toy.tsv"
    path.write_bytes(TOY.read_bytes())
    return path


def write_clip(path: Path, frames: int) -> None:
    av = pytest.importorskip("av")
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("tool", ["extract_video-frame", "extract_tsv", "make_id2lineidx_pkl", "visualize_frame_tsv"])
@pytest.mark.parametrize("start", [ROOT, ROOT / "_tools"])
def test_help_from_both_folders(tool: str, start: Path):
    script = f"_tools/{tool}.py" if start == ROOT else f"{tool}.py"
    done = subprocess.run([sys.executable, script, "--help"], cwd=start, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"python _tools/{tool}.py --" in done.stdout


@pytest.mark.parametrize("tool", ["check_dataset", "convert_annotations", "export", "make_dataset", "report"])
def test_help_does_not_wait_for_torch(tool: str):
    command = [sys.executable, "-X", "importtime", f"_tools/{tool}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert "torch" not in imported


def test_videos_to_tsv(tmp_path: Path):
    for name, frames in (("video2", 12), ("video1", 30)):
        write_clip(tmp_path / "_toy" / f"{name}.mp4", frames)
    done = run("extract_video-frame", "--path=toy", "--sample=3", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 videos, 0 skipped" in done.stderr
    videos = pickle.loads((tmp_path / "toy.pkl").read_bytes())
    assert list(videos) == ["video1", "video2"]
    assert all(len(frames) == 3 and frames[0].startswith("/9j/") for frames in videos.values())

    done = run("extract_tsv", "--path=toy", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    reader = TSVReader(tmp_path / "toy.tsv")
    assert [reader.row(i) for i in range(len(reader))] == [[name, *frames] for name, frames in videos.items()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_toy", "toy.lineidx", "toy.pkl", "toy.tsv"]


def test_a_broken_clip_is_named_and_left_out(tmp_path: Path):
    write_clip(tmp_path / "_toy" / "good.mp4", 12)
    (tmp_path / "_toy" / "bad.mp4").write_bytes(b"not a video")
    done = run("extract_video-frame", "--path=toy", "--sample=2", "--output=out.pkl", folder=tmp_path)
    assert done.returncode == 1
    assert "skipped: _toy/bad.mp4 cannot be decoded" in done.stderr
    assert "1 videos, 1 skipped" in done.stderr
    assert list(pickle.loads((tmp_path / "out.pkl").read_bytes())) == ["good"]


def test_extensions_in_upper_case_and_other_videos(tmp_path: Path):
    for name in ("plain.mp4", "phone.MP4", "camera.MOV", "old.avi"):
        write_clip(tmp_path / "_toy" / name.lower(), 12)
        (tmp_path / "_toy" / name.lower()).rename(tmp_path / "_toy" / name)
    (tmp_path / "_toy" / "notes.txt").touch()
    done = run("extract_video-frame", "--path=toy", "--sample=2", "--spread=time", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(pickle.loads((tmp_path / "toy.pkl").read_bytes())) == ["phone", "plain"]
    assert "_toy: 2 other files look like videos, such as camera.MOV" in done.stderr
    done = run("extract_video-frame", "--path=toy", "--sample=2", "--pattern=cam*.mov", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(pickle.loads((tmp_path / "toy.pkl").read_bytes())) == ["camera"]


def test_a_damaged_clip_is_reported(tmp_path: Path):
    pytest.importorskip("av")
    write_clip(tmp_path / "_toy" / "cut.mkv", 40)
    path = tmp_path / "_toy" / "cut.mkv"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    command = ("extract_video-frame", "--path=toy", "--sample=2", "--pattern=*.mkv")
    done = run(*command, "--min_decoded=0.1", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "_toy/cut.mkv: " in done.stderr
    assert "missing" in done.stderr
    done = run(*command, "--min_decoded=1", folder=tmp_path)
    assert done.returncode == 2
    assert "skipped: _toy/cut.mkv: only" in done.stderr


def test_nothing_to_extract_is_one_line_and_writes_nothing(tmp_path: Path):
    pytest.importorskip("av")
    done = run("extract_video-frame", "--path=toy", "--sample=2", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("_toy: no file *.mp4 is there")
    assert str(tmp_path) in done.stderr, "the folder that a relative path was looked for from"
    assert done.stderr.count("\n") == 1
    (tmp_path / "_toy").mkdir()
    (tmp_path / "_toy" / "bad.mp4").touch()
    done = run("extract_video-frame", "--path=toy", "--sample=2", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("none of the 1 videos could be decoded: toy.pkl is not written\n")
    assert not (tmp_path / "toy.pkl").exists()


def test_two_clips_of_one_id_are_refused(tmp_path: Path):
    (tmp_path / "_toy").mkdir()
    for name in ("a.mp4", "a.avi"):
        (tmp_path / "_toy" / name).touch()
    done = run("extract_video-frame", "--path=toy", "--sample=2", "--pattern=*", folder=tmp_path)
    assert done.returncode == 2
    assert "would both be video 'a'" in done.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"a": Path("x")}, "holds a pathlib"),
        ({"a": "frame"}, "entry 'a' is not an id with a list"),
        ({"a": []}, "entry 'a' is not an id with a list"),
        ({"a": [b"frame"]}, "entry 'a' is not an id with a list"),
        ({"a": ["fr\tame"]}, "holds a tab"),
    ],
)
def test_extract_tsv_refuses_what_is_no_frame_pickle(tmp_path: Path, content: dict, complaint: str):
    (tmp_path / "toy.pkl").write_bytes(pickle.dumps(content))
    done = run("extract_tsv", "--path=toy", folder=tmp_path)
    assert done.returncode == 2
    assert complaint in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["toy.pkl"]


def test_make_id2lineidx_pkl(toy: Path):
    done = run(
        "make_id2lineidx_pkl", "--input_file", toy.name, "--output_file", "toy.id2lineidx.pkl", folder=toy.parent
    )
    assert done.returncode == 0, done.stderr
    expected = pickle.loads(TOY.with_suffix(".id2lineidx.pkl").read_bytes())
    assert pickle.loads((toy.parent / "toy.id2lineidx.pkl").read_bytes()) == expected
    done = run("make_id2lineidx_pkl", "--input_file", "missing.tsv", folder=toy.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("missing.tsv: there is no such file")
    assert str(toy.parent) in done.stderr, "the folder that a relative path was looked for from"
    assert done.stderr.count("\n") == 1


def test_visualize_frame_tsv(toy: Path):
    pytest.importorskip("skimage")
    done = run("visualize_frame_tsv", "--input_file", toy, "--rows", 0, 5, "--columns", 3, folder=toy.parent)
    assert done.returncode == 0, done.stderr
    sheet = np.asarray(Image.open(toy.with_suffix(".png")))
    assert sheet.shape == (2 * (16 + 168), 3 * 224, 3)
    assert sheet[:16, :100].any()  # the id
    assert sheet[100].any()
    done = run("visualize_frame_tsv", "--input_file", toy, "--ids", "vid2.mp4", "--output", "b.png", folder=toy.parent)
    assert done.returncode == 0, done.stderr
    assert np.asarray(Image.open(toy.parent / "b.png")).shape == (16 + 168, 5 * 224, 3)
    done = run("visualize_frame_tsv", "--input_file", toy, "--ids", "vid9", folder=toy.parent)
    assert done.returncode == 2
    assert "has no video 'vid9'" in done.stderr.splitlines()[-1]


STOPPED_TOOL = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from _root import run
from lavender.data.tsv import TSVWriter
def main():
    with TSVWriter("toy.tsv") as writer:
        writer.write(["a", "b"])
        os.kill(os.getpid(), int(sys.argv[2]))
        time.sleep(60)
run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_tool_leaves_nothing(tmp_path: Path, number: int):
    command = [sys.executable, "-c", STOPPED_TOOL, str(ROOT / "_tools"), str(int(number))]
    heard = partial(signal.signal, number, signal.SIG_DFL)  # tests in the background, or under nohup, ignore it
    assert subprocess.run(command, cwd=tmp_path, timeout=60, preexec_fn=heard).returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


WORKERS_OF_A_KILLED_TOOL = """
import os, signal, time
from pathlib import Path
from lavender.data.video_processes import in_processes
def work(path):
    if path.name == "first":
        return
    time.sleep(600)
if __name__ == "__main__":
    for _ in in_processes(work, map(Path, ["first", "b", "c"]), 2):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_killed_tool(tmp_path: Path):
    """The pipe is at its end when the last of its processes is."""
    (tmp_path / "killed.py").write_text(WORKERS_OF_A_KILLED_TOOL)
    done = subprocess.run(
        [sys.executable, "killed.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL


def test_folders_of_images_to_tsv(tmp_path: Path):
    for name, size in {
        "clip.1/2.PNG": (8, 6),
        "clip.1/10.jpg": (6, 8),
        "one.webp": (4, 4),
        "large.bmp": (9, 9),
    }.items():
        (tmp_path / "_toy" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(tmp_path / "_toy" / name)
    done = run("extract_tsv", "--path=toy", "--images", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = dict(row.split("\t", 1) for row in (tmp_path / "toy.tsv").read_text().splitlines())
    assert [decode_image(frame, "").shape for frame in rows["clip.1"].split("\t")] == [(6, 8, 3), (8, 6, 3)]
    assert set(rows) == {"clip.1", "one", "large"}
    done = run("extract_tsv", "--path=toy", "--images", "--max_pixels=48", "--output=few.tsv", folder=tmp_path)
    assert done.returncode == 1
    assert "large.bmp" in done.stderr
    assert [row.split("\t")[0] for row in (tmp_path / "few.tsv").read_text().splitlines()] == ["one", "clip.1"]
    done = run("extract_tsv", "--path=toy", "--images", "--max_pixels=1", "--output=none.tsv", folder=tmp_path)
    assert done.returncode == 2
    assert not list(tmp_path.glob("*none*"))


def test_max_pixels_of_videos_and_contact_sheets(tmp_path: Path, toy: Path):
    (tmp_path / "_small").mkdir()
    write_clip(tmp_path / "_small" / "a.mp4", 5)
    done = run("extract_video-frame", "--path=small", "--sample=2", "--max_pixels=100", folder=tmp_path)
    assert done.returncode == 2
    assert "a.mp4" in done.stderr
    assert "--max_pixels 100" in done.stderr
    done = run("visualize_frame_tsv", "--input_file", toy, "--max_pixels=100", folder=tmp_path)
    assert done.returncode == 2
    assert "max_pixels 100" in done.stderr
