"""Quoting of values from users' files in messages: short and on one line, for any value."""

import json
import re
import reprlib
from itertools import islice
from pathlib import PurePath
from typing import Any

LIMIT = 100  # maximum characters of a quoted value
_NUMBER_BITS = 256  # longer integers are described: decimal conversion is slow and limited by Python
_GAP = "..."
# Line breaks, control characters, text direction marks, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def shown(value: Any, limit: int = LIMIT) -> str:
    """`repr` of a value in one line of at most `limit` characters; long ones keep beginning and end.

    Time and memory are bounded: nested, huge and recursive values are cut before they are formatted.
    """
    return _clipped(_REPR.repr(value), limit)


def shown_json(value: Any, limit: int = LIMIT) -> str:
    """Like `shown`, in JSON notation: for values in a JSON file."""
    return _clipped(_JSON.repr(value), limit)


def one_line(text: str, limit: int = LIMIT) -> str:
    """Text without quotes, in one line of at most `limit` characters."""
    return _clipped(_UNSAFE.sub(_escape, _clipped(text, limit)), limit)


def _clipped(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = (limit - len(_GAP)) // 3
    return f"{text[: limit - len(_GAP) - tail]}{_GAP}{text[len(text) - tail :]}"


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(letter, f"\\u{ord(letter):04x}")


class _Repr(reprlib.Repr):
    """The standard library's bounded `repr`, without its unbounded cases. A method's name ends with the type's."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 4, 4, 4

    def repr_str(self, value: str, level: int) -> str:
        return repr(_clipped(value, LIMIT))

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[:LIMIT])

    def repr_int(self, value: int, level: int) -> str:
        bits = value.bit_length()
        return str(value) if bits <= _NUMBER_BITS else f"a whole number of about {int(bits * 0.30103) + 1:,} digits"

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        if value and level <= 0:
            return f"{{{_GAP}}}"
        pairs = [
            f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}"
            for key, item in islice(value.items(), self.maxdict)
        ]
        return "{" + ", ".join([*pairs, _GAP] if len(value) > self.maxdict else pairs) + "}"

    def repr_set(self, value: set[Any], level: int) -> str:
        return f"a set of {len(value):,}"  # the base class sorts it

    def repr_instance(self, value: Any, level: int) -> str:
        if isinstance(value, str | PurePath):
            return self.repr_str(str(value), level)
        if value is None or type(value) in (bool, float):
            return repr(value)
        return f"a {type(value).__name__}"  # its own repr may be endless


class _Json(_Repr):
    def repr_str(self, value: str, level: int) -> str:
        return _UNSAFE.sub(_escape, json.dumps(_clipped(value, LIMIT), ensure_ascii=False))

    def repr_instance(self, value: Any, level: int) -> str:
        known = value is None or type(value) in (bool, float)
        return json.dumps(value) if known else super().repr_instance(value, level)


_REPR, _JSON = _Repr(), _Json()
