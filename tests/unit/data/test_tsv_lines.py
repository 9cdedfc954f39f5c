"""Lines without end, and index numbers without end: what opening and reading a TSV costs then."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lavender.data import tsv as module
from lavender.data.index import VideoIndex, index_of
from lavender.data.tsv import TSVReader, _parse_offsets, write_lineidx
from lavender.runtime.errors import DataError

HOLE = 3 * 2**30  # bytes, none of them on disk


def sparse(path: Path, *rows: tuple[bytes, int, bytes]) -> Path:
    """A TSV of rows: beginning, a hole of so many bytes, end."""
    offsets = []
    with open(path, "wb") as file:
        for start, hole, end in rows:
            offsets.append(file.tell())
            file.write(start)
            file.seek(hole, 1)
            file.write(end)
    write_lineidx(path.with_suffix(".lineidx"), np.array(offsets, np.int64))
    return path


@pytest.fixture
def little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20


@pytest.mark.usefixtures("little_memory")
def test_a_huge_row_is_not_read_to_open_the_file_and_know_its_id(tmp_path: Path):
    path = sparse(tmp_path / "x.tsv", (b"a\t", 5, b"\n"), (b"b\t", HOLE, b"\n"), (b"c\t", HOLE, b"\n"))
    reader = TSVReader(path)
    assert [reader.video_id(number) for number in range(3)] == ["a", "b", "c"]
    assert list(index_of(path)) == ["a", "b", "c"]
    assert reader.row(0) == ["a", "\0" * 5]
    for number in (1, 2):
        with pytest.raises(DataError, match=rf"x\.tsv, line {number + 1}: .*3,221,225,475 bytes"):
            reader.row(number)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("last", [True, False])
def test_a_row_without_a_tab_is_told_with_its_line(tmp_path: Path, last: bool):
    rows = [(b"a\t", 5, b"\n"), (b"b", HOLE, b"\n"), (b"c\t", 5, b"\n")]
    path = sparse(tmp_path / "x.tsv", *rows[: 2 if last else 3])
    with pytest.raises(DataError, match=r"x\.tsv, line 2: .*65,536 bytes.*video id"):
        VideoIndex(path)


def test_the_longest_id(tmp_path: Path):
    path = sparse(tmp_path / "x.tsv", (b"v" * 65_535 + b"\t", 100_000, b"\n"), (b"w" * 65_537 + b"\t", 100_000, b"\n"))
    assert TSVReader(path).video_id(0) == "v" * 65_535
    with pytest.raises(DataError, match="line 2"):
        TSVReader(path).video_id(1)


def test_an_id_alone_in_its_row_may_be_as_long(tmp_path: Path):
    path = sparse(tmp_path / "x.tsv", (b"v" * 65_000, 0, b"\n"))
    assert TSVReader(path).video_id(0) == "v" * 65_000


def test_rows_that_the_index_lacks_are_noticed_in_a_long_last_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_LAST_ROW", 100)
    path = sparse(tmp_path / "x.tsv", (b"a\t", 500, b"\n"))
    assert len(TSVReader(path)) == 1
    with open(path, "r+b") as file:
        file.seek(50)
        file.write(b"\n")
    with pytest.raises(DataError, match=r"x\.tsv, line 1.*x\.lineidx"):
        TSVReader(path)


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000, 70_000])
@pytest.mark.parametrize("blank", [b"\n", b" ", b"\r\n", b"\t \n"])
def test_blank_lines_at_the_end_are_found_in_blocks(
    tmp_path: Path, count: int, blank: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "_SCAN_BLOCK", 4096)
    path = tmp_path / "x.tsv"
    path.write_bytes(b"a\tx\nb\ty\n" + blank * count)
    write_lineidx(path.with_suffix(".lineidx"), np.array([0, 4], np.int64))
    reader = TSVReader(path)
    assert [reader.row(0), reader.row(1)] == [["a", "x"], ["b", "y"]]


@pytest.mark.parametrize("number", ["9" * 19, "9" * 5000, "-" + "9" * 18, "1_0", "²", "+4", "x"])
def test_an_index_number_that_is_none_is_told_with_its_line(tmp_path: Path, number: str):
    path = tmp_path / "x.tsv"
    path.write_bytes((b"a\t" + b"x" * 7 + b"\n") * 1000)
    path.with_suffix(".lineidx").write_text(f"0\n10\n{number}\n30\n")
    with pytest.raises(DataError, match=r"x\.lineidx, line 3: .* no byte offset") as raised:
        TSVReader(path)
    assert len(str(raised.value)) < len(str(path)) + 300


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", ["x.lineidx", "x.lineidx.8b"])
def test_an_index_larger_than_its_file_allows_is_not_read(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture):
    path = sparse(tmp_path / "x.tsv", (b"a\t", 5, b"\n"))
    path.with_suffix(".lineidx").unlink()
    with open(tmp_path / name, "wb") as file:
        file.truncate(HOLE)
    if name.endswith(".8b"):  # the text index is rebuilt in its place
        assert TSVReader(path).video_id(0) == "a"
        assert f"{tmp_path / name} has 3,221,225,472 bytes" in caplog.text
    else:
        with pytest.raises(DataError, match=r"x\.lineidx has 3,221,225,472 bytes"):
            TSVReader(path)


@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n", ""])
@pytest.mark.parametrize("start", ["", "\n", " ", "\ufeff"])
@pytest.mark.parametrize("numbers", [[0], [0, 7, 10**17], [0, 10**18 - 1], []])
def test_a_line_index_is_read_alike_however_its_lines_end(tmp_path: Path, numbers: list[int], start: str, end: str):
    path = tmp_path / "x.lineidx"
    for joint in ("\n", "\r\n", "\n\n"):
        path.write_bytes((start + joint.join(map(str, numbers)) + end).encode())
        found = _parse_offsets(path)
        assert (found.tolist(), found.dtype) == (numbers, np.int64)


@pytest.mark.parametrize("rows", [b"a\tx\rb\ty\r", b"a\tx\rb\ty\r\nc\tz\n", b"c\tz\na\tx\rb\ty"])
def test_line_ends_of_an_old_mac_are_told(tmp_path: Path, rows: bytes):
    """They would make one row of several: all videos but the first would be missing without a word."""
    (tmp_path / "x.tsv").write_bytes(rows)
    with pytest.raises(DataError, match=r"x\.tsv, line [12]: .*CR.*x\.lineidx"):
        TSVReader(tmp_path / "x.tsv").row(0)
