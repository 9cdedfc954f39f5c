"""Where repaired copies go, and links to the files that need no repair."""

import os
from dataclasses import dataclass
from pathlib import Path

from lavender.runtime.errors import DataError


@dataclass(frozen=True)
class Repaired:
    """A repaired copy.

    Args:
        path: of its file or folder; removed: how many were left out, of what `unit` says; option: which reads it.
    """

    path: Path
    removed: int
    unit: str
    option: str


def own_folder(folder: Path, original: Path) -> Path:
    """`folder`, made where it is not there. DataError where it is the folder of the originals."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.resolve() == original.resolve():
        raise DataError(f"{folder}: the originals are in this folder, and are not overwritten; give another --fix")
    return folder


def link(target: Path, original: Path) -> None:
    """Makes `target` lead to a file and its line index; what an earlier repair left there is replaced."""
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
