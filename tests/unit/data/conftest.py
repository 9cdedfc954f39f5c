import itertools
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from lavender.data import caption_cache
from lavender.data.annotations import CaptionTable


@pytest.fixture(scope="session", params=["in memory", "in a file"])
def caption_table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """`caption_table(captions, where)`: a table of either form."""
    if request.param == "in memory":
        return CaptionTable
    folder, numbers = tmp_path_factory.mktemp("captions"), itertools.count()

    def from_file(captions: dict[str, Any], where: str) -> CaptionTable:
        if not captions:  # a file without captions of a split has no table
            return CaptionTable(captions, where)
        path = folder / f"txt_{next(numbers)}.json"
        path.write_text(json.dumps({"train": captions}))
        with mock.patch.object(caption_cache, "SMALLEST", 0):
            table = caption_cache.open_captions(path).tables["train"]
        table.where = where
        return table

    return from_file
