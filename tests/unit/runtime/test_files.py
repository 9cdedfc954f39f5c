import os
from pathlib import Path

import pytest

from lavender.runtime.files import atomic_file


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
