"""Captions as arrays answer as a dictionary of all names of all videos does, which is the rule written down."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavender.data import caption_arrays
from lavender.data.annotations import CaptionTable
from lavender.data.ids import file_name, has_folder, plain, without_extension
from lavender.runtime.errors import DataError


class Slow:
    """The rule in dictionaries: name → caption, and name → the two ids that it could be."""

    def __init__(self, captions: dict[str, str]):
        self.texts, self.rivals = dict(captions), {}
        self.folders = any(map(has_folder, captions))
        for shorten in (without_extension, plain, file_name):
            owners: dict[str, str] = {}
            for name in captions:
                short = shorten(name)
                if short not in self.texts or short in owners:
                    owner = owners.setdefault(short, name)
                    self.texts.setdefault(short, captions[name])
                    if owner != name:
                        self.rivals[short] = owner, name

    def caption(self, video: str) -> str | tuple[str, str] | None:
        for shorten in (str, without_extension, plain, *(() if self.folders else (file_name,))):
            name = shorten(video)
            if name in self.texts:
                return self.rivals.get(name) or self.texts[name]
        return None


def few_hashes(name: bytes) -> bytes:
    return bytes([len(name) % 2]) + bytes(7)


NAMES = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "d/", "e/", "d\\", "./", "d//", "d/e/"]),
        st.sampled_from(["a", "b", "é", "e\u0301", "\ud83d"]),
        st.sampled_from(["", ".mp4", ".avi", ".mp4.mp4", ".1", ".JPG"]),
    ),
)


@pytest.mark.parametrize("hashed", [caption_arrays.name_hash, few_hashes], ids=["hashes", "hashes of many names"])
def test_ids_and_their_other_names(monkeypatch: pytest.MonkeyPatch, hashed: Callable[[bytes], bytes]):
    monkeypatch.setattr(caption_arrays, "name_hash", hashed)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(NAMES, max_size=8, unique=True), st.lists(NAMES, max_size=5))
    def check(names: list[str], asked: list[str]) -> None:
        captions = {name: f"caption {number}" for number, name in enumerate(names)}
        table, slow = CaptionTable(captions, "t"), Slow(captions)
        for name in names + asked:
            expected = slow.caption(name)
            if isinstance(expected, str):
                assert table.caption(name) == expected
                continue
            with pytest.raises(DataError) as raised:
                table.caption(name)
            parts = map(repr, expected) if expected else ["no caption"]
            assert all(part in str(raised.value) for part in parts)

    check()


@pytest.mark.parametrize("hashed", [caption_arrays.name_hash, few_hashes], ids=["hashes", "hashes of many names"])
def test_of_an_id_that_comes_again_the_last_caption_counts(monkeypatch: pytest.MonkeyPatch, hashed: Callable):
    monkeypatch.setattr(caption_arrays, "name_hash", hashed)
    texts = bytearray()
    builder = caption_arrays.CaptionBuilder(texts.extend)
    given = [("b.mp4", "one"), ("a", "two"), ("c.mp4", "three"), ("b.mp4", "four"), ("a", "five"), ("b.mp4", "six")]
    for name, text in given:
        builder.add(name, text)
    arrays = builder.arrays(np.frombuffer(texts, np.uint8))
    assert builder.repeated == ["b.mp4", "a"]
    table = CaptionTable.of(caption_arrays.InMemory(arrays), "t")
    assert [table.caption(name) for name in ("a", "b", "b.mp4", "c")] == ["five", "six", "six", "three"]
    assert not len(arrays.rivals), "an id is no rival of itself"
    assert table.positions_of(["c", "x", "b.avi", "a"]) == [0, 2, 3]
