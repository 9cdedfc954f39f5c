"""Checkpoints of torch.distributed.checkpoint, whole ones and those of several processes."""

import io
import os
import pickle
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as checkpoint
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from lavender.models.checkpoint_folder import read_state
from lavender.models.weights import load_checkpoint
from lavender.runtime.errors import WeightsError

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
TABLE = torch.arange(20.0).view(5, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint that torch wrote on one process, with the optimizer's states and more beside the weights."""
    model = {"a.weight": TABLE, "b": torch.tensor([1.5], dtype=torch.bfloat16), "n": torch.tensor(3)}
    content = {"model": model, "optim": {"state": {"a.weight": torch.ones(5, 4)}}, "epoch": 3}
    checkpoint.save(content, checkpoint_id=tmp_path / "fsdp", no_dist=True)
    return tmp_path / "fsdp"


class Pieces:
    """A table in two pieces, each in the file of a process, as FSDP saves it; a test may spoil any of it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.pieces = {(0, 0): TABLE[:3], (3, 0): TABLE[3:]}
        self.size: tuple[int, ...] = (5, 4)
        self.sizes = {offset: tuple(piece.shape) for offset, piece in self.pieces.items()}
        self.info: dict[str, Any] = {}

    def write(self) -> Path:
        self.folder.mkdir()
        storage = {}
        for rank, (offset, piece) in enumerate(self.pieces.items()):
            file = io.BytesIO()
            torch.save(piece.clone(), file)
            (self.folder / f"__{rank}_0.distcp").write_bytes(b"before" + file.getvalue())
            info = {"relative_path": f"__{rank}_0.distcp", "offset": 6, "length": len(file.getvalue()), **self.info}
            storage[MetadataIndex("a", torch.Size(offset))] = _StorageInfo(**info)
        chunks = [ChunkStorageMetadata(torch.Size(offset), torch.Size(size)) for offset, size in self.sizes.items()]
        about = TensorStorageMetadata(TensorProperties(torch.float32), torch.Size(self.size), chunks)
        metadata = Metadata({"a": about}, storage_data=storage)
        (self.folder / ".metadata").write_bytes(pickle.dumps(metadata))
        return self.folder


@pytest.fixture
def pieces(tmp_path: Path) -> Pieces:
    return Pieces(tmp_path / "pieces")


def test_the_weights_alone_are_read(folder: Path, log):
    state = read_state(folder)
    assert state.keys() == {"a.weight", "b", "n"}
    assert torch.equal(state["a.weight"], TABLE)
    assert state["b"].item() == 1.5
    assert "FSDP" in log.text


def test_it_fills_a_model(make_model, tmp_path: Path):
    model = make_model()
    state = {f"_fsdp_wrapped_module.{name}": torch.full_like(t, 2) for name, t in model.state_dict().items()}
    checkpoint.save({"model": state}, checkpoint_id=tmp_path / "fsdp", no_dist=True)
    report = load_checkpoint(model, tmp_path / "fsdp")
    assert not report.missing + report.left_over
    assert model.enc_img.emb_cls.eq(2).all()


def test_pieces_are_joined(pieces: Pieces):
    assert torch.equal(read_state(pieces.write())["a"], TABLE)


def hole(pieces: Pieces) -> None:
    pieces.sizes = {(0, 0): (3, 4)}


def doubled(pieces: Pieces) -> None:
    pieces.size = (6, 4)
    pieces.sizes = {(0, 0): (3, 4), (3, 0): (3, 4)}


def huge(pieces: Pieces) -> None:
    pieces.size, pieces.sizes = (2**40, 4), {(0, 0): (2**40, 4)}


def outside(pieces: Pieces) -> None:
    (pieces.folder.parent / "x.distcp").touch()
    pieces.info["relative_path"] = "../x.distcp"


def other_place(pieces: Pieces) -> None:
    pieces.pieces = {(0, 0): TABLE[:3], (2, 0): TABLE[3:]}
    pieces.sizes = {(0, 0): (3, 4), (3, 0): (2, 4)}


def compressed(pieces: Pieces) -> None:
    pieces.info["transform_descriptors"] = ["zstd"]


def behind_the_end(pieces: Pieces) -> None:
    pieces.info["length"] = 10**9


@pytest.mark.parametrize("spoil", [hole, doubled, huge, outside, other_place, compressed, behind_the_end])
def test_what_makes_no_tensor_is_refused(pieces: Pieces, spoil):
    spoil(pieces)
    folder = pieces.write()
    with pytest.raises(WeightsError, match=rf"{folder}: .*dcp_to_torch {folder}"):
        read_state(folder)


def test_a_missing_file_is_named(pieces: Pieces):
    folder = pieces.write()
    (folder / "__1_0.distcp").unlink()
    with pytest.raises(WeightsError, match=rf"{folder}: .*__1_0\.distcp"):
        read_state(folder)


def test_without_metadata(folder: Path):
    (folder / ".metadata").unlink()
    with pytest.raises(WeightsError, match=rf"{folder}: .*FSDP.*\.metadata"):
        read_state(folder)


def test_a_file_of_it_points_at_the_folder(folder: Path):
    for name in (".metadata", "__0_0.distcp"):
        with pytest.raises(WeightsError, match=rf"{name}: .*FSDP.*{folder}"):
            read_state(folder / name)


def test_the_folder_above_names_it(folder: Path):
    with pytest.raises(WeightsError, match=rf"{folder.parent}: .*give one of fsdp"):
        read_state(folder.parent)


class Hostile:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("place", ["metadata", "piece"])
def test_no_code_runs(folder: Path, tmp_path: Path, place: str):
    trace = tmp_path / "it_ran"
    if place == "metadata":
        (folder / ".metadata").write_bytes(pickle.dumps(Metadata({"a": Hostile(trace)})))  # type: ignore[dict-item]
    else:
        shutil.rmtree(folder)
        pieces = Pieces(folder)
        pieces.write()
        data = io.BytesIO()
        torch.save(Hostile(trace), data)
        file = folder / "__0_0.distcp"
        file.write_bytes(b"before" + data.getvalue() + bytes(file.stat().st_size))
    with pytest.raises(WeightsError, match=str(folder)):
        read_state(folder)
    assert not trace.exists()


class DTensor:
    """Stands for torch's own, which is made among several processes only."""


def test_tensors_of_one_process_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stub = ModuleType("stub")
    monkeypatch.setitem(sys.modules, "stub", stub)
    monkeypatch.setattr(DTensor, "__module__", "stub")
    stub.DTensor = DTensor  # type: ignore[attr-defined]
    torch.save({"a": TABLE, "b": DTensor()}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"x\.pt: .*DTensor.*full state dict"):
        read_state(tmp_path / "x.pt")


def test_flat_parameters_are_told(make_model, tmp_path: Path):
    torch.save({"_fsdp_wrapped_module._flat_param": torch.zeros(9)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"x\.pt: _fsdp_wrapped_module\._flat_param.*FULL_STATE_DICT"):
        load_checkpoint(make_model(), tmp_path / "x.pt")
