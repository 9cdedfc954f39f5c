import json
import os
import resource
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavender.engine.checkpoint import copy_to_host, save_weights, write_json, write_jsonl
from lavender.runtime.errors import TrainingError

WRITERS: dict[str, Callable[[Path], None]] = {
    "weights": lambda path: save_weights({"a": torch.zeros(100_000)}, path),
    "json": lambda path: write_json(["x" * 400_000], path),
    "jsonl": lambda path: write_jsonl(["x" * 1000] * 400, path),
}
EACH = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@contextmanager
def full_disk(room: int = 50_000) -> Iterator[None]:
    """Every file of this process is refused a byte past `room` by the system itself."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@EACH
def test_a_full_disk_is_an_error_that_leaves_the_old_file(tmp_path: Path, write: Callable):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(), pytest.raises(TrainingError, match=rf"^{path}: could not be written .*--path_output") as raised:
        write(path)
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
    write(path)
    assert path.stat().st_size >= 400_000


@EACH
def test_a_failing_disk(tmp_path: Path, write: Callable, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(TrainingError, match="No space left on device"):
        write(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@EACH
def test_folders_are_made_or_the_reason_is_told(tmp_path: Path, write: Callable):
    write(tmp_path / "predictions" / "deep" / "file")
    assert (tmp_path / "predictions" / "deep" / "file").is_file()
    (tmp_path / "taken").touch()
    with pytest.raises(TrainingError, match="taken/file: could not be written"):
        write(tmp_path / "taken" / "file")


def test_a_plain_state_dict(tmp_path: Path, make_model):
    model = make_model()
    save_weights(model.state_dict(), tmp_path / "ckpt.pt")
    loaded = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    assert type(loaded) is dict
    assert list(loaded) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
        assert not loaded[name].requires_grad


def test_parameters_that_need_gradients_are_saved_as_tensors(tmp_path: Path):
    weight = torch.nn.Parameter(torch.ones(2))
    state: dict[str, Tensor] = {"a": weight, "b": weight * 2}
    save_weights(state, tmp_path / "ckpt.pt")
    loaded = torch.load(tmp_path / "ckpt.pt", weights_only=True)
    assert type(loaded["a"]) is Tensor
    assert loaded["b"].tolist() == [2, 2]


def test_json(tmp_path: Path):
    value = {"a": [1, 2.5, None], "größe": "红"}
    write_json(value, tmp_path / "x.json")
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("}\n")
    assert "größe" in text
    assert '\n  "a"' in text


def test_json_lines(tmp_path: Path):
    rows = [{"index": 0, "caption": "größer\nund 红"}, {"index": 1}]
    write_jsonl(rows, tmp_path / "x.jsonl")
    lines = (tmp_path / "x.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == rows
    assert lines[-1] == ""
    write_jsonl([], tmp_path / "x.jsonl")
    assert (tmp_path / "x.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (28, "free space"),
        (122, "quota"),
        (30, "read-only"),
        (13, "may write to"),
        (27, "ulimit"),
        (5, "choose another"),
    ],
)
def test_the_advice_fits_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int, advice: str):
    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "fsync", refuse)
    for write in WRITERS.values():
        with pytest.raises(
            TrainingError, match=f"{advice}.*--path_output|--path_output.*{advice}|{advice} --path_output"
        ) as raised:
            write(tmp_path / "file")
        assert ("free space" in str(raised.value)) == (reason == 28)


Fragment = namedtuple("Fragment", "start values")


class Scale:
    """A state of its own that changes as training goes on."""

    def __init__(self) -> None:
        self.value = 8.0


def test_a_copy_on_the_host_is_of_the_same_kinds_and_shares_nothing():
    weight, scale = torch.arange(4.0, requires_grad=True), Scale()
    state = OrderedDict(b=[weight, weight[1:]], a=(Fragment(2, weight), torch.Size([4])), tied=weight, scale=scale)
    copied = copy_to_host(state)
    with torch.no_grad():
        weight += 1
    scale.value = 4.0
    assert type(copied) is OrderedDict
    assert list(copied) == ["b", "a", "tied", "scale"]
    assert copied["tied"].tolist() == [0, 1, 2, 3]
    assert copied["b"][1].tolist() == [1, 2, 3]
    assert copied["b"][0] is copied["tied"] is copied["a"][0].values
    assert copied["a"] == (Fragment(2, copied["tied"]), torch.Size([4]))
    assert type(copied["a"][1]) is torch.Size
    assert copied["scale"].value == 8.0
    assert not copied["tied"].requires_grad
