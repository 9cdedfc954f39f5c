"""Record of how a data set was made, so that it can be extended and no other files are overwritten."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavender.runtime.errors import DataError
from lavender.runtime.files import atomic_file, refuse_overwriting


class Made:
    """`NAME.made.json` in the folder of a data set.

    Args:
        folder, name: folder and name of the data set; facts: how splits are drawn; with other facts, earlier draws are
            ignored.

    Attributes:
        drawn: video → split, for all videos whose split was ever drawn.
    """

    def __init__(self, folder: Path, name: str, facts: Mapping[str, Any]):
        self._folder, self._name, self._facts = folder, name, dict(facts)
        self._path = folder / f"{name}.made.json"
        self.drawn: dict[str, str] = {}
        self._is_ours = self._path.is_file()
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            if content["facts"] == self._facts:
                self.drawn = dict(content["drawn"])
        except (OSError, ValueError, LookupError, TypeError):
            return

    def refuse_strange(self, tasks: Sequence[str], tables: Iterable[Path], configs: Path) -> None:
        """Raises DataError if an output file exists that no command for this data set made."""
        name = self._name
        files = [self._folder / f"img_{name}.tsv", *(self._folder / f"txt_{name}-{task}.json" for task in tasks)]
        files += [self._folder / f"txt_{name}.json", self._folder / f"{name}-cap"]
        files += configs.glob(f"args_{name}-*.json")
        for file in files:
            refuse_overwriting(file, *tables, error=DataError)
            if file.exists() and not self._is_ours:
                raise DataError(
                    f"{file} is there, and was not made by this command, as {self._path.name} would say: choose "
                    "another --name or --output"
                )

    def write(self) -> None:
        """Writes the file."""
        with atomic_file(self._path) as file:
            file.write(json.dumps({"facts": self._facts, "drawn": self.drawn}, ensure_ascii=False).encode())
