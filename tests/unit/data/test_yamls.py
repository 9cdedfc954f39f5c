import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lavender.data.yamls import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_NODES, read_yaml
from lavender.runtime.errors import DataError

BASE_60 = ":".join(["1"] * 20_000)


def bomb(start: str, item: str) -> str:
    """Each line repeats the one before nine times: 9^9 values from 500 bytes."""
    names = "abcdefghi"
    lines = [f"a: &a {start}"]
    lines += [f"{new}: &{new} {item.format(', '.join([f'*{old}'] * 9))}" for old, new in pairwise(names)]
    return "\n".join(lines)


def read(path: Path, content: str | bytes) -> Any:
    (path / "x.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    start = time.perf_counter()
    try:
        return read_yaml(path / "x.yaml")
    finally:
        assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("img: a.tsv\ncaption: [b, c]\n", {"img": "a.tsv", "caption": ["b", "c"]}),
        ("a: &x [1, 1.5, true, null]\nb: *x\n", {"a": [1, 1.5, True, None], "b": [1, 1.5, True, None]}),
        ("a: &x {b: c}\nd:\n  <<: *x\n  b: e\n", {"a": {"b": "c"}, "d": {"b": "e"}}),
        ("a: 1:30\nb: 1:30.5\nc: 0x1F\nd: 1_000\n", {"a": "1:30", "b": "1:30.5", "c": 31, "d": 1000}),
        (f"a: {BASE_60}\nb: {BASE_60}.5\n", {"a": BASE_60, "b": f"{BASE_60}.5"}),
        ("[" * MAX_DEPTH + "]" * MAX_DEPTH, eval("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
        ("# nothing\n", None),
    ],
)
def test_what_is_read(tmp_path: Path, content: str, value: Any):
    assert read(tmp_path, content) == value


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        pytest.param(bomb("[x, x, x, x, x, x, x, x, x]", "[{}]"), ["line 3", f"{MAX_ALIASES} aliases"], id="lists"),
        pytest.param(bomb("{k: 1}", "{{<<: [{}]}}"), ["line 3", f"{MAX_ALIASES} aliases"], id="merges"),
        pytest.param("a: b\nc: " + "[" * 100_000, ["line 2", f"{MAX_DEPTH} levels"], id="deep"),
        pytest.param("a: b\nc:\n" + "- " * 100_000, ["line 3", f"{MAX_DEPTH} levels"], id="deep list"),
        pytest.param("? " * 100_000, ["line 1", f"{MAX_DEPTH} levels"], id="deep keys"),
        pytest.param("- a\n" * 250_000, [f"line {MAX_NODES}", f"{MAX_NODES:,} values"], id="many"),
        pytest.param("#" * (MAX_BYTES + 1), [f"{MAX_BYTES + 1:,} bytes"], id="large"),
        pytest.param(f"a: b\nc: !!int {BASE_60}", ["line 2", "'1:1:1:", "int"], id="base 60"),
        pytest.param(f"a: b\nc: !!float {BASE_60}.5", ["line 2", "'1:1:1:", "float"], id="base 60 float"),
        pytest.param("a: b\nc: " + "9" * 5000, ["line 2", "'9999", "int"], id="digits"),
        pytest.param("a: b\nc: 2024-13-45", ["line 2", "'2024-13-45'"], id="date"),
        pytest.param("a: b\nc: !!bool maybe", ["line 2", "'maybe'"], id="bool"),
        pytest.param("img: a\ncaption: b\n'img': c\n", ["line 3", "'img'", "line 1"], id="twice"),
        pytest.param("a:\n  img: a\n  img: c\n", ["line 3", "'img'", "line 2"], id="twice inside"),
        pytest.param("&x img: a\n*x : c\n", ["line 2", "'img'", "line 1"], id="twice by alias"),
        pytest.param(f"? {'k' * 10_000}\n: 1\n? {'k' * 10_000}\n: 2\n", ["line 3", "'kkkk"], id="long key twice"),
        pytest.param("a: b\n? [c]\n: d\n", ["line 2", "key"], id="list as key"),
        pytest.param("a: b\nc: *" + "d" * 100_000, ["line 2", "alias"], id="unknown alias"),
        pytest.param("a: b\nc: !!python/object:os.system x\n", ["line 2", "python/object"], id="tag"),
        pytest.param("a: b\nc: \x01\n", ["line 2", "U+0001"], id="control"),
        pytest.param("%YAML 1." + "9" * 5000 + "\n--- a", [], id="version"),
        pytest.param(b"\xff", ["UTF-8"], id="bytes"),
    ],
)
def test_what_is_refused_is_told_in_short(tmp_path: Path, content: str | bytes, facts: list[str]):
    with pytest.raises(DataError) as raised:
        read(tmp_path, content)
    message = str(raised.value)
    assert message.startswith(str(tmp_path / "x.yaml"))
    assert all(fact in message for fact in facts), message
    assert len(message) < len(str(tmp_path)) + 400
    assert message.isprintable()


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"x\.yaml"):
        read_yaml(tmp_path / "x.yaml")
