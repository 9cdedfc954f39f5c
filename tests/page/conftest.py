"""The page with a tiny checkpoint, as a user starts it, and a browser in front of it."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lavender import Predictor
from lavender.inference.index import build_index
from tests.conftest import KIT, NO_GPU, ROOT
from tests.unit.prepare.clip_world import write_video

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu"),
    *("--disable-background-networking", "--disable-sync", "--no-first-run"),
]
MEGABYTES, SECONDS = 1, 3  # of an upload


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.page)


@dataclass
class Served:
    """A page that is served.

    Attributes:
        folder: of its temporary files. clips: a folder of videos, of which it has an index.
        predictor: the same model, in this process.
    """

    url: str
    process: subprocess.Popen
    folder: Path
    clips: Path
    predictor: Predictor

    def left_behind(self) -> list[Path]:
        """Files of uploads that are still there."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def started(*options: object, **environment: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The page in a process of its own: its address, and the process. It is ended by its id."""
    port = free_port()
    words = [sys.executable, "-m", "lavender.app", "--device", "cpu", "--port", port, *options]
    known = {**os.environ, **NO_GPU, "PYTHONPATH": str(ROOT), **environment}
    process = subprocess.Popen(list(map(str, words)), env=known, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # comes once it serves, or empty where it has ended
        assert f"http://127.0.0.1:{port}" in line, f"exit code {process.wait(10)}; it said {line!r}"
        yield f"http://127.0.0.1:{port}/", process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, or a skipped test where there is none."""
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip("Chromium is not installed: make test-page installs it")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-page")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def checkpoint(kit_weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a micro model, as of a run on questions."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copyfile(kit_weights("qaoe_mlm"), folder / "tiny.pt")
    bert = dict.fromkeys(("txt_backbone", "fusion_encoder"), str(KIT / "bert_micro"))
    facts = {**bert, "size_img": 64, "type": "qaoe", "task": "toy-qa", "dataset": "toy"}
    (folder / "args.json").write_text(json.dumps(facts))
    return folder / "tiny.pt"


@pytest.fixture(scope="session")
def page(browser, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page with an index of three clips, which are its examples, too."""
    folder = tmp_path_factory.mktemp("page")
    clips, temporary = folder / "clips", folder / "temporary"
    temporary.mkdir()
    for number in range(3):
        write_video(clips / f"clip{number}.mp4", grey=60 * number)
    predictor = Predictor.from_pretrained(checkpoint, device="cpu")
    assert build_index(predictor, clips, folder / "clips.index") == []
    words = ("--path_ckpt", checkpoint, "--index", folder / "clips.index", "--examples", clips)
    limits = ("--max_upload", MEGABYTES, "--max_seconds", SECONDS)
    with started(*words, *limits, TMPDIR=str(temporary)) as (url, process):
        yield Served(url, process, temporary, clips, predictor)
    assert list(temporary.iterdir()) == [], "the page left files when it ended"
