"""Weights sharded over several files of one folder, with or without an index, in the layout of transformers."""

import json
import re
from pathlib import Path

from lavender.runtime.errors import LavenderError
from lavender.runtime.files import read_text
from lavender.runtime.jsons import load_json
from lavender.runtime.quoting import shown_json

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")  # in order of preference
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.(?:safetensors|bin|pt|pth))")

Shards = dict[Path, list[str]]  # file → names in it according to the index


def has_shards(folder: Path) -> bool:
    """Whether a folder has sharded weights, complete or not."""
    return _index(folder) is not None or any(part_of(path)[1] > 1 for path in folder.glob("*-of-*"))


def find_shards(folder: Path, error: type[LavenderError], index: Path | None = None) -> Shards:
    """All files of a folder's sharded weights; empty if there are none.

    Args:
        index: file that lists them, by default the folder's own.

    Raises:
        error: a file of the set is missing, or the index is invalid; the message names both.
    """
    index = index or _index(folder)
    found = _listed(index, error) if index else _numbered(folder, error)
    missing = [path.name for path in found if not path.is_file()]
    if missing:
        named = f"{index.name} names" if index else "the others' names count"
        raise error(
            f"{folder}: {', '.join(missing[:3])} is not there, of {len(found)} files of weights that {named}: copy or "
            f"download {'it' if len(missing) == 1 else f'all {len(missing)}'} too"
        )
    return found


def part_of(path: Path) -> tuple[int, int]:
    """(number, total) from a file's name: (2, 3) for `model-00002-of-00003.safetensors`, else (1, 1)."""
    match = _PART.fullmatch(path.name)
    return (int(match[2]), int(match[3])) if match else (1, 1)


def _index(folder: Path) -> Path | None:
    known = [folder / name for name in INDICES if (folder / name).is_file()]
    return next(iter([*known, *sorted(folder.glob("*.index.json"))]), None)


def _listed(index: Path, error: type[LavenderError]) -> Shards:
    try:
        content = load_json(read_text(index, error))
    except json.JSONDecodeError as fault:
        raise error(f"{index}, line {fault.lineno}: not valid JSON ({fault.msg}); copy or download it again") from fault
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise error(f'{index}: an index of weights has an object "weight_map", name to file; this has none')
    shards: Shards = {}
    for name, file in names.items():
        if not isinstance(file, str) or file != Path(file).name:
            raise error(f"{index}: {name} is in {shown_json(file)}; a name of a file beside the index is expected")
        shards.setdefault(index.parent / file, []).append(name)
    count = max(part_of(path)[1] for path in shards)
    if len(shards) < count:
        raise error(
            f"{index}: it names {len(shards)} of {count} files of weights, so it was cut or edited; copy or download "
            "it again, or delete it where all files are there"
        )
    return shards


def _numbered(folder: Path, error: type[LavenderError]) -> Shards:
    matches = [match for path in sorted(folder.glob("*-of-*")) if (match := _PART.fullmatch(path.name))]
    sets = sorted({(match[1], match[3], match[4]) for match in matches})
    if len(sets) > 1:
        names = ", ".join(f"{stem}-…-of-{count}{suffix}" for stem, count, suffix in sets)
        raise error(f"{folder}: holds several sets of split weights and no index: {names}; leave one in it")
    if not sets:
        return {}
    stem, count, suffix = sets[0]
    if int(count) > 1000 + len(matches):
        raise error(f"{folder}: {matches[0][0]} says that it is one of {int(count):,} files")
    return {folder / f"{stem}-{number:05}-of-{count}{suffix}": [] for number in range(1, int(count) + 1)}
