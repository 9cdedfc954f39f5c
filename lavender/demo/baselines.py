"""The longer quick start: blank clips as a control, one model per task, and the task-specific heads."""

from pathlib import Path

from lavender.demo import scores
from lavender.demo.screen import Screen, Step
from lavender.demo.tour import RETRIEVAL, Tour, caption, newest, pretrain, tune, vocabulary

QUESTIONS = ("--type", "qaoe", "--task", "toy-qa", "--size_epoch", "2")
CHOICE = ("--type", "qamc", "--task", "toy-mc", "--size_epoch", "1")
ROWS = (("toy-qa", "acc_1"), ("toy-mc", "acc"), ("toy-retrieval", "r@1"), ("toy-cap", "CIDEr"))
SCRIPTS = {  # scripts of the MLM model and of the task-specific head
    "toy-qa": ("main_qaoe_mlm.py", "main_qaoe_task_specific.py"),
    "toy-mc": ("main_retmc_mlm_head.py", "main_retmc_task_specific.py"),
    "toy-retrieval": ("main_retrieval_tsv.py", "main_retrieval_task_specific.py"),
}
EVALUATIONS = ("eval_retrieval_tsv.py", "eval_retrieval_task_specific.py")


def baselines(done: Tour) -> None:
    """Runs everything that `make demo` leaves out, from the same pretrained weights, and prints one table."""
    folder, pretrained = done.folder, done.pretrained
    screen = Screen(folder / "logs" / "all")
    print("\nControls and baselines\n", flush=True)
    with screen.step("blank clips: masked words") as step:
        step.run("_tools/extract_video-frame.py", f"--path={folder / 'toyblank_val'}", "--sample=4")
        step.run("_tools/extract_tsv.py", f"--path={folder / 'toyblank_val'}")
        words = ("--path_ckpt", pretrained, "--size_epoch", "0", "--pretrain_tasks", "mtm")
        step.result = scores.words(pretrain(step, folder, *words, dataset="toyblank"))
    single: dict[str, Path] = {}
    with screen.step("a model for captions alone") as step:
        single["toy-cap"] = caption(step, folder, pretrained, "--size_epoch", "3", "--test_yaml", "CAP/test.yaml")
        step.result = scores.captions(single["toy-cap"], folder, "test")
    with screen.step("blank clips: captions") as step:
        options = ("--size_epoch", "0", "--test_yaml", "CAP/blank.yaml")
        run = caption(step, folder, newest(single["toy-cap"]), *options)
        step.result = scores.captions(run, folder, "blank")
    heads: dict[str, Path] = {}
    for number, (kind, runs) in enumerate((("MLM head", single), ("task-specific head", heads))):
        with screen.step(f"{kind}: questions") as step:
            asked = (*QUESTIONS, "--size_vocab", str(vocabulary(folder)))
            runs["toy-qa"] = tune(step, folder, SCRIPTS["toy-qa"][number], pretrained, *asked)
            step.result = scores.accuracy(runs["toy-qa"], "acc_1", scores.CHANCE["toy-qa"])
        with screen.step(f"{kind}: multiple choice") as step:
            runs["toy-mc"] = tune(step, folder, SCRIPTS["toy-mc"][number], pretrained, *CHOICE)
            step.result = scores.accuracy(runs["toy-mc"], "acc", scores.CHANCE["toy-mc"])
        with screen.step(f"{kind}: retrieval") as step:
            runs["toy-retrieval"] = _retrieve(step, done, number)
            step.result = scores.recall(runs["toy-retrieval"])
    together = {task: scores.metrics_of(done.run, task) for task, _ in ROWS}
    together["toy-retrieval"] = scores.metrics_of(done.search)
    print(f"\n{'test':24}{'one model for all':>20}{'a model for each':>20}{'task-specific head':>20}")
    for task, metric in ROWS:
        others = [scores.metrics_of(runs[task]) if task in runs else {} for runs in (single, heads)]
        cells = "".join(_cell(found.get(metric)) for found in (together[task], *others))
        print(f"{task + ' ' + metric:24}{cells}", flush=True)


def _retrieve(step: Step, done: Tour, number: int) -> Path:
    """Finetunes retrieval for one epoch; returns the evaluation of the whole gallery."""
    words = (*RETRIEVAL, "--size_epoch", "1")
    run = tune(step, done.folder, SCRIPTS["toy-retrieval"][number], done.pretrained, *words)
    return tune(step, done.folder, EVALUATIONS[number], newest(run), *RETRIEVAL)


def _cell(value: float | None) -> str:
    """Formats a metric: CIDEr goes up to 10, all others are fractions."""
    if value is None:
        return f"{'–':>20}"
    return f"{value:20.2f}" if value > 1 else f"{value:20.0%}"
