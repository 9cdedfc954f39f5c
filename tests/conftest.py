"""Runs of the scripts on toy data: as users start them, or in this process, where a start costs more than the run."""

import contextlib
import functools
import gc
import importlib.util
import io
import itertools
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from lavender.data.tsv import TSVReader
from lavender.engine.start import main
from lavender.runtime.torchvision_ops import ensure_torchvision
from lavender.tasks.base import Trainable
from lavender.tasks.pretrain import PretrainTask
from tests.processes import launch_command, run_bounded
from tests.warm import DEEPSPEED, NO_GPU, warm

gc.disable()  # until all tests are known
ensure_torchvision()  # for the tests that compare with timm or transformers: they import it beside a CPU-only torch

ROOT = Path(__file__).parents[1]
KIT = ROOT / "tests" / "conformance" / "kit"
TOY_FILES = ("toy_train_0", "toy_train_1", "toy_val", "txt_toy.json")
QUESTION_FILES = ("img_toy.", "txt_toy-action", "txt_toy-mc", "txt_toy-qa", "txt_toy-fib")

RELEASED = ("--config", "_args/args_pretrain.json", "--dataset", "toy")
MICRO = (
    *("--vis_backbone_size", "micro", "--vis_backbone_init", "random", "--size_img", "32", "--n_workers", "0"),
    *("--txt_backbone", str(KIT / "bert_micro"), "--fusion_encoder", str(KIT / "bert_micro")),
)
SMALL = (*MICRO, "--size_batch", "3", "--size_epoch", "1", "--size_part", "2")
QUESTION_TEXTS = {  # configuration → `txt_<task>.json`
    **dict.fromkeys(("tgif-action", "tgif-transition"), "toy-action"),
    **dict.fromkeys(("lsmdc-mc", "msrvtt-mc"), "toy-mc"),
    **dict.fromkeys(("msvd-qa", "msrvtt-qa", "tgif-frame"), "toy-qa"),
    "lsmdc-fib": "toy-fib",
}
LONGEST = tuple(f"tests/{name}" for name in ("integration/test_demo", "integration/test_pretrain.", "faults"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first, so that no process works on one when the others have nothing left to do."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """What is there now stays: a collection of garbage would look at half a million objects."""
    gc.freeze()
    gc.enable()


@dataclass
class Run:
    """What a run left behind; `folder` is its output folder, where it got so far."""

    code: int
    stdout: str
    stderr: str
    folder: Path
    command: list[str] = field(default_factory=list)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(), parse_constant=_refuse_constant)

    @property
    def results(self) -> dict[str, Any]:
        return self.json("results.json")

    @property
    def log(self) -> str:
        return (self.folder / "stdout.txt").read_text()

    def predictions(self, split: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "predictions" / f"{split}.jsonl").read_text().splitlines()]

    def checkpoint(self, name: str) -> dict[str, torch.Tensor]:
        return torch.load(self.folder / name, weights_only=True)

    @property
    def errors(self) -> list[str]:
        """Lines of stderr that tell an error; whatever a progress bar left before them is cut off."""
        return [line for line in re.split(r"[\r\n]+", self.stderr) if line.startswith("error: ")]

    def check_passed(self) -> "Run":
        assert self.code == 0, f"{' '.join(self.command)}\n{self.stdout[-2000:]}\n{self.stderr[-4000:]}"
        assert self.errors == []
        return self

    def check_refused(self, *words: str) -> str:
        """One error line that holds all of `words`; exit code 2, no traceback. Returns the line."""
        said = f"code {self.code}\n{self.stdout[-1500:]}\n{self.stderr[-4000:]}"
        assert self.code == 2, said
        assert "Traceback" not in self.stderr, said
        assert len(self.errors) == 1, said
        assert self.stderr.rstrip("\n").endswith(self.errors[0]), f"the error is not what is read last: {said}"
        assert [word for word in words if word not in self.errors[0]] == [], self.errors[0]
        return self.errors[0]

    def check_same_losses(self, other: "Run", tolerance: float) -> None:
        """Training and validation losses of two runs, entry by entry; `tolerance` is relative."""
        pairs = list(zip(self.results["epochs"], other.results["epochs"], strict=True))
        assert pairs
        for ours, theirs in pairs:
            for split, names in (("train", ("loss", "mtm", "vtm")), ("val", ("loss", "loss_mtm", "loss_vtm"))):
                for name in names:
                    assert ours[split][name] == pytest.approx(theirs[split][name], rel=tolerance), (split, name)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _copy_toy(folder: Path, names: tuple[str, ...] = TOY_FILES) -> Path:
    folder.mkdir()
    for file in KIT.joinpath("data").iterdir():
        if file.name.startswith(names):
            (folder / file.name).write_bytes(file.read_bytes())  # the kit's files are read-only, these are to be broken
    return folder


def _copy_questions(folder: Path) -> Path:
    _copy_toy(folder, QUESTION_FILES)
    Spoiler.texts(folder / "txt_toy-qa.json", _leave_out_the_missing_video)
    return folder


def _leave_out_the_missing_video(texts: dict[str, Any]) -> None:
    for split in ("train", "test"):
        texts[split] = [item for item in texts[split] if item["video"] != "missing"]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A data folder of one's own: data set `toy`, two training parts of 3 clips, 4 validation clips, 4 frames each."""
    return _copy_toy(tmp_path / "data")


class Spoiler:
    """Harms the files of a toy folder."""

    @staticmethod
    def row(tsv: Path, number: int, change: Callable[[list[str]], list[str]]) -> None:
        """Changes the fields of one row; the line index goes, to be rebuilt."""
        reader = TSVReader(tsv)
        rows = [reader.row(i) for i in range(len(reader))]
        rows[number] = change(rows[number])
        tsv.write_text("".join("\t".join(fields) + "\n" for fields in rows))
        tsv.with_suffix(".lineidx").unlink()

    @staticmethod
    def texts(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes the object of a text file in place."""
        texts = json.loads(path.read_text())
        change(texts)
        path.write_text(json.dumps(texts))


@pytest.fixture(scope="session")
def spoil() -> Spoiler:
    return Spoiler()


@pytest.fixture(scope="session")
def kept_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all tests, not to be written to."""
    return _copy_toy(tmp_path_factory.mktemp("toy") / "data")


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A data folder of one's own: 6 videos of 5 frames in `img_toy.tsv`, and `txt_toy-action|mc|qa|fib.json` on them.

    Each has 6 training items, 4 of validation and 6 of test (`toy-qa` one more, whose answer is no known word).
    """
    return _copy_questions(tmp_path / "questions")


@pytest.fixture(scope="session")
def kept_questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for all tests, not to be written to."""
    return _copy_questions(tmp_path_factory.mktemp("toy") / "questions")


@pytest.fixture(scope="session")
def needs() -> Callable[[str], None]:
    """Skips a test where a package is not installed, without importing it."""

    def check(package: str) -> None:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")

    return check


# --- in this process --------------------------------------------------------------------------------------------------


@pytest.fixture
def train_here(tmp_path: Path, kept_toy: Path) -> Iterator[Callable[..., Run]]:
    """`train_here(*options, task=…, data=…, output=…)`: the body of a script in this process, which saves its start.

    `task` may also name a script, which is run whole; `data` may be `Path()`: as the configuration says. An exception
    that is not one of ours, which a user would see as a traceback, comes out here. The released configuration without
    its engine is the ground: no DeepSpeed, no FairScale.
    """
    threads, folder = torch.get_num_threads(), Path.cwd()
    torch.set_num_threads(1)
    os.chdir(ROOT)
    yield _Here(tmp_path, kept_toy)
    os.chdir(folder)
    torch.set_num_threads(threads)


class _Here:
    def __init__(self, folder: Path, data: Path):
        self.folder, self.data, self.count = folder, data, 0

    def __call__(
        self,
        *options: object,
        task: type[Trainable] | str = PretrainTask,
        data: Path | None = None,
        output: Path | None = None,
        released: tuple[str, ...] = RELEASED,
        small: tuple[str, ...] = SMALL,
    ) -> Run:
        self.count += 1
        output = output or self.folder / f"run_{self.count}"
        words = [*released, *small, "--deepspeed", "false", "--use_checkpoint", "false", "--device", "cpu"]
        words += ["--report_to", "[]"]  # pictures for TensorBoard would take a tenth of the time
        words += [] if data == Path() else ["--data_dir", str(data or self.data)]
        words += ["--path_output", str(output), *map(str, options)]
        stdout, stderr, code = io.StringIO(), io.StringIO(), 0
        written = mock.patch.object(os, "fsync")  # nobody pulls the plug of a test
        with written, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                if isinstance(task, str):
                    with mock.patch.object(sys, "argv", [task, *words]):
                        runpy.run_path(str(ROOT / task), run_name="__main__")
                else:
                    main(task, words)
            except SystemExit as leaving:
                code = int(leaving.code or 0)
        return Run(code, stdout.getvalue(), stderr.getvalue(), _newest_folder(output), words)


# --- as a user starts it ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def start(kept_toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """`start(script, *options, launcher=None, processes=2, …)`: a script as a process of its own, on the CPU.

    Unless it is watched or `cold`, the process has its imports behind it; see `warm.py`.
    """

    def run_script(
        script: str,
        *options: object,
        launcher: str | None = None,
        processes: int = 2,
        released: tuple[str, ...] = RELEASED,
        small: tuple[str, ...] = SMALL,
        data: Path | None = None,
        output: Path | None = None,
        environment: dict[str, str] | None = None,
        watch: Callable[[subprocess.Popen], None] | None = None,
        cold: bool = False,
        **popen: Any,
    ) -> Run:
        output = output or tmp_path_factory.mktemp("run") / "snapshot"
        command = [*launch_command(launcher, processes), script, *released, *small]
        command += ["--data_dir", str(data or kept_toy), "--path_output", str(output), *map(str, options)]
        variables = {**NO_GPU, **(environment or {})}
        if not (cold or watch or popen or launcher == "deepspeed"):
            server = warm(*(DEEPSPEED if launcher and has_deepspeed(command) else ()))
            command, variables = [*server.command, *command[1:]], {**variables, **server.settings}
        code, stdout, stderr = run_bounded(command, variables, watch, **popen)
        return Run(code, stdout, stderr, _newest_folder(output), command)

    return run_script


@pytest.fixture
def ask(train_here, start, needs, kept_questions: Path) -> Callable[..., Run]:
    """`ask(script, config, *options, by=…, data=…)`: a script of the question tasks with `_args/args_<config>.json`.

    `by` is "here" (in this process, without DeepSpeed and FairScale), "python", or a launcher, for 2 processes.
    """

    def run(script: str, config: str, *options: object, by: str = "here", data: Path | None = None) -> Run:
        words = ("--config", f"_args/args_{config}.json", "--dataset", "toy", "--task", QUESTION_TEXTS[config])
        ground: dict[str, Any] = {"released": words, "small": MICRO, "data": data or kept_questions}
        if by == "here":
            return train_here("--size_batch", 2, *options, task=script, **ground)
        for package in ("fairscale", "deepspeed"):
            needs(package)
        return start(script, "--size_batch", 2, *options, launcher=None if by == "python" else by, **ground)

    return run


@pytest.fixture(scope="session")
def kit_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`kit_weights("qamc_mlm")`: a checkpoint with the weights for which the released code's numbers are known."""
    value_of = runpy.run_path(str(KIT / "weights.py"))["value_of"]
    shapes = json.loads((KIT / "cases" / "state_dict_micro.json").read_text())
    folder = tmp_path_factory.mktemp("kit")

    @functools.cache
    def save(table: str) -> Path:
        state = {name: value_of(name, shape) for name, shape in shapes[table].items() if not name.endswith("_index")}
        if "fc_mtm.predictions.bias" in state:  # one parameter under two names
            state["fc_mtm.predictions.bias"] = state["fc_mtm.predictions.decoder.bias"]
        torch.save(state, folder / f"{table}.pt")
        return folder / f"{table}.pt"

    return save


def has_deepspeed(command: list[str]) -> bool:
    """Whether a command trains with DeepSpeed, as the released configurations do."""
    given = [word for option, word in itertools.pairwise(command) if option == "--deepspeed"]
    return given[-1:] != ["false"]


def _newest_folder(output: Path) -> Path:
    return max(output.iterdir(), default=output) if output.is_dir() else output
