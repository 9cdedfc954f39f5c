from pathlib import Path

import pytest

from lavender.demo.tour import tour
from lavender.runtime.errors import ConfigError


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"not empty and no earlier demo's"):
        tour(tmp_path, 1)
    assert (tmp_path / "thesis.tex").exists()
