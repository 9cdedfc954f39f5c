"""Names of tars: a folder, a tar, or a pattern with braces (`{00000..00012}`, `{a,b}`) or `*`."""

import glob
import re
from pathlib import Path

from lavender.data.image_folders import walk
from lavender.runtime.errors import DataError
from lavender.runtime.files import looked_from
from lavender.runtime.quoting import shown

_MOST = 1_000_000  # maximum names from a pattern
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_REMOTE = re.compile(r"(pipe:|[A-Za-z][A-Za-z0-9+.-]*://)")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2")


def find_shards(pattern: str) -> list[Path]:
    """Tars in a fixed order: those of a folder sorted by name, at any depth; those of a pattern in its own order.

    A pattern with braces also lists tars that are missing.

    Raises:
        DataError: the name is a remote address, or there is no tar.
    """
    if _REMOTE.match(pattern):
        raise DataError(
            f"--shards {shown(pattern)}: only local files are read; download the shards, or mount their store"
        )
    path = Path(pattern)
    if path.is_dir():
        tars = sorted(Path(place, name) for place, names in walk(path) for name in names if not name.startswith("."))
        packed = [tar for tar in tars if tar.name.lower().endswith(_PACKED)]
        tars = [tar for tar in tars if tar.suffix.lower() == ".tar"]
        if not tars:
            hint = f"; {packed[0]} is compressed: unpack it to a .tar" if packed else ""
            raise DataError(f"{path}: no .tar is there{hint}; check --shards")
        return tars
    if path.exists():
        return [path]
    tars = []
    for name in expand(pattern):
        tars += map(Path, sorted(glob.glob(name)) if glob.has_magic(name) and not Path(name).exists() else [name])
    if not any(tar.exists() for tar in tars):
        raise DataError(f"{shown(pattern)}: there is no such tar or folder{looked_from(pattern)}; check --shards")
    return tars


def expand(pattern: str) -> list[str]:
    """Expands braces as a shell does: `{08..10}` is 08, 09, 10; `{a,b}` is a, b.

    Raises:
        DataError: the pattern gives too many names.
    """
    for braces in _BRACES.finditer(pattern):
        if counted := _RANGE.fullmatch(braces[1]):
            first, last = int(counted[1]), int(counted[2])
            if abs(last - first) >= _MOST:
                raise DataError(f"--shards {shown(pattern)}: {shown(braces[0])} stands for more than {_MOST:,} names")
            padded = any(end.startswith("0") and len(end) > 1 for end in counted.groups())
            width = max(map(len, counted.groups())) if padded else 0
            step = 1 if last >= first else -1
            choices = [f"{number:0{width}}" for number in range(first, last + step, step)]
        elif "," in braces[1]:
            choices = braces[1].split(",")
        else:
            continue  # as in a shell, braces around one word are literal
        rest = expand(pattern[braces.end() :])
        if len(choices) * len(rest) > _MOST:
            raise DataError(f"--shards {shown(pattern)} stands for more than {_MOST:,} names")
        before = pattern[: braces.start()]
        return [f"{before}{choice}{end}" for choice in choices for end in rest]
    return [pattern]
