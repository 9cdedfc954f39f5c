"""Which checkpoint a path means."""

import os
from pathlib import Path

import pytest

from lavender.inference.opening import open_checkpoint
from lavender.runtime.errors import WeightsError


@pytest.mark.parametrize("outer", ["", "_snapshot"])
def test_a_folder_of_runs_names_the_newest(tmp_path: Path, outer: str):
    for age, name in enumerate(("_b", "_a", "_without")):
        run = tmp_path / outer / name
        run.mkdir(parents=True)
        (run / "results.json").write_text("{}")
        os.utime(run / "results.json", (age, age))
        if name != "_without":
            (run / "ckpt_violet_qaoe_1.pt").touch()
    with pytest.raises(WeightsError) as error:
        open_checkpoint(tmp_path)
    assert str(tmp_path / outer / "_a") in str(error.value)
    assert "2 runs" in str(error.value)
