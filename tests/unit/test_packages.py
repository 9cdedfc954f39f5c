"""pyproject.toml and requirements.txt name the same packages."""

import itertools
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def names(lines: list[str]) -> set[str]:
    return {re.split(r"[<>=\[ #]", line)[0].lower() for line in lines if line.strip() and not line.startswith("#")}


def test_what_is_installed_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    assert names(asked) == names((ROOT / "requirements.txt").read_text().splitlines())
