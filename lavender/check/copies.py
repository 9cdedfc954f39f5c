"""Folders of repaired copies, and links to files that need no repair."""

import os
from dataclasses import dataclass
from pathlib import Path

from lavender.runtime.errors import DataError


@dataclass(frozen=True)
class Repaired:
    """Repaired copy.

    Args:
        path: its file or folder; removed: number of items left out, counted in `unit`; option: option that reads it.
    """

    path: Path
    removed: int
    unit: str
    option: str


def own_folder(folder: Path, original: Path) -> Path:
    """Creates `folder` if missing. DataError if it is the folder of the originals."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.resolve() == original.resolve():
        raise DataError(f"{folder}: the originals are in this folder, and are not overwritten; give another --fix")
    return folder


def link(target: Path, original: Path) -> None:
    """Links `target` to a file, and to its line index; replaces links of an earlier repair."""
    target.parent.mkdir(parents=True, exist_ok=True)
    index = original.with_suffix(".lineidx")
    for name, file in [
        (target, original),
        (target.with_suffix(".lineidx"), index),
        (Path(f"{target.with_suffix('.lineidx')}.8b"), Path(f"{index}.8b")),
    ]:
        name.unlink(missing_ok=True)
        if file.exists():
            os.symlink(file.resolve(), name)
