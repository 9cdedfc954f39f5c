"""Detection of other projects' annotation files, for errors that say what they are and what to write instead."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PAGE = "_datasets/README.md"
# The format expected instead of another project's file: an example, and the section of PAGE that describes it.
_TEXTS = "Text files"
EXPECTED = {
    "pretrain": ('{"train": {"video0": ["a man sings"], …}, "val": …}', _TEXTS),
    "": ('{"train": [{"video": "video0", …}, …], "val": […], "test": […]}', _TEXTS),
    "retrieval": ('{"train": [{"video": "video0", "caption": "a man sings"}, …], "val": […], "test": […]}', _TEXTS),
    "qaoe": (
        '{"train": [{"video": "video0", "question": "who sings?", "answer": 0, "answer_text": "man"}, …], '
        '"val": […], "test": […], "ans2label": {"man": 0, …}}',
        _TEXTS,
    ),
    "qamc": (
        '{"train": [{"video": "video0", "question": "who sings?", "option_0": "a man", "option_1": "a bird", …, '
        '"answer": 0}, …], "val": […], "test": […]}',
        _TEXTS,
    ),
    "captioning": ('a line a video: video0, a tab, [{"caption": "a man sings"}, …]', "Captioning folders"),
    "references": ('{"annotations": [{"image_id": "video0", "caption": "a man sings"}, …]}', "Captioning folders"),
}
_VIDEO_KEYS = ("video_id", "videoID", "video_name", "vid_id", "gif_name", "clip_name", "image_id", "vid", "youtube_id")
_MSRVTT = "MSRVTT's own annotation file (videos and sentences)"
_MSRVTT_1K = "the CSV of MSRVTT's 1k test split"
_DIDEMO = "DiDeMo's own annotation file (a list of descriptions with times)"
_XU_QA = "the official question list of MSRVTT-QA or MSVD-QA"
_TGIF = "TGIF-QA's own table (tab-separated, a line a question)"
_MSVD = "MSVD's own corpus of descriptions (CSV, a line a description)"
_LSMDC = "LSMDC's own table (tab-separated, a line a clip)"
CONVERTED = {  # owner of the files → name in _tools/convert_annotations.py
    _MSRVTT: "msrvtt",
    _MSRVTT_1K: "msrvtt",
    _DIDEMO: "didemo",
    _XU_QA: "msrvtt-qa (or msvd-qa)",
    _TGIF: "tgif-action (or tgif-transition, tgif-frame)",
    _MSVD: "msvd",
    _LSMDC: "lsmdc (or lsmdc-mc, lsmdc-fib)",
}
_READ = 2**16  # characters of a table that are inspected


def advice(content: Any, expected: str) -> str:
    """Says what a JSON value of another project is and what to write instead; "" if it is not recognised.

    Args:
        content: value of the whole file; expected: a key of `EXPECTED`, such as a configuration's `type`.
    """
    name = _name_of(content)
    return _advice(name, expected)


def table_advice(text: str, expected: str) -> str:
    """Like `advice`, for a text that is not one JSON value: a table, or one JSON value per line. "" otherwise."""
    name = _name_of_table(text[:_READ])
    return _advice(name, expected)


def file_advice(path: Path, expected: str) -> str:
    """Like `advice`, for any kind of file."""
    with suppress(OSError, UnicodeError, ValueError, RecursionError):
        text = path.read_text(encoding="utf-8-sig")
        if not text.lstrip().startswith(("{", "[")):
            return table_advice(text, expected)
        with suppress(json.JSONDecodeError):
            return advice(json.loads(text), expected)
        return table_advice(text, expected)
    return ""


def item_advice(item: Any) -> str:
    """Sentence part with the other key under which an item without `video` has its id; else ""."""
    found = next((key for key in _VIDEO_KEYS if isinstance(item, dict) and key in item), None)
    return f'; it has "{found}": rename it "video"' if found else ""


def _advice(name: str, expected: str) -> str:
    if not name:
        return ""
    example, section = EXPECTED[expected]
    by_tool = f"`python _tools/convert_annotations.py {CONVERTED[name]}` converts it; or " if name in CONVERTED else ""
    return f'this is {name}, which is not read as it is; {by_tool}write {example} (see {PAGE}, "{section}")'


def _name_of(content: Any) -> str:
    """Describes a JSON value in words; "" if it is not recognised."""
    if isinstance(content, list):
        first = content[0] if content else None
        if not isinstance(first, Mapping):
            return ""
        known = next((name for name, fits in _ITEMS if fits(first)), "")
        return known or "a list of items without splits"
    if not isinstance(content, Mapping):
        return ""
    return next((name for name, fits in _OBJECTS if fits(content)), "")


def _has(*keys: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda content: all(key in content for key in keys)


def _is_activitynet(content: Mapping[str, Any]) -> bool:
    first = next(iter(content.values()), None)
    return isinstance(first, Mapping) and "sentences" in first and "timestamps" in first


def _is_youcook2(content: Mapping[str, Any]) -> bool:
    videos = content.get("database")
    first = next(iter(videos.values()), None) if isinstance(videos, Mapping) else None
    return isinstance(first, Mapping) and ("recipe_type" in first or "recipe_type" in content)


# Test of an item of a JSON list → its data set; the first match counts.
_ITEMS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("VATEX's own annotation file (a list of videos with enCap and chCap)", _has("enCap")),
    (_DIDEMO, _has("description", "times")),
    (_XU_QA, _has("question", "answer", "video_id")),
    ("the official question list of ActivityNet-QA", _has("question", "video_name")),
    ("an official list of questions", _has("question", "q_id")),
    ("a list of captions without splits", lambda item: "caption" in item or "sentence" in item),
    ("a list of questions without splits", _has("question")),
)
_OBJECTS: tuple[tuple[str, Callable[[Mapping[str, Any]], bool]], ...] = (
    (_MSRVTT, _has("videos", "sentences")),
    (_MSRVTT, _has("sentences")),
    ("a COCO captions file (images and annotations)", _has("annotations")),
    ("YouCook2's own annotation file (a database of recipes)", _is_youcook2),
    ("an annotation file of ActivityNet's kind (a database of videos)", _has("database")),
    ("an annotation file of ActivityNet Captions (timestamps and sentences of each video)", _is_activitynet),
)


def _name_of_table(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    if lines[0].lstrip().startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            values = [json.loads(line) for line in lines[:2]]
            return "a file of JSON lines" if len(values) == 2 and isinstance(values[0], dict) else ""
        return ""
    for mark, kind in (
        ("\t", "a tab-separated table"),
        (",", "a comma-separated table"),
        (";", "a table of semicolons"),
    ):
        if mark not in lines[0]:
            continue
        columns = [column.strip().strip('"').lower() for column in next(csv.reader(lines[:1], delimiter=mark))]
        if name := _name_of_columns(columns, lines):
            return name
        if len(lines) > 1 and mark in lines[1] and not columns[1].startswith("["):
            return f"{kind} ({_shown(columns)})"
    return ""


def _name_of_columns(columns: list[str], lines: list[str]) -> str:
    if "gif_name" in columns:
        return _TGIF
    if {"videoid", "workerid", "description"} <= set(columns):
        return _MSVD
    if re.match(r"\d{4}_.+_\d\d\.\d\d\.\d\d\.\d{3}-\d\d\.\d\d\.\d\d\.\d{3}", lines[0]):
        return _LSMDC
    if {"vid_key", "video_id", "sentence"} <= set(columns):
        return _MSRVTT_1K
    return ""


def _shown(columns: Iterable[str]) -> str:
    text = ", ".join(column for column in columns if column)
    return text if len(text) <= 60 else f"{text[:57]}…"
