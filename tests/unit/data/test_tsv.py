import logging
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from lavender.data.tsv import TSVReader, TSVWriter, build_lineidx, split_columns
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file

ROWS = [["video0", "{}", "/9j/abc="], ["vidéo1", "/9j/" + "A" * 4000], ["video2"]]


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    path = tmp_path / "img_toy.tsv"
    with TSVWriter(path) as writer:
        for row in ROWS:
            writer.write(row)
    return path


def offsets_of(path: Path) -> list[int]:
    lines = path.read_bytes().splitlines(keepends=True)
    return [sum(map(len, lines[:i])) for i in range(len(lines))]


def test_writer_and_reader_agree_byte_for_byte(tsv: Path):
    assert tsv.read_bytes() == "".join("\t".join(row) + "\n" for row in ROWS).encode()
    assert tsv.with_suffix(".lineidx").read_text() == "".join(f"{offset}\n" for offset in offsets_of(tsv))
    reader = TSVReader(tsv)
    assert len(reader) == 3
    assert reader.offsets.dtype == np.int64
    assert [reader.row(i) for i in (2, 0, 1)] == [ROWS[2], ROWS[0], ROWS[1]]
    assert [reader.video_id(i) for i in range(3)] == ["video0", "vidéo1", "video2"]
    assert reader.row_at(int(reader.offsets[1])) == ROWS[1]


def test_missing_index_is_built_written_and_announced(tsv: Path, caplog: pytest.LogCaptureFixture):
    index = tsv.with_suffix(".lineidx")
    written = index.read_bytes()
    index.unlink()
    with caplog.at_level(logging.INFO, "lavender.data"):
        assert TSVReader(tsv).row(1) == ROWS[1]
    assert "img_toy.lineidx is missing" in caplog.text
    assert index.read_bytes() == written


def test_index_stays_in_memory_where_it_cannot_be_written(
    tsv: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    tsv.with_suffix(".lineidx").unlink()

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lavender.data.tsv.write_lineidx", refuse)
    assert TSVReader(tsv).row(2) == ROWS[2]
    assert "stays in memory" in caplog.text
    assert not tsv.with_suffix(".lineidx").exists()


@pytest.mark.parametrize("content", [b"", b"a", b"a\n", b"a\nb", b"a\n\nb\n", b"\n"])
def test_build_lineidx_counts_lines_as_python_does(tmp_path: Path, content: bytes):
    path = tmp_path / "x.tsv"
    path.write_bytes(content)
    assert build_lineidx(path).tolist() == offsets_of(path)


def test_build_lineidx_across_blocks(tsv: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lavender.data.tsv._SCAN_BLOCK", 7)
    assert build_lineidx(tsv).tolist() == offsets_of(tsv)


def test_binary_index_is_read_and_a_wrong_one_left_aside(tsv: Path, caplog: pytest.LogCaptureFixture):
    binary = Path(f"{tsv.with_suffix('.lineidx')}.8b")
    np.array(offsets_of(tsv), "<i8").tofile(binary)
    reader = TSVReader(tsv)
    binary.write_bytes(b"")  # a file that is cut while it is mapped would end the process
    assert reader.row(2) == ROWS[2]
    again = pickle.loads(pickle.dumps(reader))
    assert again.row(1) == ROWS[1]
    for wrong in (np.array([0, 5, 10], "<i8").tobytes(), b"1234567", b"", np.array([0], "<i8").tobytes()):
        caplog.clear()
        binary.write_bytes(wrong)
        assert TSVReader(tsv).row(2) == ROWS[2]
        assert "not used" in caplog.text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda o: [*o, o[-1] + 10_000], r"lineidx, line 4: \d+ is past the end"),
        (lambda o: o[:-1], r"tsv, line 2: the line does not end"),
        (lambda o: [o[0], o[1], o[2] + 1], r"lineidx, line 3: no line .* starts at"),
        (lambda o: [o[0], o[2], o[1]], r"lineidx, line 3: offset \d+ is wrong"),
        (lambda o: [1, *o[1:]], r"lineidx, line 1: offset -?\d is wrong"),
        (lambda o: [-5, *o[1:]], r"lineidx, line 1: offset -?\d is wrong"),
        (lambda o: [], r"lineidx has 0 lines"),
        (lambda o: [0, "12x", 15], r"lineidx, line 2: .*12x.* is no byte offset"),
        (lambda o: [0, 10**30], r"lineidx, line 2: .* is no byte offset"),
    ],
)
def test_an_index_that_does_not_fit_is_refused_at_once(tsv: Path, change, complaint: str):
    tsv.with_suffix(".lineidx").write_text("".join(f"{offset}\n" for offset in change(offsets_of(tsv))))
    with pytest.raises(DataError, match=complaint):
        TSVReader(tsv)


def test_a_middle_row_that_does_not_start_at_a_line_is_named_when_read(tsv: Path):
    first, second, third = offsets_of(tsv)
    tsv.with_suffix(".lineidx").write_text(f"{first}\n{second + 3}\n{third}\n")
    reader = TSVReader(tsv)
    assert reader.row(2) == ROWS[2]
    for read in (reader.row, reader.video_id):
        with pytest.raises(DataError, match=rf"lineidx, line 2: no line .* starts at {second + 3}"):
            read(1)
    with pytest.raises(DataError, match=r"img_toy\.tsv, line 1: the line does not end"):
        reader.row(0)


def test_offsets_and_rows_outside_the_file(tsv: Path):
    reader = TSVReader(tsv)
    with pytest.raises(DataError, match=r"line 2: the line does not start at byte 40"):
        reader.row_at(40)
    for offset in (-1, 10**6):
        with pytest.raises(DataError, match="outside it"):
            reader.row_at(offset)
    for number in (-1, 3):
        with pytest.raises(DataError, match="has 3 rows"):
            reader.row(number)


def test_a_file_cut_after_opening_is_noticed(tsv: Path):
    reader = TSVReader(tsv)
    tsv.write_bytes(tsv.read_bytes()[:100])
    with pytest.raises(DataError, match="line 2: the file has become shorter"):
        reader.row(1)


def test_bad_text_is_named_by_line(tmp_path: Path):
    path = tmp_path / "bad.tsv"
    path.write_bytes(b"a\tb\nv\xff\tc\n\tno id\n")
    reader = TSVReader(path)
    for read in (reader.row, reader.video_id):
        with pytest.raises(DataError, match=r"bad\.tsv, line 2: byte 2 of the line is not UTF-8"):
            read(1)
        with pytest.raises(DataError, match=r"line 3: the first field, the video id, is empty"):
            read(2)
    with pytest.raises(DataError, match="no such file"):
        TSVReader(tmp_path / "missing.tsv")


def test_carriage_returns_and_a_missing_last_line_end_are_tolerated(tmp_path: Path):
    path = tmp_path / "dos.tsv"
    path.write_bytes(b"a\tb\r\nc\r\nd\te")
    reader = TSVReader(path)
    assert [reader.row(i) for i in range(3)] == [["a", "b"], ["c"], ["d", "e"]]
    assert [reader.video_id(i) for i in range(3)] == ["a", "c", "d"]


def test_an_empty_file_has_no_rows(tmp_path: Path):
    path = tmp_path / "empty.tsv"
    path.touch()
    assert len(TSVReader(path)) == 0
    assert len(TSVReader(path)) == 0  # the second time with its (empty) index there


def test_another_index_may_be_named(tsv: Path, tmp_path: Path):
    moved = tmp_path / "elsewhere.lineidx"
    tsv.with_suffix(".lineidx").rename(moved)
    assert TSVReader(tsv, moved).row(1) == ROWS[1]
    assert not tsv.with_suffix(".lineidx").exists()


def test_a_long_id_is_read_whole(tmp_path: Path):
    path = tmp_path / "long.tsv"
    name = "x" * 1000
    with TSVWriter(path) as writer:
        writer.write([name, "frame"])
        writer.write([name])
    assert [TSVReader(path).video_id(i) for i in (0, 1)] == [name, name]


def _read_many(reader: TSVReader, results) -> None:
    results.put(all(reader.row(i % 3) == ROWS[i % 3] for i in range(300)))


def test_a_spawned_worker_gets_a_reader_of_its_own(tsv: Path):
    reader = TSVReader(tsv)
    reader.row(0)
    assert pickle.loads(pickle.dumps(reader)).row(1) == ROWS[1]


def test_forked_workers_share_an_open_reader(tsv: Path):
    reader = TSVReader(tsv)
    reader.row(0)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_read_many, args=(reader, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    assert all(results.get(timeout=300) for _ in workers)
    for worker in workers:
        worker.join()


def test_split_columns_decides_by_content():
    assert split_columns(["v", "/9j/1", "/9j/2"], "") == ("v", None, ["/9j/1", "/9j/2"])
    assert split_columns(["v", "iVBORw0KGgo1"], "") == ("v", None, ["iVBORw0KGgo1"])
    assert split_columns(["v", '{"class": -1}', "/9j/2"], "") == ("v", '{"class": -1}', ["/9j/2"])
    assert split_columns(["v", "7", "/9j/2"], "") == ("v", "7", ["/9j/2"])
    for fields in (["v"], ["v", "{}"]):
        with pytest.raises(DataError, match="here: video 'v' has no frames"):
            split_columns(fields, "here")


def test_a_failed_write_leaves_the_old_files_and_nothing_else(tsv: Path):
    before = {path.name: path.read_bytes() for path in tsv.parent.iterdir()}

    def write() -> None:
        with TSVWriter(tsv) as writer:
            writer.write(["other", "row"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert {path.name: path.read_bytes() for path in tsv.parent.iterdir()} == before


def test_a_binary_index_that_is_cut_while_it_is_in_use(tsv: Path):
    """A map of it would end the process with a signal."""
    binary = Path(f"{tsv.with_suffix('.lineidx')}.8b")
    plain = TSVReader(tsv)
    rows = [plain.row(number) for number in range(len(plain))]
    np.array(offsets_of(tsv), "<i8").tofile(binary)
    reader = TSVReader(tsv)
    binary.write_bytes(b"")
    assert [reader.row(number) for number in range(len(reader))] == rows


def test_writing_again_replaces_every_index(tsv: Path):
    np.array(offsets_of(tsv), "<i8").tofile(Path(f"{tsv.with_suffix('.lineidx')}.8b"))
    with TSVWriter(tsv) as writer:
        writer.write(["only", "one"])
    assert sorted(path.name for path in tsv.parent.iterdir()) == ["img_toy.lineidx", "img_toy.tsv"]
    assert TSVReader(tsv).row(0) == ["only", "one"]


@pytest.mark.parametrize("fields", [["a\tb"], ["a", "b\n"], ["a", "b\r"], [""], []])
def test_writer_refuses_what_a_tsv_cannot_hold(tmp_path: Path, fields: list[str]):
    with pytest.raises(DataError), TSVWriter(tmp_path / "x.tsv") as writer:
        writer.write(fields)
    assert list(tmp_path.iterdir()) == []


def test_atomic_file_shows_nothing_before_it_is_whole(tmp_path: Path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("index", ["", "8b", "whole lines alone", "mark"])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n\n", b"\n \t\n", b"\r\n\r\n", b"\n" + b" \n" * 999])
def test_marks_line_ends_and_blank_lines_at_the_end_are_no_content(tmp_path: Path, end: bytes, index: str):
    path = tmp_path / "x.tsv"
    line_end = b"\r\n" if end[:1] == b"\r" else b"\n"
    path.write_bytes(b"\xef\xbb\xbf" + line_end.join("\t".join(row).encode() for row in ROWS) + end)
    offsets = build_lineidx(path)
    if index == "8b":
        offsets.tofile(tmp_path / "x.lineidx.8b")
    elif index:
        offsets = offsets[: len(ROWS)] if index != "mark" else offsets
        mark = "\ufeff" if index == "mark" else ""
        path.with_suffix(".lineidx").write_text(mark + "".join(f"{offset}\r\n" for offset in offsets) + "\r\n")
    reader = pickle.loads(pickle.dumps(TSVReader(path)))
    assert [reader.row(number) for number in range(len(reader))] == ROWS
    assert [reader.video_id(number) for number in range(len(reader))] == [row[0] for row in ROWS]


@pytest.mark.parametrize("blank", ["", "  ", "\r", "\t"])
def test_a_blank_line_between_rows_is_named(tmp_path: Path, blank: str):
    (tmp_path / "x.tsv").write_text(f"a\tb\n{blank}\nc\td\n", newline="")
    with pytest.raises(DataError, match=r"x\.tsv, line 2: the first field"):
        TSVReader(tmp_path / "x.tsv").row(1)


def test_a_file_of_blank_lines_has_no_rows(tmp_path: Path):
    (tmp_path / "x.tsv").write_text("\n \n")
    assert len(TSVReader(tmp_path / "x.tsv")) == 0


def test_a_tsv_of_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "x.tsv").write_text("a\tb\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"x\.tsv: the text is UTF-16; save it as UTF-8"):
        TSVReader(tmp_path / "x.tsv")
    (tmp_path / "y.tsv").write_text("a\tb\n")
    (tmp_path / "y.lineidx").write_text("0\n", encoding="utf-16")
    with pytest.raises(DataError, match=r"y\.lineidx: the text is UTF-16"):
        TSVReader(tmp_path / "y.tsv")


@pytest.mark.parametrize("video", ["", " ", "\u3000"])
def test_an_id_that_the_reader_refuses_is_not_written(tmp_path: Path, video: str):
    with TSVWriter(tmp_path / "x.tsv") as writer:
        writer.write(["a", "b"])
        with pytest.raises(DataError, match=r"x\.tsv: row 1 .*video id"):
            writer.write([video, "b"])
    assert (tmp_path / "x.tsv").read_text() == "a\tb\n"
