"""Backbones and BERTs as others save them: prefixes, wrappers, parts, other precisions."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lavender.config.schema import Config
from lavender.models.lavender import Heads
from lavender.models.weights import build_model
from lavender.runtime.errors import WeightsError
from tests.unit.models.weights_world import assert_part


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module.backbone.", "enc_img.swin.", "a.b."])
def test_prefixes_of_a_backbone(config: Config, backbone: dict[str, Tensor], log, prefix: str):
    state = {name.replace("backbone.", prefix): tensor for name, tensor in backbone.items()}
    torch.save({"model_state_dict": state, "epoch": 3}, config.vis_backbone_path)
    swin = build_model(config, Heads()).enc_img.swin.state_dict()
    assert all(torch.equal(tensor, backbone[f"backbone.{name}"]) for name, tensor in swin.items())
    assert "left over" not in log.text


def test_the_backbone_of_a_student_is_taken(config: Config, backbone: dict[str, Tensor]):
    averaged = {name.replace("backbone", "ema"): torch.zeros_like(tensor) for name, tensor in backbone.items()}
    torch.save({**averaged, **backbone}, config.vis_backbone_path)
    swin = build_model(config, Heads()).enc_img.swin.state_dict()
    assert torch.equal(swin["norm.weight"], backbone["backbone.norm.weight"])


def test_a_backbone_in_parts(config: Config, backbone: dict[str, Tensor], tmp_path: Path):
    (folder := tmp_path / "parts").mkdir()
    names = sorted(backbone)
    for number, some in enumerate((names[:20], names[20:]), start=1):
        save_file({name: backbone[name] for name in some}, folder / f"model-{number:05}-of-00002.safetensors")
    config.vis_backbone_path = str(folder)
    swin = build_model(config, Heads()).enc_img.swin.state_dict()
    assert all(torch.equal(tensor, backbone[f"backbone.{name}"]) for name, tensor in swin.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_of_a_backbone_in_another_precision(config: Config, backbone: dict[str, Tensor], dtype: torch.dtype):
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in backbone.items()}
    torch.save(state, config.vis_backbone_path)
    for name, tensor in build_model(config, Heads()).enc_img.swin.state_dict().items():
        assert torch.equal(tensor, state[f"backbone.{name}"].to(tensor.dtype)), name


def test_a_backbone_that_is_not_finite_is_named(config: Config, backbone: dict[str, Tensor]):
    name = "layers.1.blocks.0.attn.qkv.weight"
    backbone[f"backbone.{name}"][0, 0] = float("inf")
    torch.save({name: tensor.half() for name, tensor in backbone.items()}, config.vis_backbone_path)
    with pytest.raises(WeightsError, match=rf"swin\.pth: {name} is not finite"):
        build_model(config, Heads())


def test_a_backbone_that_is_missing_says_from_where(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    config.vis_backbone_init, config.vis_backbone_path = "3d", "no/swin.pth"
    with pytest.raises(WeightsError, match=rf"^no/swin\.pth: .*{tmp_path}.*--vis_backbone_path"):
        build_model(config, Heads())


def assert_bert(config: Config, state: dict[str, Tensor]) -> None:
    model = build_model(config, Heads())
    assert_part(model, "enc_txt.emb_txt", state, "bert.embeddings")
    assert_part(model, "trsfr", state, "bert.encoder")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_bert_as_others_save_it(config: Config, bert: dict[str, Tensor], prefix: str, dtype: torch.dtype):
    folder = Path(config.txt_backbone)
    (folder / "model.safetensors").unlink()
    state = {prefix + name: tensor.to(dtype) for name, tensor in bert.items()}
    torch.save({"state_dict": state}, folder / "pytorch_model.bin")
    rounded = {name: tensor.to(dtype).float() for name, tensor in bert.items()}
    assert_bert(config, rounded)


def test_a_bert_with_the_names_of_old(config: Config, bert: dict[str, Tensor]):
    folder = Path(config.txt_backbone)
    (folder / "model.safetensors").unlink()
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    state = {f"{name.removesuffix(end)}{old[end]}": bert[name] for end in old for name in bert if name.endswith(end)}
    state |= {name: tensor for name, tensor in bert.items() if "LayerNorm" not in name}
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, folder / "pytorch_model.bin")
    assert_bert(config, bert)


def test_a_bert_in_parts(config: Config, bert: dict[str, Tensor]):
    folder = Path(config.txt_backbone)
    (folder / "model.safetensors").unlink()
    files = {name: f"model-{1 + ('encoder' in name):05}-of-00002.safetensors" for name in bert}
    for file in sorted(set(files.values())):
        save_file({name: bert[name].clone() for name in bert if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert_bert(config, bert)
    (folder / file).unlink()
    with pytest.raises(WeightsError, match=file):
        build_model(config, Heads())


def test_weights_of_a_bert_that_are_not_read_are_told(config: Config, bert: dict[str, Tensor], log):
    folder = Path(config.txt_backbone)
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    build_model(config, Heads())
    assert any(record.levelname == "WARNING" and "tf_model.h5" in record.getMessage() for record in log.records)
