import pytest

from lavender.demo.tour import call
from lavender.runtime.errors import TrainingError


def test_a_script_that_fails_ends_the_tour():
    with pytest.raises(TrainingError, match=r"extract_tsv\.py ended with exit code 2"):
        call("_tools/extract_tsv.py", "--path=/nowhere/at_all")
