"""Repaired copies of text files: without the samples that a run could not use."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavender.check.splits import Split
from lavender.check.videos import Decoded, Video, Videos
from lavender.data.annotations import read_json
from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, refuse_overwriting

REPAIRED = ("qaoe", "fib", "qamc", "retmc", "retrieval")  # types whose texts are a list of items


def can_repair(split: Split) -> bool:
    """Whether a copy of its text file can be repaired."""
    return split.config.type in REPAIRED


def write_repaired(
    splits: Sequence[Split], videos: Videos, decoded: Mapping[Video, Decoded], folder: Path
) -> dict[Path, int]:
    """Writes a copy of each text file without malformed and repeated items and those whose video is missing or broken.

    Returns:
        copy → items that were left out

    Raises:
        DataError: the copy would overwrite its original, or nothing would be left.
    """
    copies: dict[str, dict[str, Any]] = {}
    removed: dict[Path, int] = {}
    for place, split in enumerate(splits):
        if not can_repair(split):
            continue
        copy = copies.setdefault(split.where, dict(read_json(Path(split.where))))
        target = folder / Path(split.where).name
        refuse_overwriting(target, split.where, error=DataError, option="--fix")
        repeated = set(split.repeated)
        kept = [
            number
            for at, number in enumerate(split.numbers)
            if at not in repeated and _is_usable(videos.of[place][at], decoded)
        ]
        items = copy[split.name]
        removed[target] = removed.get(target, 0) + len(items) - len(kept)
        copy[split.name] = [items[number] for number in kept]
        if items and not kept:
            raise DataError(f"{split.where}: no {split.name} item would be left; nothing is written")
    if not copies:
        raise DataError("--fix repairs the texts of questions, multiple choice and retrieval, not captions")
    folder.mkdir(parents=True, exist_ok=True)
    for source, copy in copies.items():
        with atomic_file(folder / Path(source).name) as file:
            file.write((json.dumps(copy, ensure_ascii=False) + "\n").encode())
    return removed


def _is_usable(video: Video | None, decoded: Mapping[Video, Decoded]) -> bool:
    return video is not None and not (video in decoded and decoded[video].fault)
