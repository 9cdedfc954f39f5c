"""Start-up cost of a large pretraining set: seconds, and memory of each process beyond shared memory.

    python benchmarks/scale.py --rows 1000000
    python benchmarks/scale.py --rows 3000000

Captions and a frame TSV are made up; their rows are a few bytes long, for frames are not read. Two processes open them
as a run of two does, once without the captions' cache and once with it. Then each draws its share of an epoch and looks
up 1,000 captions. Memory is that of the pages which a process has changed for itself (`Private_Dirty` of
/proc/self/smaps_rollup), and at most all that it had, mapped files among it; both without what its imports took.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME, LOOKED_UP, PROCESSES = "made_up", 1000, 2


def make(folder: Path, rows: int, ending: str) -> None:
    """Writes the captions of `rows` rows and of 1,000 more for validation, and the TSV of the rows."""
    rng = random.Random(1)
    words = [f"word{number}" for number in range(2000)]
    with open(folder / f"txt_{NAME}.json", "w") as text, open(folder / f"{NAME}_train_0.tsv", "w") as tsv:
        for split, count in (("train", rows), ("val", 1000)):
            text.write(("{" if split == "train" else ", ") + json.dumps(split) + ": {")
            for row in range(count):
                caption = " ".join(rng.choices(words, k=10))
                text.write(f"{', ' if row else ''}{json.dumps(_id(split, row, ending))}: {json.dumps([caption])}")
                if split == "train":
                    tsv.write(f"{_id(split, row, '')}\t/9j/AAAA\n")
            text.write("}")
        text.write("}")


def _id(split: str, row: int, ending: str) -> str:
    return f"{split[0]}{row * 7919 % 10**9:09d}_{row}{ending}"


def start(folder: Path) -> None:
    """Runs the start-up of one process; prints its measurements as JSON."""
    sys.path.insert(0, str(ROOT))
    from lavender.data.caption_cache import open_captions
    from lavender.data.loaders import EpochSampler
    from lavender.data.sources.tsv import TSVSource

    held, peak, began, used = _own_memory(), _peak(), time.perf_counter(), time.process_time()
    table = open_captions(folder / f"txt_{NAME}.json").tables["train"]
    opened = time.process_time() - used
    source = TSVSource(folder / f"{NAME}_train_0.tsv")
    table.check_file_names(source)
    rows = range(len(source))
    order = iter(EpochSampler(rows, seed=88))  # type: ignore[arg-type]  # it is asked for its length alone
    for _ in range(LOOKED_UP):
        table.caption(source.video_id(int(rows[next(order).index])))
    figures = {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - used,
        "captions": opened,
        "own": _own_memory() - held,
        "peak": _peak() - peak,
    }
    print(json.dumps(figures))


def _own_memory() -> float:
    """MiB of memory private to this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def _peak() -> float:
    """Peak memory of this process in MiB, including shared pages."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Creates the files, starts the processes twice, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--ending", default="", help="of the ids of the captions, as .mp4; the frames' have none")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        start(given.start)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder, given.rows, given.ending)
        for title in ("first start", "second start"):
            command = [sys.executable, __file__, "--start", place]
            environment = {**os.environ, "WORLD_SIZE": str(PROCESSES), "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
            running = [
                subprocess.Popen(
                    command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE
                )
                for rank in range(PROCESSES)
            ]
            for rank, process in enumerate(running):
                out, _ = process.communicate()
                if process.returncode:
                    sys.exit(f"{title}, process {rank}: exit code {process.returncode}")
                found = json.loads(out)
                print(
                    f"{given.rows:,} rows, {title}, process {rank}: {found['seconds']:.1f} s, processor "
                    f"{found['processor']:.1f} s (captions {found['captions']:.1f}); own memory {found['own']:.0f} "
                    f"MiB, at most {found['peak']:.0f} MiB"
                )
        for path in sorted(folder.iterdir()):
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
