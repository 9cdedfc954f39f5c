"""Roles of a table's columns: guessed from their names, or given by the user."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lavender.prepare.table import Table
from lavender.runtime.errors import DataError
from lavender.runtime.quoting import shown

# Role → names of such a column, compared without case, blanks, dashes and underscores; the first match wins.
NAMES = {
    "video": (
        *("video", "videoid", "videoname", "videofile", "videopath", "videofilename", "clip", "clipid", "clipname"),
        *(
            "file",
            "filename",
            "filepath",
            "path",
            "vid",
            "image",
            "imageid",
            "imagefile",
            "gif",
            "gifname",
            "key",
            "id",
        ),
    ),
    "caption": ("caption", "captions", "sentence", "sentences", "description", "text", "title"),
    "question": ("question", "query", "q"),
    "answer": ("answer", "answertext", "label", "correct", "correctanswer", "answeridx", "answerindex", "target"),
    "split": ("split", "set", "subset", "partition", "fold"),
    "options": ("options", "choices", "candidates", "multichoiceoptions"),
}
_OPTION = re.compile(r"(?:options?|choice|candidate|opt|o|a)_?\s*(\d+|[a-h])", re.IGNORECASE)


@dataclass
class Columns:
    """Role → number of the column; options in order."""

    single: dict[str, int]
    options: list[int] = field(default_factory=list)

    def describe(self, table: Table) -> str:
        """The guessed roles, for the user to check."""
        words = [f"{meaning} = {table.columns[number]}" for meaning, number in self.single.items()]
        if self.options:
            words.append(f"{len(self.options)} options = {', '.join(table.columns[number] for number in self.options)}")
        used = {*self.single.values(), *self.options}
        rest = [name for number, name in enumerate(table.columns) if number not in used]
        return f"{table.path}: " + "; ".join(words) + (f"; not used: {', '.join(rest)}" if rest else "")


def find_columns(table: Table, given: Mapping[str, str]) -> Columns:
    """Determines the role of each column.

    Args:
        given: role → column name, as set by the user; "": there is no such column.

    Raises:
        DataError: a named column is missing, no column has the videos, or none has texts about them.
    """
    names = [_plain(name) for name in table.columns]
    single: dict[str, int] = {}
    for meaning, name in given.items():
        if name in table.columns:
            single[meaning] = table.columns.index(name)
    options = _options(table.columns, set(single.values()))
    taken = {*single.values(), *options}
    for meaning, known in NAMES.items():
        found = [names.index(name) for name in known if name in names and names.index(name) not in taken]
        if meaning not in given and found:
            single[meaning] = found[0]
            taken.add(found[0])
    if "options" in single:
        options = []
    advice = f"the columns are {', '.join(map(shown, table.columns))}; say which: --columns video=NAME caption=NAME"
    if "video" not in single:
        raise DataError(f"{table.path}: no column names the videos; {advice}")
    if "caption" not in single and "question" not in single:
        raise DataError(f"{table.path}: no column holds captions or questions; {advice}")
    return Columns(single, options)


def check_given(tables: Sequence[Table], given: Mapping[str, str]) -> None:
    """Raises DataError for a column of --columns that no table has."""
    for meaning, name in given.items():
        if meaning not in NAMES:
            raise DataError(f"--columns {meaning}={name}: a column is one of {', '.join(NAMES)}")
        if name and not any(name in table.columns for table in tables):
            known = "; ".join(f"{table.path}: {', '.join(table.columns)}" for table in tables)
            raise DataError(f"--columns {meaning}={name}: no table has such a column ({known})")


def _options(columns: Sequence[str], taken: set[int]) -> list[int]:
    """Columns option_0 …, choice 1 …, a0 …, option_a …: at least two, sorted by number."""
    found: dict[str, dict[int, int]] = {}
    for number, name in enumerate(columns):
        match = _OPTION.fullmatch(name.strip())
        if match and number not in taken:
            sign = match[1].lower()
            place = int(sign) if sign.isdigit() else ord(sign) - ord("a")
            found.setdefault(name[: match.start(1)].lower(), {})[place] = number
    signs = [name.strip().lower() for name in columns]
    plain = {place: signs.index(sign) for place, sign in enumerate("abcdefgh") if sign in signs}
    found["plain letters"] = plain if plain.keys() == set(range(len(plain))) else {}
    groups = [group for group in found.values() if len(group) > 1]
    return [number for _, number in sorted(max(groups, key=len).items())] if groups else []


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()
