"""The documented way from videos to training: frames, TSV, index, picture, and pretraining on what they wrote."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lavender.data.tsv import TSVReader

ROOT = Path(__file__).parents[2]
CLIPS = {"video7": (30, (96, 64)), "video8": (12, (64, 96)), "video9": (45, (80, 80))}  # frames, (width, height)


def draw_clip(path: Path, frames: int, size: tuple[int, int]) -> None:
    """A bright bar that moves from left to right over a background that grows lighter."""
    cv2 = pytest.importorskip("cv2")
    width, height = size
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, size)
    assert writer.isOpened()
    for number in range(frames):
        picture = np.full((height, width, 3), 100 * number // frames, np.uint8)
        left = (width - 8) * number // frames
        picture[:, left : left + 8] = 255
        writer.write(picture)
    writer.release()


def checked(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("place", ["the root", "_tools"])
def test_from_videos_to_training(train_here, tmp_path: Path, place: str):
    """As in the README: `python _tools/X.py` from the root, or `cd _tools; python X.py`."""
    pytest.importorskip("av")
    pytest.importorskip("skimage")
    corpus = tmp_path / "corpus"
    (tmp_path / "_corpus").mkdir()
    for name, (frames, size) in CLIPS.items():
        draw_clip(tmp_path / "_corpus" / f"{name}.mp4", frames, size)
    folder, prefix = (ROOT, "_tools/") if place == "the root" else (ROOT / "_tools", "")
    before = sorted(path.name for path in folder.iterdir())

    def tool(name: str, *options: str) -> str:
        return checked([sys.executable, f"{prefix}{name}.py", *options], folder)

    tool("extract_video-frame", f"--path={corpus}", "--sample=5")
    videos = pickle.loads((tmp_path / "corpus.pkl").read_bytes())
    assert {name: len(frames) for name, frames in videos.items()} == dict.fromkeys(CLIPS, 5)

    tool("extract_tsv", f"--path={corpus}")
    tsv = tmp_path / "corpus.tsv"
    reader = TSVReader(tsv)
    assert [reader.row(number) for number in range(3)] == [[name, *videos[name]] for name in CLIPS]
    offsets = [int(line) for line in (tmp_path / "corpus.lineidx").read_text().splitlines()]
    assert offsets == list(reader.offsets)

    index = tmp_path / "corpus.id2lineidx.pkl"
    tool("make_id2lineidx_pkl", "--input_file", str(tsv), "--output_file", str(index))
    assert pickle.loads(index.read_bytes()) == dict(zip(CLIPS, offsets, strict=True))

    tool("visualize_frame_tsv", "--input_file", str(tsv))
    check_picture(tmp_path / "corpus.png")
    assert sorted(path.name for path in folder.iterdir()) == before, "a tool wrote where it was started"

    data = tmp_path / "data"
    data.mkdir()
    for name in ("corpus_train_0", "corpus_val"):
        for suffix in (".tsv", ".lineidx"):
            (data / f"{name}{suffix}").write_bytes(corpus.with_suffix(suffix).read_bytes())
    captions = {name: [f"a bar moves right {name[-1]}"] for name in CLIPS}
    (data / "txt_corpus.json").write_text(json.dumps({"train": captions, "val": captions}))
    words = ("--dataset", "corpus", "--size_part", 1, "--size_frame", 4, "--p_mask", 0.5)
    run = train_here(*words, data=data).check_passed()
    assert [record["video"] for record in run.predictions("val")] == list(CLIPS)
    assert "3 samples (3 by process)" in run.log


def check_picture(path: Path) -> None:
    """Three rows of five frames, in which the bar moves from left to right."""
    from PIL import Image

    sheet = np.asarray(Image.open(path).convert("L"), dtype=float)
    height, width = sheet.shape
    assert (height, width) == (3 * (16 + 168), 5 * 224)
    tiles = sheet.reshape(3, 184, 5, 224)[:, 16:].mean(1)  # (row, frame, column): brightness
    where = tiles[0].argmax(-1)
    assert (np.diff(where) > 10).all(), where
