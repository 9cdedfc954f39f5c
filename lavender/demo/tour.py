"""The quick start: made-up clips → frames → pretraining → finetuning → results on unseen combinations.

    python -m lavender.demo

Everything is done by the commands that a user would type; they and their output are logged in `_demo/logs`.
"""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lavender.demo import scores
from lavender.demo.screen import PYTHON, ROOT, Screen, Step
from lavender.demo.toy import write_toy
from lavender.runtime.errors import ConfigError

MODEL = (  # all runs: on small clips an image model, applied per frame, learns faster than Video Swin
    *("--vis_backbone", "timm:test_resnet", "--vis_backbone_init", "random", "--keep_checkpoints", "last"),
    *("--size_img", "64", "--size_frame", "2", "--size_txt", "12", "--n_workers", "1"),
    *("--max_grad_norm", "1", "--p_mask", "0.5"),
)
PRETRAINING = ("--pretrain_tasks", "mtm,vtm", "--size_epoch", "6", "--size_batch", "32", "--lr", "1e-3")
TUNING = ("--size_batch", "16", "--lr", "1e-3")
TASKS = [  # captions get most steps, as they need all facts of a clip
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy", "data_ratio": 0.25},
    {"type": "qamc", "task": "toy-mc", "dataset": "toy", "dataset_type": "retmc", "data_ratio": 0.1},
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy", "data_ratio": 0.5, "temp": 0.05},
    {"type": "captioning", "task": "toy-cap", "train_yaml": "CAP/train.yaml", "test_yaml": "CAP/test.yaml"},
]
RETRIEVAL = ("--type", "retrieval", "--task", "toy-retrieval", "--temp", "0.05")


@dataclass(frozen=True)
class Tour:
    """Results of the demo: its folder, the pretrained checkpoint, and the run of one model for all tasks."""

    folder: Path
    pretrained: Path
    run: Path
    search: Path  # retrieval evaluation of that model


def tour(folder: Path, n_train: int, n_test: int = 200) -> Tour:
    """Makes the clips, runs the tools and training scripts, and shows the results.

    Args:
        n_train, n_test: number of training clips; number of validation clips, and of test clips.
    """
    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()) and not (folder / "facts.json").is_file():
        raise ConfigError(f"{folder} is not empty and no earlier demo's: choose another --output")
    shutil.rmtree(folder, ignore_errors=True)
    screen = Screen(folder / "logs")
    print(f"A small model learns to answer, choose, find and caption. All is in {_shown(folder)}\n", flush=True)
    with screen.step("clips of one coloured shape each") as step:
        write_toy(folder, n_train=n_train, n_val=n_test, n_test=n_test)
        step.result = f"{n_train} to train on, {2 * n_test} of other combinations"
    with screen.step("four frames of each clip") as step:
        prepare_frames(step, folder)
        step.result = "in TSV files, as training reads them"
    with screen.step("pretraining: masked words, matching") as step:
        seeing = pretrain(step, folder, *PRETRAINING)
        step.result = scores.words(seeing)
    with screen.step("one model for four tasks") as step:
        run = together(step, folder, newest(seeing))
        step.result = "1 epoch of each"
    with screen.step("retrieval of all test clips") as step:
        search = tune(step, folder, "eval_retrieval_tsv.py", newest(run), *RETRIEVAL)
        step.result = f"{int(scores.metrics_of(search)['videos'])} texts × clips"
    heading = f"On {n_test} test clips whose combinations of colour, shape and motion were never trained on:\n"
    learned = "\n".join([heading, *scores.table(run, search, folder)])
    page, summary = folder / "report.html", folder / "summary.txt"
    summary.write_text(learned + "\n")
    with screen.step("a page of curves and examples") as step:
        step.run("_tools/report.py", run, search, seeing, "--output", page, "--summary", summary)
        step.result = _shown(page)
    print(f"\n{learned}")
    checkpoint, asked = _shown(newest(run)), json.loads((folder / "txt_toy-qa.json").read_text())["test"][0]
    clip = _shown(folder / "_toy_test" / f"{asked['video']}.mp4")
    command = f'{PYTHON} -m lavender.predict answer {clip} "{asked["question"]}" --path_ckpt {checkpoint}'
    print(f"\n{time.monotonic() - started:.0f} s in all. What you can do now:\n")
    print(f"  look at it         {_shown(page)}")
    print(f"  ask it             {command}")
    print(f"  use it in a page   {PYTHON} -m lavender.app --path_ckpt {checkpoint}")
    print("  your own videos    docs/data.md, docs/training.md", flush=True)
    return Tour(folder, newest(seeing), run, search)


def together(step: Step, folder: Path, checkpoint: Path) -> Path:
    """Trains one model on all four tasks; returns its output folder."""
    settings = folder / "multi-task.json"
    settings.write_text(json.dumps({"type": "multi-task", "task": "toy-all", "datasets": TASKS}, indent=1) + "\n")
    words = ("--config", settings, "--path_ckpt", checkpoint, "--task_sampling", "proportional", "--size_epoch", 1)
    return train(step, folder, "main_multi_task_mlm.py", *words, *TUNING)


def prepare_frames(step: Step, folder: Path, splits: tuple[str, ...] = ("train", "val", "test")) -> None:
    """Extracts frames: one part and a validation file for pretraining, one file of all clips for the tasks."""
    for split in splits:
        step.run("_tools/extract_video-frame.py", f"--path={folder / f'toy_{split}'}", "--sample=4")
        step.run("_tools/extract_tsv.py", f"--path={folder / f'toy_{split}'}")
    for suffix in (".tsv", ".lineidx"):
        (folder / f"toy_train{suffix}").rename(folder / f"toy_train_0{suffix}")
    together = folder / "img_toy.tsv"
    with open(together, "wb") as out:
        for part in ("toy_train_0", "toy_val", "toy_test"):
            with open(folder / f"{part}.tsv", "rb") as rows:
                shutil.copyfileobj(rows, out)
    index = together.with_suffix(".id2lineidx.pkl")
    step.run("_tools/make_id2lineidx_pkl.py", "--input_file", together, "--output_file", index)


def pretrain(step: Step, folder: Path, *options: object, dataset: str = "toy") -> Path:
    """Runs the pretraining script on the toy clips; returns its output folder."""
    return train(step, folder, "main_pretrain_mlm.py", "--dataset", dataset, "--size_part", "1", *options)


def tune(step: Step, folder: Path, script: str, checkpoint: Path, *options: object) -> Path:
    """Runs a task's script from a checkpoint; returns its output folder."""
    return train(step, folder, script, "--dataset", "toy", "--path_ckpt", checkpoint, *TUNING, *options)


def caption(step: Step, folder: Path, checkpoint: Path, *options: object) -> Path:
    """Trains or evaluates captioning; returns the output folder."""
    common = ("--type", "captioning", "--task", "toy-cap", "--train_yaml", "CAP/train.yaml")
    return train(step, folder, "main_caption.py", "--path_ckpt", checkpoint, *TUNING, *common, *options)


def train(step: Step, folder: Path, script: str, *options: object) -> Path:
    """Runs a script with the small model; returns its output folder."""
    output = folder / "_snapshot"
    before = set(output.glob("*"))
    bert = folder / "bert"
    paths = ("--data_dir", folder, "--path_output", output, "--txt_backbone", bert, "--fusion_encoder", bert)
    step.run(script, *paths, *MODEL, *options)
    (run,) = set(output.glob("*")) - before
    return run


def newest(run: Path) -> Path:
    """Last checkpoint saved by a run."""
    return max(run.glob("*.pt"), key=lambda path: path.stat().st_mtime)


def vocabulary(folder: Path) -> int:
    """Number of answers of the questions."""
    return len(json.loads((folder / "txt_toy-qa.json").read_text())["ans2label"])


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
