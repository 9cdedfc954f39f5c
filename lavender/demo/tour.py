"""The quick start: made-up clips → frames → pretraining → fine-tuning → what the model knows of clips it never saw.

    python -m lavender.demo

Everything is done by the commands that a user would type, and each is printed before it runs.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lavender.demo import report
from lavender.demo.toy import write_toy
from lavender.runtime.errors import ConfigError, TrainingError

ROOT = Path(__file__).resolve().parents[2]


def tour(folder: Path, n_train: int, n_test: int = 200) -> tuple[Path, dict[str, Path]]:
    """Makes the clips, runs the tools and the training scripts, and shows what was learned.

    Args:
        n_train, n_test: clips to train on; to validate on, and to test on.

    Returns:
        the pretrained checkpoint; task → the run of its MLM model (of retrieval the evaluation).
    """
    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()) and not (folder / "facts.json").is_file():
        raise ConfigError(f"{folder} is not empty and no earlier demo's: choose another --output")
    shutil.rmtree(folder, ignore_errors=True)
    say(f"1. {n_train} clips of one coloured shape each, as mp4 files with captions and questions, in {folder}/")
    write_toy(folder, n_train=n_train, n_val=n_test, n_test=n_test)

    say("2. Four frames of each clip, in the TSV files that training reads")
    prepare_frames(folder)

    say("3. Pretraining: first masked words alone, then masked words and video-text matching")
    words = pretrain(folder, "toy", "--pretrain_tasks", "mtm", "--p_mask", "0.35", "--size_epoch", "9")
    seeing = pretrain(folder, "toy", "--path_ckpt", str(newest(words)), "--size_epoch", "6")
    both = newest(seeing)

    say("4. What it can name, on combinations of colour, shape and motion that it never saw; blank clips as a control")
    blank = pretrain(folder, "toyblank", "--path_ckpt", str(both), "--size_epoch", "0")
    seen, control = (report.read_predictions(run, "val") for run in (seeing, blank))
    report.print_pretraining(report.scores(control), report.scores(seen), seeing)
    report.pretraining_sheet(folder / "toy_val.tsv", seen, folder / "pretraining.png")

    say("5. Fine-tuning, the MLM way and with the task-specific head (a fresh MLP): questions, and multiple choice")
    questions = ("--type", "qaoe", "--task", "toy-qa", "--size_epoch", "2")
    choice = ("--type", "qamc", "--task", "toy-mc", "--size_epoch", "1")
    size_vocab = str(len(json.loads((folder / "txt_toy-qa.json").read_text())["ans2label"]))
    runs = {
        "questions": (
            tune(folder, "main_qaoe_mlm.py", both, *questions),
            tune(folder, "main_qaoe_task_specific.py", both, *questions, "--size_vocab", size_vocab),
        ),
        "multiple choice": (
            tune(folder, "main_retmc_mlm_head.py", both, *choice),
            tune(folder, "main_retmc_task_specific.py", both, *choice),
        ),
    }
    report.print_fine_tuning(runs, {"questions": "acc_1", "multiple choice": "acc"})
    answers = report.read_predictions(runs["questions"][0], "test")
    report.answer_sheet(folder / "img_toy.tsv", answers, folder / "answers.png")

    say("6. Retrieval: which of the test clips does a caption mean? One clip of each combination, none ever seen")
    searches = {
        "MLM": retrieval(folder, "main_retrieval_tsv.py", "eval_retrieval_tsv.py", both),
        "MLP": retrieval(folder, "main_retrieval_task_specific.py", "eval_retrieval_task_specific.py", both),
    }
    report.print_retrieval(searches)
    found = report.read_predictions(searches["MLM"][1], "test")
    report.retrieval_sheet(folder / "img_toy.tsv", found, folder / "retrieval.png")

    say("7. Captions of the test clips, word by word; blank clips as a control")
    captions = caption(folder, both, "--size_epoch", "3", "--test_yaml", "CAP/test.yaml")
    blank = caption(
        folder,
        captions / "ckpt_violet_toy-cap_3.pt",
        *("--size_epoch", "0", "--test_yaml", "CAP/blank.yaml"),
    )
    references = report.read_references(folder, "test") | report.read_references(folder, "blank")
    report.print_captions(captions, blank, references)
    described = report.read_predictions(captions, "test")
    report.caption_sheet(folder / "img_toy.tsv", described, references, folder / "captions.png")
    pictures = ", ".join(f"{folder}/{name}.png" for name in ("pretraining", "answers", "retrieval", "captions"))
    say(f"Pictures: {pictures}   logs, curves, checkpoints: {folder}/_snapshot/")
    print(f"{time.monotonic() - started:.0f} s in all")
    questions_run, choice_run = runs["questions"][0], runs["multiple choice"][0]
    return both, {
        "toy-retrieval": searches["MLM"][1],
        "toy-qa": questions_run,
        "toy-mc": choice_run,
        "toy-cap": captions,
    }


def prepare_frames(folder: Path) -> None:
    """Videos to frame files: one part and a validation file for pretraining, one file of all clips for the tasks."""
    for split in ("toy_train", "toy_val", "toy_test", "toyblank_val"):
        call("_tools/extract_video-frame.py", f"--path={folder / split}", "--sample=4")
        call("_tools/extract_tsv.py", f"--path={folder / split}")
    for suffix in (".tsv", ".lineidx"):
        (folder / f"toy_train{suffix}").rename(folder / f"toy_train_0{suffix}")
    together = folder / "img_toy.tsv"
    with open(together, "wb") as out:
        for part in ("toy_train_0", "toy_val", "toy_test"):
            with open(folder / f"{part}.tsv", "rb") as rows:
                shutil.copyfileobj(rows, out)
    index = together.with_suffix(".id2lineidx.pkl")
    call("_tools/make_id2lineidx_pkl.py", "--input_file", str(together), "--output_file", str(index))


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
    """One run of the pretraining script on the toy clips; returns its output folder."""
    return train(folder, "main_pretrain_mlm.py", "--dataset", dataset, "--size_part", "1", *options)


def newest(run: Path) -> Path:
    """The last checkpoint that a run saved."""
    return max(run.glob("*.pt"), key=lambda path: path.stat().st_mtime)


def tune(folder: Path, script: str, checkpoint: Path, *options: str) -> Path:
    """One run of a task's script from a pretrained checkpoint; returns its output folder."""
    return train(folder, script, "--dataset", "toy", "--path_ckpt", str(checkpoint), *options)


def retrieval(folder: Path, script: str, evaluation: str, checkpoint: Path) -> tuple[Path, Path]:
    """Fine-tunes retrieval for an epoch; returns the evaluations before and after."""
    options = ("--type", "retrieval", "--task", "toy-retrieval", "--temp", "0.05")
    before = tune(folder, evaluation, checkpoint, *options, "--allow_random", "true")  # a fresh MLP ranks by chance
    run = tune(folder, script, checkpoint, *options, "--size_epoch", "1", "--size_batch", "16")
    return before, tune(folder, evaluation, run / "ckpt_violet_toy-retrieval_1.pt", *options)


def caption(folder: Path, checkpoint: Path, *options: str) -> Path:
    """Trains or evaluates captioning; returns the output folder."""
    common = ("--type", "captioning", "--task", "toy-cap", "--train_yaml", "CAP/train.yaml", "--p_mask", "0.35")
    return train(folder, "main_caption.py", "--path_ckpt", str(checkpoint), *common, *options)


def train(folder: Path, script: str, *options: str) -> Path:
    """One run of a script on the small model; returns its output folder."""
    output = folder / "_snapshot"
    before = set(output.glob("*"))
    bert = str(folder / "bert")
    call(
        *(script, "--data_dir", str(folder), "--path_output", str(output)),
        *("--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--vis_backbone_drop_path", "0"),
        *("--txt_backbone", bert, "--fusion_encoder", bert),
        *("--size_img", "64", "--size_frame", "2", "--size_txt", "12", "--size_batch", "32", "--n_workers", "1"),
        *("--lr", "1e-3", "--vis_backbone_lr_mul", "0.5", "--max_grad_norm", "1"),
        *options,
    )
    (run,) = set(output.glob("*")) - before
    return run
