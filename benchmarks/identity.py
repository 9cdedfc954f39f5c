"""Bitwise comparison of the training of two checkouts: results, curves and all checkpoints of toy runs.

    python benchmarks/identity.py --other ../before

A refactoring must not change any of them. The runs are pretraining, the downstream tasks,
and several tasks at once; each as one process, with DistributedDataParallel and with DeepSpeed on two.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "tests" / "conformance" / "kit"
SMALL = (
    *("--data_dir", str(KIT / "data"), "--vis_backbone_size", "micro", "--vis_backbone_init", "random"),
    *("--txt_backbone", str(KIT / "bert_micro"), "--fusion_encoder", str(KIT / "bert_micro"), "--size_img", "64"),
    *("--n_workers", "0", "--device", "cpu", "--on_bad_sample", "zero", "--size_batch", "2", "--lr", "1e-3"),
)
QUESTIONS = ("--dataset", "toy", "--size_epoch", "2", "--allow_missing", "true")
YAMLS = tuple(word for split in ("train", "val", "test") for word in (f"--{split}_yaml", f"CAP/{split}.yaml"))
TOGETHER = [
    {"type": "retrieval", "task": "toy-retrieval", "dataset": "toy"},
    {"type": "qaoe", "task": "toy-qa", "dataset": "toy"},
    {"type": "qamc", "task": "toy-mc", "dataset": "toy", "dataset_type": "retmc"},
]
RUNS = {  # name → script, its released configuration, further options
    "pretraining": ("main_pretrain_mlm.py", "pretrain", "--dataset", "toy", "--size_part", "2", "--size_epoch", "1"),
    "questions": ("main_qaoe_mlm.py", "msvd-qa", "--task", "toy-qa", *QUESTIONS),
    "multiple choice": ("main_qamc_task_specific.py", "tgif-action", "--task", "toy-action", *QUESTIONS),
    "retrieval": ("main_retrieval_tsv.py", "msrvtt-retrieval", "--task", "toy-retrieval", *QUESTIONS),
    "captioning": ("main_caption.py", "msrvtt-cap", *YAMLS, "--size_epoch", "1"),
    "several tasks": ("main_multi_task_mlm.py", json.dumps(TOGETHER), "--size_epoch", "1"),
}
ENGINES = {
    "one process": ((), ("--deepspeed", "false", "--use_checkpoint", "false")),
    "DDP": (("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"), ("--deepspeed", "false")),
    "DeepSpeed": (("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"), ("--deepspeed", "true")),
}


def command_of(name: str, folder: Path) -> list[str]:
    """Arguments of a run, after the launcher; a multi-task configuration is written into the folder."""
    script, config, *options = RUNS[name]
    file = f"_args/args_{config}.json"
    if config.startswith("["):
        file = str(folder / "multi-task.json")
        together = {"type": "multi-task", "task": "toy-all", "size_frame": 5, "datasets": json.loads(config)}
        Path(file).write_text(json.dumps(together))
    return [script, "--config", file, *SMALL, *options]


def run(checkout: Path, name: str, engine: str, output: Path) -> Path:
    """Trains in a checkout; returns the run's folder."""
    launcher, options = ENGINES[engine]
    output.mkdir()
    words = command_of(name, output)
    command = [sys.executable, *launcher, *words, *options, "--path_output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PATH": "/nowhere"}  # no Java
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    (folder,) = (path for path in output.iterdir() if path.is_dir())
    return folder


def differences(ours: Path, theirs: Path) -> list[str]:
    """Differences between two runs' folders, in words."""
    found = []
    for name in ("results.json", "log.json"):
        if json.loads((ours / name).read_text()) != json.loads((theirs / name).read_text()):
            found.append(name)
    names = [{path.name for path in folder.glob("*.pt")} for folder in (ours, theirs)]
    if names[0] != names[1]:
        found.append(f"checkpoints: {sorted(names[0] ^ names[1])}")
    for name in sorted(names[0] & names[1]):
        states: list[dict[str, Any]] = [torch.load(folder / name, weights_only=True) for folder in (ours, theirs)]
        if list(states[0]) != list(states[1]):
            found.append(f"{name}: names")
        elif any(not torch.equal(states[0][key], states[1][key]) for key in states[0]):
            found.append(f"{name}: weights")
    return found


def main() -> None:
    """Runs everything and prints a line for each; exit code 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, required=True, help="the checkout to compare with")
    parser.add_argument("--only", nargs="*", default=[], help="runs and engines, by name; all without it")
    given = parser.parse_args()
    failed = False
    for name in RUNS:
        for engine in ENGINES:
            if given.only and not {name, engine} & set(given.only):
                continue
            with tempfile.TemporaryDirectory() as folder:
                ours, theirs = (
                    run(checkout, name, engine, Path(folder) / number)
                    for number, checkout in (("ours", ROOT), ("theirs", given.other.resolve()))
                )
                found = differences(ours, theirs)
                count = len(list(ours.glob("*.pt")))
            failed |= bool(found)
            print(f"{name}, {engine}: {'; '.join(found) or f'identical ({count} checkpoints)'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
