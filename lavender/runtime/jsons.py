"""JSON from users' files: every fault is one kind of error, with line and column."""

import json
import re
import sys
from typing import Any

DEEPEST = 100  # maximum levels of lists and objects
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"?'
_BRACKETS = re.compile(rf"{_STRING}|[\[{{\]}}]", re.DOTALL)
_NUMBERS = re.compile(rf"{_STRING}|-?\d[\d.eE+-]*", re.DOTALL)


def load_json(text: str, **hooks: Any) -> Any:
    """Like `json.loads`, with one error for all faults, including numbers and nesting beyond Python's limits.

    Raises:
        json.JSONDecodeError: with the position of the fault.
    """
    try:
        value = json.loads(text, **hooks)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise _too_deep(text) from None
    except ValueError:
        place = _long_number(text)
        if place is None:
            raise
        digits = sys.get_int_max_str_digits()
        raise json.JSONDecodeError(f"a whole number of more than {digits:,} digits", text, place) from None
    if is_deep(value):
        raise _too_deep(text)
    return value


def is_deep(value: Any) -> bool:
    """Whether a value has more than `DEEPEST` levels of lists and objects."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _too_deep(text: str) -> json.JSONDecodeError:
    depth, place = 0, 0
    for match in _BRACKETS.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > DEEPEST:
            place = match.start()
            break
    return json.JSONDecodeError(f"nested too deeply, more than {DEEPEST} levels", text, place)


def _long_number(text: str) -> int | None:
    """Position of the first integer too long for Python; None if there is none."""
    limit = sys.get_int_max_str_digits()
    if not limit:
        return None
    digits = ((match, match[0].removeprefix("-")) for match in _NUMBERS.finditer(text))
    return next((match.start() for match, number in digits if len(number) > limit and number.isdigit()), None)
