import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lavender.config.load import from_dict, read_object
from lavender.data import corpora
from lavender.data.annotations import read_json
from lavender.data.caption_folder import CaptionFolder
from lavender.data.index import load_plain_pickle
from lavender.data.items import ItemFile
from lavender.data.tsv import TSVReader
from lavender.engine.resume import claimed_run
from lavender.runtime.errors import DataError, LavenderError
from lavender.runtime.files import atomic_file, looked_from, mistaken_file, read_text
from lavender.text.tokens import TextTokenizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ckpt.pt"
    path.write_bytes(b"old")
    return path


def alone(path: Path) -> bool:
    return os.listdir(path.parent) == [path.name]


def test_a_new_file_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "ckpt.pt"
    with atomic_file(str(path)) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b", whole")
    assert path.read_bytes() == b"half, whole"
    assert alone(path)


def test_the_old_file_is_there_until_then(path: Path):
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert alone(path)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_a_fault_leaves_the_old_file_and_nothing_beside_it(path: Path, error: BaseException):
    def write() -> None:
        with atomic_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == b"old"
    assert alone(path)


def test_a_fault_while_it_is_put_in_place(path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"), atomic_file(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert alone(path)


def test_it_is_on_disk_before_it_is_in_place(path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []

    def noted(name: str) -> None:
        plain = getattr(os, name)

        def watch(*arguments):
            order.append(name)
            return plain(*arguments)

        monkeypatch.setattr(os, name, watch)

    noted("fsync")
    noted("replace")
    with atomic_file(path) as file:
        file.write(b"new")
    assert order == ["fsync", "replace"]


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "nowhere" / "x"):
        pass


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_text(path: Path, encoding: str):
    path.write_bytes("größer\r\n\ufeff".encode(encoding))
    assert read_text(path, DataError) == "größer\r\n\ufeff"


@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        *[("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32")],
        ("latin-1", "byte 2 is not UTF-8"),
    ],
)
def test_another_encoding_is_named(path: Path, encoding: str, named: str):
    path.write_bytes("größer".encode(encoding))
    with pytest.raises(DataError, match=named) as raised:
        read_text(path, DataError)
    assert str(raised.value).startswith(str(path))
    assert "UTF-8" in str(raised.value)


def test_a_text_that_cannot_be_read_is_named(tmp_path: Path):
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=str(place)):
            read_text(place, DataError)


def test_leftovers_of_dead_processes_are_removed_and_of_live_ones_kept(path: Path):
    leftover = path.with_name(".ckpt.pt.0badcafe.tmp")
    leftover.touch()
    with atomic_file(path) as first:
        assert not leftover.exists()
        with atomic_file(path) as second:
            second.write(b"second")
        first.write(b"first")
    assert path.read_bytes() == b"first"
    assert alone(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "error message"),
        (b'{"error": "gated"}', "error message"),
        (b"PK\x03\x04", "zip"),
        (b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml" + bytes(9), "Excel"),
        (b"PK\x03\x04" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet", "Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel"),
        (b"\x1f\x8b\x08", "archive"),
        (b"", "empty"),
        (b"not found footage\t/9j/", ""),
        (b'{"train": []}', ""),
    ],
)
def test_what_stands_in_a_files_place_is_known(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "x").write_bytes(content)
    found = mistaken_file(tmp_path / "x")
    assert words in found
    assert bool(found) is bool(words)


# --- a relative path that is not found --------------------------------------------------------------------------------

SEARCHES: dict[str, Callable[[str], object]] = {
    "configuration": read_object,
    "text": lambda path: read_text(path, DataError),
    "text file": lambda path: read_json(Path(path)),
    "frames": TSVReader,
    "index": load_plain_pickle,
    "data folder": lambda path: ItemFile(from_dict({"data_dir": path, "task": "x"}, "test")),
    "corpus": lambda path: corpora.validation(path, "x"),
    "captioning folder": lambda path: CaptionFolder(Path(path)),
    "vocabulary": lambda path: TextTokenizer(Path(path)),
    "resume": lambda path: claimed_run(from_dict({"resume": path}, "test"), "x", print).__enter__(),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_it_says_from_where_it_was_looked_for(search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LavenderError) as raised:
        search("no/where")
    assert str(tmp_path) in str(raised.value)
    assert "no/where" in str(raised.value)
    assert "\n" not in str(raised.value)
    far = tmp_path / "far"
    with pytest.raises(LavenderError) as raised:
        search(str(far / "where"))
    assert str(tmp_path) not in str(raised.value).replace(str(far), ""), "an absolute one is from nowhere"


def test_a_file_that_a_yaml_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text("img: x.img.tsv\n")
    with pytest.raises(DataError) as raised:
        CaptionFolder(Path("x.yaml"), blind=True)
    assert str(tmp_path) in str(raised.value)


def test_of_several_paths_a_relative_one_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert looked_from("/a", "/b") == ""
    assert str(tmp_path) in looked_from("/a", "b")


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert looked_from("a")
