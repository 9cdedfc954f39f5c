"""Tables as people have them."""

from pathlib import Path

import pytest

from lavender.prepare.table import read_table
from lavender.runtime.errors import DataError

ROWS = [["a.mp4", 'she said "hi", twice'], ["b.mp4", "two\nlines"]]
CSV = 'video,caption\na.mp4,"she said ""hi"", twice"\nb.mp4,"two\nlines"\n'


def table_of(folder: Path, content: str | bytes, name: str = "t.csv", encoding: str = ""):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, encoding)


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        CSV.replace("caption\n", "caption\r\n").replace('twice"\n', 'twice"\r\n'),
        "\ufeff" + CSV,
        CSV + "\n\n",
        CSV.rstrip("\n"),
        "video;caption\n" + CSV.split("\n", 1)[1].replace("mp4,", "mp4;"),
        "video|caption\n" + CSV.split("\n", 1)[1].replace("mp4,", "mp4|"),
        'video,caption,\na.mp4,"she said ""hi"", twice",\nb.mp4,"two\nlines",\n',
        " video , caption \n" + CSV.split("\n", 1)[1],
        CSV.encode("utf-16"),
        "sep=;\nvideo;caption\n" + CSV.split("\n", 1)[1].replace("mp4,", "mp4;"),
        CSV.replace("mp4,", "mp4, "),
    ],
    ids=[
        "plain",
        "crlf",
        "bom",
        "blank lines",
        "no end",
        "semicolons",
        "bars",
        "comma at the end",
        "blanks",
        "utf-16",
        "sep",
        "blank",
    ],
)
def test_csv(tmp_path: Path, content: str | bytes):
    table = table_of(tmp_path, content)
    assert table.columns == ["video", "caption"]
    assert [cells for _, cells in table.rows] == ROWS


def test_each_row_knows_its_line(tmp_path: Path):
    table = table_of(tmp_path, 'video,caption\na,"two\nlines"\n\nb,one\n')
    assert [line for line, _ in table.rows] == [2, 5]
    assert table.where(5) == f"{tmp_path / 't.csv'}, line 5"


def test_a_tsv_keeps_its_commas(tmp_path: Path):
    table = table_of(tmp_path, "video\tcaption\na\tone, two; three\n", "t.tsv")
    assert table.rows == [(2, ["a", "one, two; three"])]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ('a\t"Stop" he said\nb\tand "go"\n', [["a", '"Stop" he said'], ["b", 'and "go"']]),
        ('a\t"Stop he said\nb\tgo"\n', [["a", '"Stop he said'], ["b", 'go"']]),
        ('a\t"Stop ""now"""\nb\tgo\n', [["a", 'Stop "now"'], ["b", "go"]]),
        ('a\t"Stop\nnow"\nb\tgo\n', [["a", "Stop\nnow"], ["b", "go"]]),
    ],
)
def test_quotes_in_a_tsv_are_signs_of_the_text_or_those_of_a_csv(tmp_path: Path, content: str, rows: list[list[str]]):
    assert [cells for _, cells in table_of(tmp_path, f"video\tcaption\n{content}", "t.tsv").rows] == rows


def test_an_endless_quote_in_an_uneven_tsv(tmp_path: Path):
    with pytest.raises(DataError, match="line 2"):
        table_of(tmp_path, 'video\tcaption\na\t"Stop\nb\n', "t.tsv")


@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_json(tmp_path: Path, name: str):
    entries = ['{"video": "a", "captions": ["x", "y"], "n": 3}', '{"video": "b", "captions": " z ", "extra": null}']
    content = f"[{','.join(entries)}]" if name == "t.json" else "\n\n".join(entries)
    table = table_of(tmp_path, content, name)
    assert table.columns == ["video", "captions", "n", "extra"]
    assert [cells for _, cells in table.rows] == [["a", '["x", "y"]', "3", ""], ["b", "z", "", ""]]


def test_a_column_without_a_name(tmp_path: Path):
    """Such as the index that pandas writes."""
    assert table_of(tmp_path, ",video,caption\n0,a,b\n").columns == ["(column 1)", "video", "caption"]


def test_line_ends_of_an_old_mac(tmp_path: Path):
    assert table_of(tmp_path, "video,caption\ra,b\rc,d\r").rows == [(2, ["a", "b"]), (3, ["c", "d"])]


def test_a_text_may_hold_other_line_ends(tmp_path: Path):
    content = '{"video": "a", "caption": "one\u2028two\u0085three"}\n'
    assert table_of(tmp_path, content, "t.jsonl").rows == [(1, ["a", "one\u2028two\u0085three"])]


def test_another_encoding_is_named(tmp_path: Path):
    content = "video,caption\na,café\n".encode("cp1252")
    with pytest.raises(DataError, match=r"t\.csv.*--encoding"):
        table_of(tmp_path, content)
    assert table_of(tmp_path, content, encoding="cp1252").rows == [(2, ["a", "café"])]
    utf8 = content.decode("cp1252")
    assert table_of(tmp_path, utf8, encoding="cp1252").rows == [(2, ["a", "café"])]
    with pytest.raises(DataError, match="--encoding"):
        table_of(tmp_path, content, encoding="klingon")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('video,caption\na,fine\nb,"never ends\nc,x\nd,y\n', ["line 3", "quote"]),
        ('video,caption\na,"he said "hi""\n', ["line 2", "quote"]),
        ("video,Video\na,b\n", ["line 1", "'video'"]),
        ("video,caption\na\n", ["line 2", "1 cells", "2 columns"]),
        ("video,caption\na,one, two\n", ["line 2", "3 cells", "','"]),
        ("video,caption\n", ["no rows"]),
        ("", ["empty"]),
    ],
    ids=["endless quote", "broken quote", "two of a name", "short row", "long row", "no rows", "empty"],
)
def test_bad_csv(tmp_path: Path, content: str, words: list[str]):
    with pytest.raises(DataError) as caught:
        table_of(tmp_path, content)
    assert [word for word in ("t.csv", *words) if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.json", '{"video": "a"}', ["list"]),
        ("t.json", '[{"video": "a"}, 3]', ["entry 1"]),
        ("t.json", '[{"video": "a",}]', ["line 1", "column"]),
        ("t.json", '{"video": "a"}\n{"video": "b"}\n', [".jsonl"]),
        ("t.jsonl", '{"video": "a"}\n{"video": \n', ["line 2", "column"]),
    ],
)
def test_bad_json(tmp_path: Path, name: str, content: str, words: list[str]):
    with pytest.raises(DataError) as caught:
        table_of(tmp_path, content, name)
    assert [word for word in (name, *words) if word not in str(caught.value)] == []


def test_a_missing_table(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.csv.*--table"):
        read_table(tmp_path / "none.csv")
