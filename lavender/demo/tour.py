"""The quick start: made-up clips → frames → pretraining → what the model can name of clips it has never seen.

    python -m lavender.demo

Everything is done by the commands that a user would type, and each is printed before it runs.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from lavender.data.frames import decode_image
from lavender.data.tsv import TSVReader, split_columns
from lavender.demo.toy import COLOURS, MOTIONS, SHAPES, write_toy
from lavender.runtime.errors import LavenderError, TrainingError

ROOT = Path(__file__).resolve().parents[2]
VISUAL_WORDS = {*COLOURS, *SHAPES, *MOTIONS}
PICTURE_CLIPS = 24
Predictions = list[dict]


def tour(folder: Path, n_train: int) -> None:
    """Makes the clips, runs the tools and the pretraining scripts, and shows what was learned."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    say(f"1. {n_train} clips of one coloured shape each, as mp4 files with captions, in {folder}/")
    write_toy(folder, n_train=n_train, n_val=200, n_test=40)

    say("2. Four frames of each clip, in the TSV files that training reads")
    for split in ("toy_train", "toy_val", "toyblank_val"):
        call("_tools/extract_video-frame.py", f"--path={folder / split}", "--sample=4")
        call("_tools/extract_tsv.py", f"--path={folder / split}")
    for suffix in (".tsv", ".lineidx"):
        (folder / f"toy_train{suffix}").rename(folder / f"toy_train_0{suffix}")

    say("3. Pretraining: first masked words alone, then masked words and video-text matching")
    words = pretrain(folder, "toy", "--pretrain_tasks", "mtm", "--p_mask", "0.35", "--size_epoch", "9")
    both = pretrain(folder, "toy", "--path_ckpt", str(words), "--size_epoch", "7")

    say("4. What it can name, on combinations of colour, shape and motion that it never saw; blank clips as a control")
    blank = pretrain(folder, "toyblank", "--path_ckpt", str(both), "--size_epoch", "0")
    seen, control = (read_predictions(checkpoint.parent) for checkpoint in (both, blank))
    print_table(scores(control), scores(seen), both.parent)
    picture = folder / "pretraining.png"
    draw(folder / "toy_val.tsv", seen, picture)
    say(f"Picture: {picture}   logs, curves, checkpoint: {both.parent}/   {time.monotonic() - started:.0f} s in all")


def say(text: str) -> None:
    """A line of the tour's own."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def call(script: str, *arguments: str) -> None:
    """Runs one of the project's scripts as a user would.

    Raises:
        TrainingError: it ended with a fault, which it has told itself.
    """
    print("$ python", shlex.join([script, *arguments]), flush=True)
    done = subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise TrainingError(f"the demo stops here: {script} ended with exit code {done.returncode}")


def pretrain(folder: Path, dataset: str, *options: str) -> Path:
    """One run of the pretraining script on the toy clips; returns its last checkpoint."""
    output = folder / "_snapshot"
    before = set(output.glob("*"))
    bert = str(folder / "bert")
    call(
        "main_pretrain_mlm.py",
        *("--data_dir", str(folder), "--dataset", dataset, "--size_part", "1", "--path_output", str(output)),
        *("--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--vis_backbone_drop_path", "0"),
        *("--txt_backbone", bert, "--fusion_encoder", bert),
        *("--size_img", "64", "--size_frame", "2", "--size_txt", "12", "--size_batch", "32", "--n_workers", "1"),
        *("--lr", "1e-3", "--vis_backbone_lr_mul", "0.5", "--max_grad_norm", "1"),
        *options,
    )
    (run,) = set(output.glob("*")) - before
    return max(run.glob("*.pt"), key=lambda path: path.stat().st_mtime)


def read_predictions(run: Path) -> Predictions:
    """The records of a run's validation."""
    return [json.loads(line) for line in (run / "predictions" / "val.jsonl").read_text().splitlines()]


def scores(records: Predictions) -> dict[str, float]:
    """Accuracy over masked words by kind, and of matching."""
    words = [word for record in records for word in record["words"]]
    kinds = {"colours": set(COLOURS), "shapes": set(SHAPES), "motions": set(MOTIONS), "visual words": VISUAL_WORDS}
    result = {}
    for kind, members in kinds.items():
        right = [word["prediction"] == word["word"] for word in words if word["word"] in members]
        result[kind] = sum(right) / max(len(right), 1)
    result["1-of-4 matching"] = sum(record["matching"]["right"] for record in records) / len(records)
    return result


def print_table(control: dict[str, float], seen: dict[str, float], run: Path) -> None:
    """Chance, blank clips and real clips side by side, and the losses before and after."""
    chance = {
        "colours": 1 / len(COLOURS),
        "shapes": 1 / len(SHAPES),
        "motions": 1 / len(MOTIONS),
        "visual words": 3 / (len(COLOURS) + len(SHAPES) + len(MOTIONS)),
        "1-of-4 matching": 1 / 4,
    }
    print(f"\n{'right answers':18}{'chance':>10}{'blank clips':>14}{'real clips':>14}")
    for name, value in seen.items():
        print(f"{name:18}{chance[name]:10.0%}{control[name]:14.0%}{value:14.0%}")
    epochs = json.loads((run / "results.json").read_text())["epochs"]
    for name, label in (("mtm", "masked words"), ("vtm", "matching")):
        curve = " → ".join(f"{epoch['train'][name]:.2f}" for epoch in epochs)
        print(f"training loss, {label}: {curve}")


def draw(tsv: Path, records: Predictions, output: Path) -> None:
    """A contact sheet: frames of held-out clips, each with its caption and what was read behind the masks."""
    reader, tiles = TSVReader(tsv), []
    shown = [record for record in records if any(word["word"] in VISUAL_WORDS for word in record["words"])]
    for record in shown[:PICTURE_CLIPS]:
        _, _, images = split_columns(reader.row(record["index"]), reader.where(record["index"]))
        frames = np.hstack([decode_image(image, reader.where(record["index"])) for image in images])
        tile = np.full((frames.shape[0] + 52, frames.shape[1], 3), 255, dtype=np.uint8)
        tile[: frames.shape[0]] = frames
        write(tile, record["caption"], frames.shape[0] + 20, (0, 0, 0))
        right = all(word["word"] == word["prediction"] for word in record["words"])
        read = ", ".join(f"[{word['word']}] read as {word['prediction']}" for word in record["words"])
        write(tile, read, frames.shape[0] + 42, (20, 130, 40) if right else (200, 40, 30))
        tiles.append(tile)
    from skimage.util import montage

    sheet = montage(
        np.stack(tiles), grid_shape=(-(-len(tiles) // 3), 3), channel_axis=-1, padding_width=8, fill=(255,) * 3
    )
    cv2.imwrite(str(output), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def write(tile: np.ndarray, text: str, bottom: int, colour: tuple[int, int, int]) -> None:
    """A line of text on a tile, in RGB."""
    cv2.putText(tile, text, (6, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def main() -> None:
    """The command line of the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("_demo"), help="folder of the demo (made afresh)")
    parser.add_argument("--n_train", type=int, default=2000, help="training clips")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
    try:
        tour(arguments.output.resolve(), arguments.n_train)
    except LavenderError as error:
        sys.exit(f"error: {error}")
