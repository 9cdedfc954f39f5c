"""Reading checkpoints, and what of a file goes where."""

import argparse
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavender.models.checkpoint_folder import read_state
from lavender.models.lavender import Heads, Lavender
from lavender.models.load_report import LoadReport
from lavender.models.weights import load_checkpoint, load_state
from lavender.runtime.errors import WeightsError

BIAS, DECODER_BIAS = "fc_mtm.predictions.bias", "fc_mtm.predictions.decoder.bias"


class Hostile:
    """Unpickled, it runs a command that leaves a file behind."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def model(make_model) -> Lavender:
    return make_model()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def table(report: LoadReport) -> str:
    return "\n".join(report.lines())


# --- reading a file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "state_dict", "model", "module"])
def test_tensors_are_found_at_the_top_or_under_a_known_key(tmp_path: Path, key: str | None):
    state = {"a.weight": torch.arange(3.0), "b": torch.tensor(2), "epoch": 3}
    path = saved({key: state, "meta": {"epoch": 3}} if key else state, tmp_path / "x.pth")
    found = read_state(path)
    assert sorted(found) == ["a.weight", "b"]
    assert found["a.weight"].tolist() == [0, 1, 2]


def test_safetensors_and_folders_of_them(tmp_path: Path):
    tensors = {"a.weight": torch.arange(3.0), "b": torch.tensor(2), "c": torch.zeros(2, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path):
        found = read_state(path)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_every_damage_to_safetensors_is_told_in_one_line(tmp_path: Path):
    save_file({"a.weight": torch.arange(600.0).view(2, 300), "b": torch.zeros(4)}, path := tmp_path / "x.safetensors")
    data, stream, messages = path.read_bytes(), random.Random(1), []
    spoilt = [data[:length] for length in range(0, len(data), len(data) // 40)]
    for _ in range(40):
        changed = bytearray(data)
        changed[stream.randrange(200)] = stream.randrange(256)
        spoilt.append(bytes(changed))
    for content in spoilt:
        path.write_bytes(content)
        try:
            read_state(path)
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) > 40
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("name", ["x.pt", "x.bin", "X.SAFETENSORS", "x.safetensors.1"])
def test_what_a_file_is_its_content_says(tmp_path: Path, name: str):
    tensors = {"a.weight": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / name)
    found = read_state(tmp_path / name)
    assert {key: tensor.tolist() for key, tensor in found.items()} == {"a.weight": [0, 1, 2], "b": [1, 1]}
    for zipped in (True, False):
        torch.save(tensors, path := tmp_path / "y.safetensors", _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=rf"^{path}: .*torch.*y\.pt"):
            read_state(path)
        assert read_state(path.rename(tmp_path / "y.pt"))["a.weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_download_that_stopped_is_told(tmp_path: Path, share: float):
    state = {f"layer.{number}.weight": torch.zeros(500) for number in range(20)}
    torch.save(state, tmp_path / "x.pt")
    save_file(state, tmp_path / "x.safetensors")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        with pytest.raises(WeightsError, match=rf"^{path}: .*its end is missing"):
            read_state(path)


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"a folder of weights holds model\.safetensors$"):
        read_state(tmp_path)
    for path in (tmp_path / "x.pt", tmp_path):
        with pytest.raises(WeightsError, match=rf"^{path}: no such checkpoint; check --path_ckpt"):
            read_state(path)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("format", ["zip", "legacy", "pickle"])
def test_a_file_with_code_is_refused_and_nothing_runs(tmp_path: Path, wrapped: bool, format: str):
    trace = tmp_path / "it_ran"
    content: object = {"a": torch.zeros(2), "b": Hostile(trace)} if wrapped else Hostile(trace)
    path = tmp_path / "x.pt"
    if format == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format == "zip")
    with pytest.raises(WeightsError, match=rf"^{path}: cannot be read as a file of weights alone") as raised:
        read_state(path)
    assert not trace.exists()
    assert "\n" not in str(raised.value)
    if not wrapped and format == "zip":
        torch.load(path, weights_only=False)
        assert trace.exists(), "the file was harmless and the test proves nothing"


def test_objects_beside_the_tensors_are_named_and_left_out(tmp_path: Path, log):
    beside = {"args": argparse.Namespace(lr=1, out=Path("x")), "seen": np.float64(2.0), "shape": torch.Size([2])}
    path = saved({"model": {"a": torch.ones(2)}, **beside}, tmp_path / "x.pt")
    assert read_state(path)["a"].tolist() == [1, 1]
    assert "argparse.Namespace" in log.text


def test_a_refusal_names_what_was_met_and_advises_no_danger(tmp_path: Path):
    path = saved({"a": torch.zeros(2), "b": Hostile(tmp_path / "it_ran")}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"posix\.system") as raised:
        read_state(path)
    for unfit in ("\x1b", "weights_only", "you have two options"):
        assert unfit not in str(raised.value)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}, "text", torch.zeros(3)], ids=repr)
def test_a_file_without_named_tensors_is_no_checkpoint(tmp_path: Path, content: object):
    path = saved(content, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=rf"^{path}: holds no dictionary of tensors, so it is not a checkpoint"):
        read_state(path)


OTHER_FILES = {
    "empty": b"",
    "page": b"<!DOCTYPE html><html>Not found</html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "json": b'{"a": 1}',
    "zeros": bytes(100),
    "table": b"step,loss\n1,2.0\n",
    "noise": random.Random(0).randbytes(200),
}


@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=rf"^{path}: "):
        read_state(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_every_cut_and_every_damage_is_told_in_one_line(tmp_path: Path, zipped: bool):
    state = {"a.weight": torch.arange(6000.0).view(2, 3000), "b": torch.zeros(4, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    data = (tmp_path / "whole.pt").read_bytes()
    stream, path = random.Random(1), tmp_path / "x.pt"
    faults: set[str] = set()
    spoilt = [data[:length] for length in range(0, len(data), max(len(data) // 60, 1))]
    for _ in range(60):
        changed = bytearray(data)
        changed[stream.randrange(min(len(data), 400))] = stream.randrange(256)
        spoilt.append(bytes(changed))
    for content in spoilt:
        path.write_bytes(content)
        try:
            read_state(path)
        except WeightsError as error:
            faults |= {"more than a line"} if "\n" in str(error) else set()
        except Exception as error:  # any of these would end a run with a traceback
            faults.add(f"{type(error).__name__}: {error}")
    assert not faults


# --- into a model -----------------------------------------------------------------------------------------------------


def test_everything_is_loaded(model: Lavender, make_model):
    state = state_of(model)
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor.normal_()
    state[BIAS] = state[DECODER_BIAS]
    report = load_state(model, state, "ckpt.pt")
    for name, tensor in model.state_dict().items():
        if "relative_position_index" not in name:
            assert torch.equal(tensor, state[name]), name
    assert not report.missing + report.left_over + report.other_shape + report.resized
    assert sorted(report.loaded) == sorted(name for name in state if "relative_position_index" not in name)
    assert table(report) == f"weights from ckpt.pt: {len(report.loaded)} loaded"


def test_half_precision_is_loaded_as_full(model: Lavender):
    state = {name: t.bfloat16() if t.is_floating_point() else t for name, t in state_of(model).items()}
    load_state(model, state, "x")
    assert model.dtype == torch.float32
    assert torch.equal(model.enc_img.emb_cls, state["enc_img.emb_cls"].float())


def test_known_extras_of_older_files_are_passed_over(model: Lavender):
    state = state_of(model)
    index = "enc_img.swin.layers.0.blocks.0.attn.relative_position_index"
    right = state[index].clone()
    state[index] = torch.zeros(3, 3, dtype=torch.long)
    state["enc_txt.emb_txt.position_ids"] = torch.arange(512)[None]
    state["enc_txt.emb_txt.token_type_ids"] = torch.zeros(1, 512)
    report = load_state(model, state, "x")
    assert not report.missing + report.left_over + report.other_shape
    assert torch.equal(model.state_dict()[index], right)


def test_what_does_not_fit_is_reported(model: Lavender):
    state = state_of(model)
    before = {name: tensor.clone() for name, tensor in state.items()}
    del state["enc_img.norm.weight"], state["trsfr.layer.0.output.dense.bias"]
    state["enc_img.fc.bias"] = torch.ones(9)
    state["emb_task"] = torch.ones(3, 64)
    state["fc.1.weight"] = torch.ones(2, 2)
    report = load_state(model, state, "ckpt.pt")
    assert report.missing == ["enc_img.norm.weight", "trsfr.layer.0.output.dense.bias"]
    assert report.left_over == ["fc.1.weight"]
    assert sorted(report.other_shape) == [
        "emb_task (3×64 in the file, 10×64 here)",
        "enc_img.fc.bias (9 in the file, 64 here)",
    ]
    for name in ("enc_img.norm.weight", "enc_img.fc.bias", "emb_task"):
        assert torch.equal(model.state_dict()[name], before[name]), "stays as initialised"
    lines = [" ".join(line.split()) for line in report.lines()]
    assert "missing enc_img.norm 1 not in the file, stay as initialised" in lines
    assert "missing trsfr.layer 1 not in the file, stay as initialised" in lines
    assert "left over fc.1 1 in the file, not in this model" in lines
    assert "other shape enc_img.fc 1 of another shape, stay as initialised" in lines
    assert "fresh head emb_task 1 of another shape, stay as initialised" in lines


def test_a_fresh_head_is_named_as_fresh(make_model):
    model = make_model(Heads(mlm=False, task_tokens=False, classifiers={"fc": 5}))
    report = load_state(model, state_of(make_model()), "ckpt.pt")
    assert {name.split(".")[0] for name in report.missing} == {"fc"}
    assert "  fresh head   fc.1" in table(report)
    assert "  left over    fc_mtm.predictions" in table(report)
    assert "  left over    emb_task" in table(report)


@pytest.mark.parametrize(("theirs", "ours"), [((4, 2), (6, 14)), ((10, 16), (6, 14)), ((10, 2), (6, 14))])
def test_tables_of_places_grow_and_shrink(make_model, theirs: tuple[int, int], ours: tuple[int, int]):
    def tables(sizes: tuple[int, int]) -> Lavender:
        return make_model(max_size_frame=sizes[0], max_size_patch=sizes[1])

    model, file = tables(ours), state_of(tables(theirs))
    fresh = state_of(model)
    for name in ("enc_img.emb_pos", "enc_img.emb_len"):
        file[name].normal_()
    report = load_state(model, file, "x")
    assert sorted(report.resized) == ["enc_img.emb_len", "enc_img.emb_pos"]
    assert not report.missing + report.left_over + report.other_shape
    assert "  resized      enc_img.emb_pos" in table(report)
    for name, dimension in (("enc_img.emb_pos", 2), ("enc_img.emb_len", 1)):
        loaded, given, first = (t.transpose(0, dimension) for t in (model.state_dict()[name], file[name], fresh[name]))
        rows = min(len(loaded), len(given))
        assert torch.equal(loaded[:rows], given[:rows])
        assert torch.equal(loaded[rows:], first[rows:]), "the rest stays as initialised"
    assert model.enc_img.emb_len.shape[1] == ours[0]
    assert model.enc_img.emb_pos.shape[2] == 1 + ours[1] ** 2


@pytest.mark.parametrize(
    ("given", "wins"), [({BIAS: 1, DECODER_BIAS: 2}, 2), ({BIAS: 1}, 1), ({DECODER_BIAS: 2}, 2)], ids=str
)
def test_the_bias_with_two_names(model: Lavender, given: dict[str, int], wins: int):
    state = {name: tensor for name, tensor in state_of(model).items() if name not in (BIAS, DECODER_BIAS)}
    for name, value in given.items():
        state[name] = torch.full((350,), float(value))
    report = load_state(model, state, "x")
    assert (model.fc_mtm.predictions.bias == wins).all()
    assert model.fc_mtm.predictions.bias is model.fc_mtm.predictions.decoder.bias
    assert report.missing == [], "one of the two names is enough"


def test_a_head_of_another_vocabulary_is_reported(model: Lavender):
    state = state_of(model)
    for name in (BIAS, DECODER_BIAS):
        state[name] = torch.zeros(400)
    report = load_state(model, state, "x")
    assert [text.split(" ")[0] for text in report.other_shape] == [BIAS, DECODER_BIAS]


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_load_checkpoint(model: Lavender, make_model, tmp_path: Path, log):
    state = state_of(model)
    state["trsfr.layer.0.output.dense.weight"].fill_(0.5)
    del state["emb_task"]
    path = saved(state, tmp_path / "ckpt.pt")
    report = load_checkpoint(model, path)
    assert (model.state_dict()["trsfr.layer.0.output.dense.weight"] == 0.5).all()
    assert report.missing == ["emb_task"]
    assert f"weights from {path}: {len(report.loaded)} loaded" in log.text
    assert "fresh head   emb_task" in log.text


@pytest.mark.parametrize("reinit", [False, True])
def test_reinit_head_leaves_the_heads_as_they_are(make_model, tmp_path: Path, reinit: bool):
    heads = Heads(classifiers={"fc": 2, "fc_qamc_tgif": 5})
    model = make_model(heads)
    state = {name: torch.full_like(t, 7) if t.is_floating_point() else t for name, t in state_of(model).items()}
    before = state_of(model)
    load_checkpoint(model, saved(state, tmp_path / "ckpt.pt"), reinit_head=reinit)
    for name, tensor in model.state_dict().items():
        if "relative_position_index" in name:
            continue
        in_head = name.startswith(("fc.", "fc_"))
        expected = before[name] if reinit and in_head else state[name]
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize("spoil", ["swin size", "other names", "text", "width"])
def test_a_checkpoint_of_another_model_is_refused(make_model, tmp_path: Path, spoil: str):
    model, state = make_model(), state_of(make_model())
    if spoil == "swin size":
        state = {
            name: torch.zeros(*(2 * side for side in tensor.shape)) if "swin." in name else tensor
            for name, tensor in state.items()
        }
    elif spoil == "other names":
        state = {f"other_{name}": tensor for name, tensor in state.items()}
    elif spoil == "text":
        state = {f"layer{number}.weight": torch.zeros(3) for number in range(5)}
    else:  # of a wider BERT: every side of 64 is 128
        state = {
            name: torch.zeros([128 if side == 64 else side for side in tensor.shape]) for name, tensor in state.items()
        }
    path = saved(state, tmp_path / "ckpt.pt")
    before = state_of(model)
    with pytest.raises(WeightsError, match=rf"^{path} is not of this model: .*check vis_backbone_size") as raised:
        load_checkpoint(model, path)
    assert "\n" not in str(raised.value)
    if spoil == "other names":
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_without_any_head_is_accepted(model: Lavender, tmp_path: Path):
    state = {name: tensor for name, tensor in state_of(model).items() if name.startswith(("enc_", "trsfr."))}
    report = load_checkpoint(model, saved(state, tmp_path / "ckpt.pt"))
    assert {name.split(".")[0] for name in report.missing} == {"fc_mtm", "emb_task"}


def test_a_missing_checkpoint_stops_the_run(model: Lavender, tmp_path: Path):
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load_checkpoint(model, tmp_path / "ckpt.pt")
