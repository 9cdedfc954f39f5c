"""Captions of a large file: kept beside it, mapped by all processes, and built anew where they do not fit."""

import itertools
import json
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from lavender.config.schema import Config
from lavender.data import caption_cache, caption_json
from lavender.data.annotations import CaptionTable, read_json
from lavender.data.caption_cache import open_captions
from lavender.data.caption_json import CaptionReader, UnusualError
from lavender.data.loaders import evaluation_loader
from lavender.data.samples import ClipDataset
from lavender.runtime.errors import DataError
from tests.warm import warm

ROOT = Path(__file__).parents[3]
CONTENT: dict[str, Any] = {
    "train": {
        "a.mp4": ["one größer 红 🙂", "again"],
        "b": "two",
        "c": [],
        "d": ["half \ud83d"],
        "e/f": [None],
        "": "x",
    },
    "val": {"a": ["three"]},
    "test": {"a": [{"not": "read"}]},
}


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_cache, "SMALLEST", 0)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "txt_toy.json"
    path.write_text(json.dumps(CONTENT))
    return path


def cache_of(path: Path) -> Path:
    return path.with_suffix(".captions.bin")


def answers(table: CaptionTable, ids: list[str]) -> list[str]:
    found = []
    for video in ids:
        try:
            found.append(table.caption(video))
        except DataError as fault:
            found.append(str(fault))
    return found


IDS = ["a", "a.mp4", "b", "c", "d", "f", "e/f", "", "unknown", "x/b"]


def check(path: Path, content: dict[str, Any] = CONTENT) -> None:
    """That a file's tables answer as those of its content do."""
    captions = open_captions(path)
    assert set(captions.tables) == {split for split in ("train", "val") if content.get(split)}
    for split, table in captions.tables.items():
        assert answers(table, IDS) == answers(CaptionTable(content[split], f"{path}, {split}"), IDS)


# --- a cache that fits, and others ------------------------------------------------------------------------------------


def test_it_is_built_once_and_answers_as_the_text_does(text: Path, log: pytest.LogCaptureFixture):
    check(text)
    first = cache_of(text).stat()
    assert "is missing" in log.text
    log.clear()
    with mock.patch.object(caption_cache, "CaptionReader", side_effect=AssertionError("the text is read again")):
        check(text)
    assert (cache_of(text).stat().st_ino, log.text) == (first.st_ino, "")
    assert sorted(path.name for path in text.parent.iterdir()) == ["txt_toy.captions.bin", "txt_toy.json"]


def test_a_small_file_has_none(text: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_cache, "SMALLEST", text.stat().st_size + 1)
    check(text)
    assert not cache_of(text).exists()


def stale(text: Path) -> None:
    CONTENT_NOW["train"]["b"] = "changed"
    text.write_text(json.dumps(CONTENT_NOW))


def touched(text: Path) -> None:
    os.utime(text, ns=(1, text.stat().st_mtime_ns + 1))


def cut(text: Path) -> None:
    os.truncate(cache_of(text), cache_of(text).stat().st_size - 1)


def cut_in_its_header(text: Path) -> None:
    os.truncate(cache_of(text), 40)


def emptied(text: Path) -> None:
    os.truncate(cache_of(text), 0)


def longer(text: Path) -> None:
    with cache_of(text).open("ab") as file:
        file.write(b"x")


def foreign(text: Path) -> None:
    cache_of(text).write_bytes(b"something else altogether" * 10)


def of_another_version(text: Path) -> None:
    content = cache_of(text).read_bytes()
    cache_of(text).write_bytes(content.replace(b"captions 1\n", b"captions 9\n"))


def damaged(text: Path) -> None:
    content = cache_of(text).read_bytes()
    cache_of(text).write_bytes(content[:-9] + b"?" + content[-8:])


CONTENT_NOW: dict[str, Any] = {}
SAYS = {
    stale: "earlier state",
    touched: "earlier state",
    cut: "is cut",
    cut_in_its_header: "no cache",
    emptied: "no cache",
    longer: "is cut, or longer",
    foreign: "no cache",
    of_another_version: "another version",
    damaged: "damaged",
}


@pytest.mark.parametrize("harm", SAYS, ids=lambda harm: harm.__name__)
def test_what_does_not_fit_is_built_anew(text: Path, log: pytest.LogCaptureFixture, harm: Any):
    CONTENT_NOW.update(json.loads(json.dumps(CONTENT)))
    check(text)
    harm(text)
    log.clear()
    check(text, CONTENT_NOW)
    assert str(cache_of(text)) in log.text
    assert SAYS[harm] in log.text
    log.clear()
    check(text, CONTENT_NOW)
    assert log.text == ""


@pytest.mark.parametrize("after", [0, 3])
def test_where_it_cannot_be_written_the_captions_stay_in_memory(
    text: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, after: int
):
    """A folder of somebody else's, or a disk that fills up meanwhile."""

    def refuse(file: Any, array: Any) -> tuple[int, str, list[int]]:
        if next(count) < after:
            return append(file, array)
        raise PermissionError(13, "Permission denied", str(cache_of(text)))

    append, count = caption_cache._append, itertools.count()
    monkeypatch.setattr(caption_cache, "_append", refuse)
    check(text)
    assert str(cache_of(text)) in log.text
    assert "Permission denied" in log.text
    assert [path.name for path in text.parent.iterdir()] == ["txt_toy.json"]


def test_ids_that_come_twice_are_told_at_every_start(text: Path, log: pytest.LogCaptureFixture):
    text.write_text('{"train": {"a": ["one"], "b": ["two"], "a": ["three"]}, "val": {"a": ["four"], "a": "five"}}')
    read_json(text)
    expected = log.messages[0]
    for _ in ("built", "opened"):
        log.clear()
        captions = open_captions(text)
        assert answers(captions.tables["train"], ["a", "b"]) == ["three", "two"]
        assert answers(captions.tables["val"], ["a"]) == ["five"]
        assert [r.getMessage() for r in log.records if r.levelname == "WARNING"] == [expected]


# --- what the text may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        '{"train": {"a": "x"}',
        '{"train": {"a": "x"}} more',
        '{"train": {"a": "x",}}',
        '{"train": {"a" "x"}}',
        '{"train": {"a": oops}}',
        '{"train": {a: 1}}',
        '{"train": {"a": "line\nend"}}',
        "",
        "[]",
        '{"train": [1]}',
        '{"train": 5}',
        '{"other": 5}',
        '{"train": {"a": %s}}' % ("[" * 200 + "]" * 200),
        '{"train": {"a": %s}}' % ("[" * 100_000),
        '{"train": {"a": %s}}' % ("1" * 5000),
        b'{"train": {"a": "\xff"}}',
        '{"train": {"a": "x"}}'.encode("utf-16"),
    ],
)
def test_a_broken_text_is_refused_in_the_same_words(text: Path, content: str | bytes, monkeypatch: pytest.MonkeyPatch):
    text.write_bytes(content if isinstance(content, bytes) else content.encode())
    with monkeypatch.context() as patch:
        patch.setattr(caption_cache, "SMALLEST", 10**9)
        expected = _fault_or_splits(text)
    assert _fault_or_splits(text) == expected
    assert not cache_of(text).exists()


def _fault_or_splits(text: Path) -> str | list[str]:
    try:
        return [*open_captions(text).tables]
    except DataError as fault:
        return str(fault)


@pytest.mark.parametrize(
    "content",
    [
        '{"train": {"a": "x", "b": {"deep": 1}}}',
        '{"train": {"a": [["x"]]}}',
        '{"train": {"a": "x"}, "train": {"b": "y"}}',
        '{"train": {"a": "x"}, "test": {"c": 1, "c": 2}}',
    ],
)
def test_what_is_more_than_captions_is_read_as_a_whole(text: Path, content: str, log: pytest.LogCaptureFixture):
    text.write_text(content)
    check(text, read_json(text))
    assert "read as a whole" in log.text
    assert not cache_of(text).exists()


@pytest.mark.parametrize("block", [1, 2, 3, 7, 50, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_text_is_read_alike_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, indent: int | None, ascii_only: bool
):
    monkeypatch.setattr(caption_json, "_BLOCK", block)
    content = {**CONTENT, "train": {**CONTENT["train"], "d": ['whole 🙂 \\ " \n'], "n": 12, "t": True}, "info": "x"}
    (tmp_path / "t.json").write_text("\ufeff " + json.dumps(content, indent=indent, ensure_ascii=ascii_only) + " \n")
    with open(tmp_path / "t.json", "rb") as file:
        reader = CaptionReader(file)
        found = list(reader.captions())
    train = {name: text for split, name, text in found if split == "train"}
    assert train == {"a.mp4": "one größer 红 🙂", "b": "two", "c": "", "d": 'whole 🙂 \\ " \n', "e/f": "", "": "x"} | {
        "n": "",
        "t": "",
    }
    assert [item for item in found if item[0] == "val"] == [("val", "a", "three")]
    assert reader.keys == dict.fromkeys(content, True)


def test_a_text_that_ends_anywhere_is_no_text(tmp_path: Path):
    content = json.dumps(CONTENT).encode()
    for length in range(len(content)):
        (tmp_path / "t.json").write_bytes(content[:length])
        with open(tmp_path / "t.json", "rb") as file, pytest.raises(UnusualError):
            list(CaptionReader(file).captions())


@pytest.mark.parametrize("content", [{"training": {"a": "x"}}, {"train": {}, "Val": {"a": "x"}}, {"train": {"a": "x"}}])
def test_a_misnamed_split_is_told(text: Path, content: dict, monkeypatch: pytest.MonkeyPatch):
    text.write_text(json.dumps(content))
    built, opened = open_captions(text), open_captions(text)
    monkeypatch.setattr(caption_cache, "SMALLEST", 10**9)
    assert built.misnamed == opened.misnamed == open_captions(text).misnamed


# --- processes --------------------------------------------------------------------------------------------------------


def test_it_goes_to_another_process_as_a_name(text: Path):
    text.write_text(json.dumps({"train": {f"video {n}": ["word " * 100] for n in range(1000)}}))
    table = open_captions(text).tables["train"]
    assert table.caption("video 7")
    sent = pickle.dumps(table)
    assert len(sent) < 1000
    assert pickle.loads(sent).caption("video 999") == "word " * 100


@pytest.mark.parametrize("harm", [stale, cut, foreign, lambda text: cache_of(text).unlink()])
def test_a_process_that_starts_later_finds_the_captions_of_the_run(text: Path, harm: Any):
    CONTENT_NOW.update(json.loads(json.dumps(CONTENT)))
    table = open_captions(text).tables["train"]
    sent = pickle.dumps(table)
    cache = cache_of(text)
    cache.rename(f"{cache}.kept")  # it is replaced, as by another run, and not written to
    cache.write_bytes(Path(f"{cache}.kept").read_bytes())
    harm(text)
    if harm is stale:
        open_captions(text)
    assert pickle.loads(sent).caption("b") == "two"


def test_a_process_that_finds_other_captions_says_so(text: Path):
    sent = pickle.dumps(open_captions(text).tables["train"])  # the table, and with it the open file, is gone
    CONTENT_NOW.update(json.loads(json.dumps(CONTENT)))
    stale(text)
    open_captions(text)
    with pytest.raises(DataError, match=r"txt_toy\.captions\.bin: it was built from an earlier state.*resume"):
        pickle.loads(sent).caption("b")


class Captioned(ClipDataset):
    """Samples that are captions."""

    def __init__(self, config: Config, table: CaptionTable):
        super().__init__(config, training=False, size_frame=1)
        self.table = table

    def __len__(self) -> int:
        return 6

    def video(self, index: int) -> Any:
        raise DataError("a caption has no frames")

    def clip(self, index: int, stream: Any) -> torch.Tensor:
        return torch.zeros(1)

    def text(self, index: int, stream: Any, guard: Any) -> dict[str, Any]:
        mapped = "captions.bin" in Path("/proc/self/maps").read_text()
        return {"caption": self.table.caption(f"v{index}"), "mapped": mapped}


def test_workers_map_the_same_file(text: Path, config: Config):
    text.write_text(json.dumps({"train": {f"v{number}": [f"caption {number}"] for number in range(6)}}))
    config.n_workers = 2
    batches = list(evaluation_loader(Captioned(config, open_captions(text).tables["train"]), 2))
    assert [caption for batch in batches for caption in batch["caption"]] == [f"caption {n}" for n in range(6)]
    assert not any(batch["mapped"][0] for batch in batches[:1]), "it is mapped once it is needed"
    assert batches[-1]["mapped"].any()


SCRIPT = """
import logging, sys
from pathlib import Path
from lavender.data import caption_cache
caption_cache.SMALLEST = 0
logging.basicConfig(level=logging.INFO, format="%(message)s")
print("ready", flush=True)
sys.stdin.readline()
print(caption_cache.open_captions(Path(sys.argv[1])).tables["train"].caption("v7"))
"""


def test_of_two_processes_one_builds_it(text: Path):
    text.write_text(json.dumps({"train": {f"v{number}": [f"caption {number}"] for number in range(100_000)}}))
    command = [*warm().command, "-c", SCRIPT, str(text)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * 2
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=90) for process in processes]
    assert [out for out, _ in said] == ["caption 7\n"] * 2
    assert sum(error.count("written in") for _, error in said) == 1
