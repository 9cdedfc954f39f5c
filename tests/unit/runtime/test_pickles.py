"""Small pickles that cost much, in the place of each file that is a pickle or holds one."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lavender.data.index import load_id2lineidx
from lavender.engine.checkpoint import load_tensors
from lavender.models.checkpoint_folder import read_state
from lavender.runtime.errors import LavenderError
from lavender.runtime.pickles import check_pickle, check_torch_file


def doubled(times: int) -> bytes:
    """A tuple of a tuple of …, each with the one before twice: hashing it takes 2^times steps."""
    return b")" + b"".join(b"\x94h" + bytes([number]) + b"\x86" for number in range(times))


ATTACKS = {
    "shared": b"\x80\x04}" + doubled(40) + b"K\x01s.",
    "deep": b"\x80\x04})" + b"\x85" * 200_000 + b"K\x01s.",
    "numbered": b"\x80\x02}r\xff\xff\xff\x7f.",
}
READERS: dict[str, Callable[[Path], Any]] = {
    "index": load_id2lineidx,
    "resume state": load_tensors,
    "checkpoint": read_state,
}
HARMS = pytest.mark.parametrize("content", ATTACKS.values(), ids=ATTACKS)


@HARMS
def test_it_is_refused_before_it_is_loaded(content: bytes):
    with pytest.raises(pickle.UnpicklingError):
        check_pickle(io.BytesIO(content))


@HARMS
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_names_the_file(tmp_path: Path, read: Callable, content: bytes):
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(LavenderError, match=r"x\.pkl"):
        read(path)


@HARMS
@pytest.mark.parametrize("read", [load_tensors, read_state])
def test_inside_of_a_zip_too(tmp_path: Path, read: Callable, content: bytes):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(LavenderError, match=r"x\.pt"):
        read(tmp_path / "x.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_passes(tmp_path: Path, zipped: bool):
    state = {"a": torch.arange(6.0), "of": {"many": [1, 2.5, "x", None, (True, torch.zeros(2))]}}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    check_torch_file(tmp_path / "x.pt")
    assert load_tensors(tmp_path / "x.pt")["a"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_call_that_takes_memory_is_refused_in_a_state(tmp_path: Path):
    class Huge:
        def __reduce__(self) -> tuple:
            return bytearray, (2**45,)

    torch.save({"a": torch.zeros(2), "b": Huge()}, tmp_path / "x.pt")
    with pytest.raises(LavenderError, match=r"x\.pt"):
        load_tensors(tmp_path / "x.pt")


def test_a_compressed_zip_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + b"\0" * 10_000_000)
    with pytest.raises(LavenderError, match=r"x\.pt: .*compressed"):
        load_tensors(tmp_path / "x.pt")
