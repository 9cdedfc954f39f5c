"""The longer quick start: one model for four tasks beside the four models of the tour, in one table."""

import json
from pathlib import Path

from lavender.demo import report
from lavender.demo.tour import say, train, tune
from lavender.demo.toy import COLOURS, MOTIONS, OPTIONS

EPOCHS = 1
TASKS = [
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy", "size_batch": 16},
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy"},
    {"type": "qamc", "task": "toy-mc", "dataset": "toy", "dataset_type": "retmc"},
    {
        "type": "captioning",
        "task": "toy-cap",
        "p_mask": 0.35,
        "train_yaml": "CAP/train.yaml",
        "test_yaml": "CAP/test.yaml",
    },
]


def together(folder: Path, pretrained: Path, single: dict[str, Path]) -> None:
    """Trains one model on all four tasks, from the weights that the others began with.

    Args:
        single: task → the run of its own model; of retrieval the evaluation.
    """
    say("8. One model for all of it: each step is of one task. Beside it the four models that had a task each")
    settings = folder / "multi-task.json"
    settings.write_text(json.dumps({"type": "multi-task", "task": "toy-all", "datasets": TASKS}, indent=1) + "\n")
    common = ("--path_ckpt", str(pretrained), "--size_epoch", str(EPOCHS))
    run = train(folder, "main_multi_task_mlm.py", "--config", str(settings), *common)
    checkpoint = run / f"ckpt_violet_toy-all_{EPOCHS}.pt"
    search = tune(folder, "eval_retrieval_tsv.py", checkpoint, "--type", "retrieval", "--task", "toy-retrieval")
    ours = report.read_results(run)["epochs"][-1]["tasks"]
    ours["toy-retrieval"] = report.read_results(search)["zero_shot"]
    theirs = {task: report.read_results(run) for task, run in single.items()}
    videos = ours["toy-retrieval"]["test"]["videos"]
    rows = (  # task, figure, chance
        ("toy-retrieval", "r@1", 1 / videos),
        ("toy-qa", "acc_1", (1 / len(COLOURS) + 1 / len(MOTIONS)) / 2),
        ("toy-mc", "acc", 1 / OPTIONS),
        ("toy-cap", "CIDEr", None),
    )
    print(f"\n{'test':24}{'chance':>10}{'four models':>14}{'one model':>14}")
    for task, name, chance in rows:
        own = (theirs[task].get("best") or theirs[task]["zero_shot"])["test"].get(name)
        print(
            f"{task + ' ' + name:24}" + "".join(map(_shown, (chance, own, ours[task]["test"].get(name)), (10, 14, 14)))
        )


def _shown(figure: float | None, width: int) -> str:
    """CIDEr goes up to 10; all else is a share."""
    if figure is None:
        return " " * width
    return f"{figure:{width}.2f}" if figure > 1 else f"{figure:{width}.0%}"
