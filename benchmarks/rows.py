"""Rows of the table, sizes of a machine's measurements, and output as table and file."""

import json
import os
import platform
import re
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import matrix_rate
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.bert_config import BertConfig
from lavender.models.lavender import Heads, Lavender
from lavender.models.shapes import shapes_only
from lavender.runtime.device import PRECISIONS, autocast
from lavender.runtime.files import atomic_file

ROOT = Path(__file__).resolve().parents[1]
BERT = ROOT / "tests" / "conformance" / "kit" / "bert_micro"  # only for its vocabulary
HEADINGS = ("row", "value", "unit", "× plain", "of matrix rate", "peak GiB", "note")


class Skipped(Exception):  # noqa: N818 (not an error)
    """The machine cannot run this row; the message gives the reason."""


@dataclass
class Row:
    """Row of the table.

    Args:
        ratio: speed-up over the plain version, measured alternately; share: fraction of the machine's matrix rate.
        memory: peak in GiB; skipped, failed: why there is no value.
    """

    name: str
    value: float | None = None
    unit: str = ""
    ratio: float | None = None
    share: float | None = None
    memory: float | None = None
    note: str = ""
    skipped: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Size:
    """Model size: Video Swin, BERT and side of the frames."""

    swin: str
    bert: BertConfig
    side: int = 224

    def build(self) -> Lavender:
        """Builds the model with random weights."""
        torch.manual_seed(0)
        return Lavender(VideoSwin(self.swin), self.bert, self.bert, Heads())

    def shapes(self) -> Lavender:
        """Builds the model without storage."""
        with shapes_only():
            return Lavender(VideoSwin(self.swin), self.bert, self.bert, Heads())


SIZES = {
    "micro": Size("micro", BertConfig(350, 64, 2, 4, 128), 64),
    "tiny": Size("tiny", BertConfig(num_hidden_layers=4)),  # Swin tiny, 4 layers of fusion
    "base": Size("base", BertConfig()),
}


@dataclass
class Machine:
    """Device, and sizes of all measurements.

    Args:
        size: model size; `compiled`: that of the rows that compile. batches: batch sizes of the training steps.
        rates: dtype → FLOP/s of matrix products; filled by the row `matrix`.
    """

    device: torch.device
    precision: str
    size: str
    batches: dict[str, int]
    compiled: str = "micro"
    rounds: int = 3
    videos: int = 60  # of the TSV
    pairs: tuple[int, int] = (8, 16)  # videos, texts
    captions: int = 16
    matrix: int = 2048  # side
    bf16: bool = False
    saved: str = "base"
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def model(self) -> Size:
        return SIZES[self.size]

    def autocast(self) -> Any:
        return autocast(self.precision, self.device)

    def share(self, flop: float, taken: float) -> float | None:
        """Fraction of the matrix rate that this many operations in this many seconds amount to.

        The rate is measured again, and the better one counts: a shared machine may have been slow at the first time.
        """
        if not (rate := self.rates.get(self.precision)):
            return None
        return flop / taken / max(rate, matrix_rate(self.dtype, self.device, self.matrix, self.rounds))

    @property
    def dtype(self) -> torch.dtype:
        return PRECISIONS[self.precision]


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def chip(device: torch.device) -> str:
    """Name of the GPU or CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with suppress(OSError):
        if match := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return match[1].strip()
    return platform.processor() or platform.machine()


def file_name(device: torch.device) -> str:
    """File name for the results of a machine, valid on any file system."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{chip(device)} {cores()} cores").strip("-") + ".json"


def commit() -> str:
    """Measured commit, with `+` if files differ from it; "" without git."""
    with suppress(OSError):
        words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
        done = subprocess.run(words, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def results(machine: Machine, rows: list[Row]) -> dict[str, Any]:
    """Content of a machine's results file."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "chip": chip(machine.device),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": machine.precision,
        "size": machine.size,
        "matrix_rate": machine.rates,
        "rows": [asdict(row) for row in rows],
    }


def write(machine: Machine, rows: list[Row], path: Path) -> None:
    """Writes the results file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write((json.dumps(results(machine, rows), indent=2, ensure_ascii=False) + "\n").encode())


def line(row: Row) -> str:
    """Row of the table as text."""
    if row.skipped or row.failed:
        return f"{row.name:34} " + (f"skipped: {row.skipped}" if row.skipped else f"FAILED: {row.failed}")
    columns = (
        f"{row.value:10.4g}" if row.value is not None else " " * 10,
        f"{row.unit:12}",
        f"{row.ratio:8.2f}" if row.ratio is not None else " " * 8,
        f"{row.share:14.0%}" if row.share is not None else " " * 14,
        f"{row.memory:8.2f}" if row.memory is not None else " " * 8,
    )
    return f"{row.name:34} {' '.join(columns)}  {row.note}".rstrip()


def heading() -> str:
    """Header of the table."""
    name, value, unit, ratio, share, memory, note = HEADINGS
    return f"{name:34} {value:>10} {unit:12} {ratio:>8} {share:>14} {memory:>8}  {note}"
