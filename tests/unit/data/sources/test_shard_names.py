from pathlib import Path

import pytest

from lavender.data.sources.shard_names import expand, find_shards
from lavender.runtime.errors import DataError


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{0..0010..5}", ["{0..0010..5}"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{0..002}", ["000", "001", "002"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("{one}{0..1}", ["{one}0", "{one}1"]),
        ("x{,y}", ["x", "xy"]),
    ],
)
def test_braces_are_those_of_a_shell(pattern: str, expected: list[str]):
    assert expand(pattern) == expected


@pytest.mark.parametrize("pattern", ["{0..9999999}", "{0..9999}{0..9999}"])
def test_a_pattern_of_too_many_names(pattern: str):
    with pytest.raises(DataError, match="1,000,000"):
        expand(pattern)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    for name in ("00001.tar", "00000.tar", "b/00002.TAR", "._00000.tar", "00000.json", "00000.tar.index.npz"):
        (tmp_path / name).touch()
    return tmp_path


def test_folders_files_and_patterns(folder: Path):
    first, second, third = folder / "00000.tar", folder / "00001.tar", folder / "b" / "00002.TAR"
    assert find_shards(str(folder)) == [first, second, third]
    assert find_shards(str(second)) == [second]
    assert find_shards(f"{folder}/{{00001..00000}}.tar") == [second, first]
    assert find_shards(f"{folder}/0*.tar") == [first, second]
    assert find_shards(f"{folder}/{{00000..00002}}.tar") == [first, second, folder / "00002.tar"]


def test_what_is_refused(folder: Path):
    for remote in ("s3://bucket/{0..9}.tar", "https://x.org/a.tar", "pipe:aws s3 cp x -"):
        with pytest.raises(DataError, match="local"):
            find_shards(remote)
    for nothing in (f"{folder}/x.tar", f"{folder}/{{5..6}}.tar", f"{folder}/x*.tar"):
        with pytest.raises(DataError, match="--shards"):
            find_shards(nothing)
    (folder / "packed").mkdir()
    (folder / "packed" / "00000.tar.gz").touch()
    with pytest.raises(DataError, match=r"00000\.tar\.gz"):
        find_shards(str(folder / "packed"))
