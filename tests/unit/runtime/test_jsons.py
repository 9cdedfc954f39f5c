import json
from typing import Any

import pytest

from lavender.runtime.jsons import DEEPEST, load_json

LONG = "9" * 5000


@pytest.mark.parametrize(
    "value", [{"a": [1, -2.5, None, True, "größer"]}, [], "x", 10**4000, {"s": LONG}, json.loads("[" * 100 + "]" * 100)]
)
def test_what_json_reads_is_read(value: Any):
    assert load_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"a": 1,\n "b": x}', 2, 7),
        (f'{{"a": 1,\n "b": {LONG}}}', 2, 7),
        (f'["{LONG}", "\\"{LONG}",\n -{LONG}]', 2, 2),
        (f"[1.{LONG},\n{LONG}.5,\n{LONG}e1, {LONG}]", 3, 5005),
        ("[\n" * 100_000, DEEPEST + 1, 1),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), 1, DEEPEST + 1),
        ('{"a":' * 5000 + "1" + "}" * 5000, 1, 5 * DEEPEST + 1),
        ('["[[[",\n' + "[" * 500 + "]" * 501, 2, DEEPEST),
    ],
)
def test_every_fault_has_its_place(text: str, line: int, column: int):
    with pytest.raises(json.JSONDecodeError) as raised:
        load_json(text)
    assert (raised.value.lineno, raised.value.colno) == (line, column)


def test_hooks_are_passed_on():
    assert load_json('{"a": 1}', object_pairs_hook=list) == [("a", 1)]
