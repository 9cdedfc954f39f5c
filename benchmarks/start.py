"""Time from start to first batch, for two checkouts side by side.

    python benchmarks/start.py --other ../before --rounds 5

A toy run of question answering (or of another script) is started in both, in turn; it ends where its model is called
for the first time. Printed are the medians of the wall clock and of the processor's time, which a busy machine changes
less, and their ratios, this checkout over the other.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "tests" / "conformance" / "kit"
OPTIONS = (
    *("--config", "_args/args_msvd-qa.json", "--dataset", "toy", "--task", "toy-qa", "--data_dir", str(KIT / "data")),
    *("--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--size_img", "64", "--n_workers", "0"),
    *("--txt_backbone", str(KIT / "bert_micro"), "--fusion_encoder", str(KIT / "bert_micro"), "--size_batch", "2"),
    *(
        "--deepspeed",
        "false",
        "--use_checkpoint",
        "false",
        "--device",
        "cpu",
        "--size_epoch",
        "1",
        "--on_bad_sample",
        "zero",
    ),
)
UNTIL_FIRST_BATCH = """
import os, runpy, sys
script = sys.argv.pop(1)
sys.path.insert(0, os.getcwd())
from torch.nn import Module
call = Module.__call__
Module.__call__ = lambda self, *given, **named: (
    os._exit(77) if type(self).__name__ == "Lavender" else call(self, *given, **named)
)
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""
REACHED = 77


def start(checkout: Path, script: str) -> tuple[float, float]:
    """Seconds to the first batch: wall clock and CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", UNTIL_FIRST_BATCH, script, *OPTIONS, "--path_output", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != REACHED:
        sys.exit(f"{checkout}: the run did not reach its first batch:\n{done.stdout}{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def main() -> None:
    """Times both checkouts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, default=ROOT, help="the checkout to compare with")
    parser.add_argument("--script", default="main_qaoe_mlm.py")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    times: dict[Path, list[tuple[float, float]]] = {given.other.resolve(): [], ROOT: []}
    for _ in range(given.rounds):
        for checkout, seconds in times.items():
            seconds.append(start(checkout, given.script))
    medians = [[statistics.median(column) for column in zip(*seconds, strict=True)] for seconds in times.values()]
    for name, (wall, processor) in zip(times, medians, strict=True):
        print(f"{name}: {wall:.2f} s, processor {processor:.2f} s")
    (wall, processor), (own_wall, own_processor) = medians[0], medians[-1]
    print(f"ratio: {own_wall / wall:.2f}, processor {own_processor / processor:.2f}")


if __name__ == "__main__":
    main()
