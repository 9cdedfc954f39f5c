"""Checkpoints as strangers wrap them, and files that are small and cost much."""

import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lavender.models.checkpoint_file import plain_names
from lavender.models.checkpoint_folder import read_state
from lavender.models.weights import load_checkpoint
from lavender.runtime.errors import WeightsError
from lavender.runtime.pickles import check_pickle


def saved(content: object, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module._orig_mod.", "a.b."])
@pytest.mark.parametrize("wrapper", ["model_state_dict", "ema", "net", "whatever"])
def test_prefixes_and_wrappers_are_found_and_told(make_model, tmp_path: Path, log, prefix: str, wrapper: str):
    model = make_model()
    state = {prefix + name: torch.full_like(tensor, 2) for name, tensor in model.state_dict().items()}
    report = load_checkpoint(model, saved({wrapper: state, "epoch": 3, "loss": torch.tensor(1.0)}, tmp_path / "x.pt"))
    assert not report.missing
    assert not report.left_over
    assert model.enc_img.emb_cls.eq(2).all()
    assert prefix in log.text
    assert f"under {wrapper}" in log.text


def test_the_model_is_taken_before_its_average(tmp_path: Path, log):
    content = {"state_dict_ema": {"a": torch.zeros(2)}, "state_dict": {"a": torch.ones(2)}}
    assert read_state(saved(content, tmp_path / "x.pt"))["a"].tolist() == [1, 1]
    assert "state_dict_ema" in log.text


def test_several_models_are_an_error_that_names_them(tmp_path: Path):
    content = {"left": {"a": torch.zeros(2)}, "right": {"a": torch.ones(2)}}
    with pytest.raises(WeightsError, match=r"x\.pt: .*left, right"):
        read_state(saved(content, tmp_path / "x.pt"))
    state = {"left.a": torch.zeros(2), "right.a": torch.ones(2)}
    with pytest.raises(WeightsError, match=r"left\. and right\."):
        plain_names(state, {"a"}, "x.pt")


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.zeros(2).to(torch.float8_e4m3fn), "float8"),
        (torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8), "quantized"),
        (torch.zeros(2, device="meta"), "meta"),
        (torch.zeros(1).expand(2**40), "1099511627776"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
    ],
)
def test_a_tensor_that_is_no_weight_is_named(tmp_path: Path, tensor: torch.Tensor, words: str):
    with pytest.raises(WeightsError, match=rf"x\.pt: layer\.weight .*{words}"):
        read_state(saved({"layer.weight": tensor}, tmp_path / "x.pt"))


def twice_nested() -> bytes:
    doubled = b"".join(b"\x94h" + bytes([number]) + b"\x86" for number in range(40))
    return b"\x80\x04})" + doubled + b"K\x01s."


@pytest.mark.parametrize(
    "content",
    [
        twice_nested(),
        b"\x80\x04})" + b"\x85" * 200_000 + b"K\x01s.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
    ],
    ids=["shared", "deep", "numbered"],
)
def test_a_small_pickle_that_costs_much_is_refused(tmp_path: Path, content: bytes):
    with pytest.raises(pickle.UnpicklingError):
        check_pickle(io.BytesIO(content))
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pt: "):
        read_state(tmp_path / "x.pt")


def test_a_call_that_takes_memory_is_refused(tmp_path: Path):
    class Huge:
        def __reduce__(self):
            return bytearray, (2**45,)

    with pytest.raises(WeightsError, match=r"x\.pt: .*bytearray"):
        read_state(saved({"a": torch.zeros(2), "b": Huge()}, tmp_path / "x.pt"))


@pytest.mark.parametrize("tensor", [torch.ones(64, dtype=torch.int64), torch.ones(64, dtype=torch.bool)])
def test_whole_numbers_are_no_weights(make_model, tmp_path: Path, tensor: torch.Tensor):
    model = make_model()
    state = {**model.state_dict(), "trsfr.layer.0.output.dense.bias": tensor}
    with pytest.raises(WeightsError, match=r"x\.pt: trsfr\.layer\.0\.output\.dense\.bias is (int64|bool)"):
        load_checkpoint(model, saved(state, tmp_path / "x.pt"))


def test_a_number_too_large_for_single_precision_is_told(make_model, tmp_path: Path):
    model = make_model()
    state = {**model.state_dict(), "trsfr.layer.0.output.dense.bias": torch.full((64,), 1e300, dtype=torch.float64)}
    with pytest.raises(WeightsError, match=r"x\.pt: .*not finite.*trsfr\.layer\.0\.output\.dense\.bias"):
        load_checkpoint(model, saved(state, tmp_path / "x.pt"))


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_of_other_precisions_are_read_as_they_are(make_model, tmp_path: Path, dtype: torch.dtype, kind: str):
    model = make_model()
    path = tmp_path / f"x.{kind}"
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in make_model().state_dict().items()}
    state["enc_img.emb_cls"] = torch.linspace(-3, 3, 64, dtype=torch.float64).to(dtype).view(1, 1, 1, 64)
    save = torch.save if kind == "pt" else save_file
    save({name: tensor.clone() for name, tensor in state.items()}, path)
    assert not load_checkpoint(model, path).missing
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name
    assert model.enc_img.emb_cls.flatten()[[0, -1]].tolist() == [-3, 3]
    assert model.enc_img.emb_cls.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("number", ["inf", "nan"])
def test_half_precision_that_overflowed_is_named(make_model, tmp_path: Path, dtype: torch.dtype, number: str):
    name = "trsfr.layer.0.output.dense.weight"
    state = {name: t.to(dtype) for name, t in make_model().state_dict().items() if t.is_floating_point()}
    state[name][3, 4] = float(number)
    with pytest.raises(WeightsError, match=rf"x\.pt: 1 weights are not finite.*{name}") as raised:
        load_checkpoint(make_model(), saved({"model": state}, tmp_path / "x.pt"))
    assert ("65,504" in str(raised.value)) is (dtype == torch.float16)
