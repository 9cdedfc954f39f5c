"""Streaming reader of captions in a large text JSON: the file is never in memory as a whole."""

import codecs
import json
import re
from collections.abc import Iterator
from json import decoder
from typing import Any, BinaryIO

from lavender.data.annotations import first_caption
from lavender.runtime.jsons import is_deep

SPLITS = ("train", "val")
_BLOCK = 1 << 22  # bytes per read
_BLANK = re.compile(r"[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:[ \t\n\r]*")
_NEXT = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*")


class UnusualError(Exception):
    """The file is broken or unusual; a reader of whole files must take over and report the fault."""


class CaptionReader:
    """Reads `{"train": {video id: caption or list of captions, …}, "val": …}` in blocks.

    Attributes:
        keys: top-level key read so far → whether its value is not empty.
    """

    def __init__(self, file: BinaryIO):
        self.keys: dict[str, bool] = {}
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder(object_pairs_hook=_without_repeats).scan_once  # type: ignore[attr-defined]
        self._text, self._at, self._is_whole = "", 0, False

    def captions(self) -> Iterator[tuple[str, str, str]]:
        """Yields split, video id and first caption in the order of the file; ids may repeat.

        Raises:
            UnusualError: the file needs another reader. OSError: the file cannot be read.
        """
        try:
            yield from self._splits()
        except (ValueError, RecursionError) as fault:  # not UTF-8, not JSON, or beyond Python's limits
            raise UnusualError(str(fault)) from None

    def _splits(self) -> Iterator[tuple[str, str, str]]:
        self._open_object()
        mark = ","
        while mark == ",":
            key = self._key()
            if key in self.keys:
                raise UnusualError(f"{key} comes twice")
            if key in SPLITS and self._peek() == "{":
                self._open_object()
                self.keys[key] = False
                for name, text in self._members():
                    self.keys[key] = True
                    yield key, name, text
                mark = self._mark()
            else:
                value, mark = self._value()
                self.keys[key] = bool(value)
                if is_deep([value]) or (value and key in SPLITS):
                    raise UnusualError(f"{key} is no object")
        self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
        while self._more():
            self._at = _BLANK.match(self._text).end()  # type: ignore[union-attr]
        if self._at < len(self._text):
            raise UnusualError("something follows the object")

    def _members(self) -> Iterator[tuple[str, str]]:
        """Yields id and caption of each member of an object, after its opening bracket."""
        if self._peek() == "}":
            self._at += 1
            return
        while True:
            text, at = self._text, self._at
            try:
                if text[at] != '"':
                    raise ValueError("no key")
                name, at = decoder.scanstring(text, at + 1, True)  # type: ignore[attr-defined]
                value, at = self._scan(text, _COLON.match(text, at).end())  # type: ignore[union-attr]
                found = _NEXT.match(text, at)
                mark = found[1]  # type: ignore[index]
            except (ValueError, IndexError, StopIteration, AttributeError, TypeError):  # cut by the end of the block
                self._more_or_fail()
                self._peek()
                continue
            self._at = found.end()  # type: ignore[union-attr]
            if type(value) is not str and _is_nested(value):
                raise UnusualError("more than a list of captions")
            yield name, first_caption(value)
            if mark == "}":
                return

    def _open_object(self) -> None:
        if self._peek() != "{":
            raise UnusualError("no object")
        self._at += 1

    def _key(self) -> str:
        self._peek()
        while True:
            try:
                if self._text[self._at] != '"':
                    raise UnusualError("no key")
                key, at = decoder.scanstring(self._text, self._at + 1, True)  # type: ignore[attr-defined]
                self._at = _COLON.match(self._text, at).end()  # type: ignore[union-attr]
                return key
            except (ValueError, IndexError, AttributeError):
                self._more_or_fail()

    def _value(self) -> tuple[Any, str]:
        """Reads a value; returns it and the character after it: a comma or the closing bracket."""
        self._peek()
        while True:
            try:
                value, at = self._scan(self._text, self._at)
                found = _NEXT.match(self._text, at)
                mark = found[1]  # type: ignore[index]
            except (ValueError, IndexError, StopIteration, TypeError):
                self._more_or_fail()
                continue
            self._at = found.end()  # type: ignore[union-attr]
            return value, mark

    def _mark(self) -> str:
        mark = self._peek()
        if mark not in (",", "}") or not mark:
            raise UnusualError("no comma")
        self._at += 1
        self._peek()
        return mark

    def _peek(self) -> str:
        """The next non-blank character; "" at the end of the file."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more_or_fail(self) -> None:
        if not self._more():
            raise UnusualError("the file ends too early, or is no JSON")

    def _more(self) -> bool:
        """Reads another block, larger if the last did not suffice; drops what was read before `_at`."""
        if self._is_whole:
            return False
        block = self._file.read(max(_BLOCK, len(self._text) - self._at))
        self._is_whole = not block
        self._text, self._at = self._text[self._at :] + self._decoder.decode(block, final=not block), 0
        return True


def _is_nested(value: Any) -> bool:
    """Whether a value is an object, or a list with lists or objects."""
    return type(value) is dict or (type(value) is list and any(type(item) in (dict, list) for item in value))


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UnusualError("a key comes twice in an object")
    return found
