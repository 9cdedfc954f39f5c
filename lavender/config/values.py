"""Values of options: types, bounds and error messages."""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from lavender.config.comparisons import Counts
from lavender.config.names import advice
from lavender.runtime.errors import ConfigError
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import shown_json

COMMAND_LINE = "command line"
_NO_LARGER = 2**63  # integers from here on fit into no array or tensor

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Option:
    """Option of the schema: allowed values, and text for `--help` and errors."""

    name: str
    kind: Any  # type hint of its field
    default: Any
    group: str
    help: str
    counts: Counts  # comparisons of two runs in which it counts
    choices: tuple = ()
    prefixes: tuple[str, ...] = ()  # besides the choices: any name with one of these prefixes
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # exclusive lower bound
    limit: float | None = None  # larger values are mistakes that would exhaust memory or time
    only: tuple[str, ...] = ()  # kinds of task that have it; empty for all

    def is_of(self, kind: str) -> bool:
        """Whether a kind of task has this option; an empty `kind` means any."""
        return not kind or not self.only or kind in self.only

    @property
    def named_choices(self) -> list[str]:
        """Choices, spelled as on the command line."""
        words = [
            str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in self.choices if choice != ""
        ]
        return words + [f"{prefix}NAME" for prefix in self.prefixes]

    @property
    def expected(self) -> str:
        """Describes valid values in words."""
        if self.choices:
            kind = "a list out of" if get_origin(self.kind) is list else "one of"
            return f"{kind} {', '.join(self.named_choices)}"
        words = _describe(self.kind)
        if self.above is not None:
            words += f", above {self.above}"
        if self.minimum is not None and self.maximum is not None:
            return f"{words}, from {self.minimum} to {self.maximum}"
        if self.minimum is not None:
            words += f", {self.minimum} or more"
        if self.maximum is not None:
            words += f", at most {self.maximum}"
        return words

    def check(self, value: Any, source: str) -> Any:
        """Converts a JSON value to this option's type.

        Raises:
            ConfigError: the value has another type, or is outside the choices or bounds.
        """
        if self.choices and get_origin(self.kind) is list:  # accepts a,b and a b
            words = [value] if isinstance(value, str) else value
            value = [part for word in words for part in word.split(",")] if _are_texts(words) else value
        try:
            converted = convert(value, self.kind)
        except ValueError:
            converted = None
        if converted is None or not all(self._in_range(item) for item in _items(converted)):
            name = f"--{self.name}" if source == COMMAND_LINE else self.name
            largest = max((abs(one) for one in _items(value) if isinstance(one, int | float)), default=0)
            expected = self.expected
            if largest >= _NO_LARGER:
                expected += ", below 2^63"
            elif self.limit is not None and largest > self.limit:
                expected += f", at most {self.limit:,}"
            raise ConfigError(f"{source}: {name} is {shown_json(value)}; expected {expected}")
        return converted

    def parse(self, words: Sequence[str]) -> Any:
        """Converts and checks the arguments after `--<name>` on the command line; no argument means true.

        Raises:
            ConfigError: as for `check`, or the argument is invalid JSON.
        """
        value: Any = list(words)
        if not words:
            value = True
        elif len(words) == 1:
            value = words[0]
            if value.startswith(("[", "{")) and _holds(self.kind, (list, dict)):
                value = parse_json(value, f"{COMMAND_LINE}: --{self.name}")
            elif _holds(self.kind, (int, float)):
                value = _as_number(value)
        return self.check(value, COMMAND_LINE)

    def _in_range(self, item: Any) -> bool:
        if self.choices:
            return item in self.choices or any(item.removeprefix(prefix) not in ("", item) for prefix in self.prefixes)
        return (
            (self.minimum is None or item >= self.minimum)
            and (self.maximum is None or item <= self.maximum)
            and (self.above is None or item > self.above)
            and (self.limit is None or item <= self.limit)
        )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def convert(value: Any, kind: Any) -> Any:
    """Converts a JSON value to `kind` (a type hint).

    0, 1, "yes", "no" … are valid booleans, 3 is a valid float, 3.0 a valid integer, and a string a valid list of one.

    Raises:
        ValueError: the value does not fit.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _convert_to_first(value, parts)
    if origin is list:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list):
            return [convert(item, parts[0]) for item in items]
    elif origin is dict:
        if isinstance(value, dict):
            return {convert(key, parts[0]): convert(item, parts[1]) for key, item in value.items()}
    elif kind is Any:
        return value
    else:
        return _SCALARS[kind](value)
    raise ValueError(value)


def parse_json(text: str, source: str) -> Any:
    """Parses strict JSON: repeated keys and NaN are errors.

    Raises:
        ConfigError: with `source` and, if known, line and column.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name, count in Counter(names).items() if count > 1)
            raise ConfigError(f"{source}: the key {shown_json(twice)} is given twice in one object; remove one")
        return result

    def refuse(constant: str) -> float:
        raise ConfigError(f"{source}: {constant} is not JSON; write a number")

    try:
        return load_json(text, object_pairs_hook=once, parse_constant=refuse)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{source}: not valid JSON at {where}: {error.msg}") from error


def unknown_option(name: str, valid: Iterable[str], source: str) -> ConfigError:
    """Error for an unknown option, with the name that was probably meant."""
    dashes = "--" if source == COMMAND_LINE else ""
    hint = advice(name, valid, dashes)
    return ConfigError(f"{source}: unknown option {shown_json(dashes + name)}; {hint}")


def _convert_to_first(value: Any, kinds: tuple) -> Any:
    for kind in kinds:
        try:
            return convert(value, kind)
        except ValueError:
            continue
    raise ValueError(value)


def _as_boolean(value: Any) -> bool:
    if isinstance(value, bool | int | str):
        word = str(value).lower()
        if word in _WORDS:
            return _WORDS[word]
    raise ValueError(value)


def _as_integer(value: Any) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if whole and not isinstance(value, bool) and abs(value) < _NO_LARGER:
        return int(value)
    raise ValueError(value)


def _as_float(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError as error:
            raise ValueError(value) from error
        if math.isfinite(number):
            return number
    raise ValueError(value)


def _as_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(value)


_SCALARS: dict[Any, Callable[[Any], Any]] = {bool: _as_boolean, int: _as_integer, float: _as_float, str: _as_string}


def _as_number(word: str) -> int | float | str:
    """Command-line argument as a number, or unchanged, which `check` will reject."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _items(value: Any) -> list:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [value]


def _holds(kind: Any, kinds: tuple) -> bool:
    """Whether an argument for `kind`, or for a member of a union, may be of `kinds`."""
    members = get_args(kind) if get_origin(kind) is UnionType else (kind,)
    return any((get_origin(member) or member) in kinds for member in members)


def _describe(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return " or ".join(_describe(part) for part in parts)
    if origin is list:
        return f"a list of {'objects' if get_origin(parts[0]) is dict else 'strings'}"
    if origin is dict:
        return f"an object (name to {'number' if parts[1] is int else 'string'})"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[kind]
