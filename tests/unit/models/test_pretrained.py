"""Exported folders: one line in, all that they need inside, and back to the released layout."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lavender.config.schema import Config
from lavender.inference.opening import open_checkpoint
from lavender.models.checkpoint_folder import read_state
from lavender.models.lavender import Heads, Lavender
from lavender.models.pretrained import export, load_pretrained, to_pt
from lavender.models.weights import bert_config, build_model
from lavender.runtime.errors import WeightsError
from lavender.text.bert_folder import find_bert
from lavender.text.tokens import TextTokenizer

BIAS, DECODER_BIAS = "fc_mtm.predictions.bias", "fc_mtm.predictions.decoder.bias"
MODELS = {
    "mlm": {},
    "task-specific": {"heads": Heads(mlm=False, task_tokens=False, classifiers={"fc": 5})},
    "multi-head": {
        "heads": Heads(task_tokens=False, classifiers={"fc": 1, "fc_qaoe_msvd_qa": 7, "fc_qamc_tgif_action": 5})
    },
    "text encoder": {"embed_only": False},
    "other tables": {"max_size_frame": 9, "max_size_patch": 3},
    "swinbert": {"swinbert": True},
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def run_folder(make_model, kit: Path, tmp_path: Path):
    """`run_folder(**options of the model)`: a folder as a run leaves it, with its checkpoint's path and state."""

    def make(arguments: dict | None = None, extra: dict[str, Tensor] | None = None, **options):
        model = make_model(**options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        state = {**model.state_dict(), **(extra or {})}
        (folder := tmp_path / "run").mkdir(exist_ok=True)
        written = {"txt_backbone": str(kit / "bert_micro"), "fusion_encoder": str(kit / "bert_micro"), "size_txt": 33}
        (folder / "args.json").write_text(json.dumps(written if arguments is None else arguments))
        torch.save(state, folder / "ckpt_violet_x_3.pt")
        return folder / "ckpt_violet_x_3.pt", model

    return make


def identical(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Names, types, shapes and every bit."""
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == tensor.dtype and torch.equal(ours[name], tensor) for name, tensor in theirs.items()
    )


def answers(model: Lavender) -> Tensor:
    """States that depend on every part of the encoder."""
    ids = torch.tensor([[101, 110, 111, 102]])
    img = torch.randn(1, 2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        return model.fuse(model.encode_video(img), model.encode_text(ids, torch.ones_like(ids)))


@pytest.mark.parametrize("kind", MODELS)
def test_one_line_gives_the_model_back(run_folder, tmp_path: Path, kind: str):
    checkpoint, model = run_folder(**MODELS[kind])
    export(checkpoint, tmp_path / "exported")
    loaded = load_pretrained(tmp_path / "exported")
    assert identical(loaded.state_dict(), model.state_dict())
    assert not loaded.training
    assert torch.equal(answers(loaded), answers(model))
    assert {name for name, _ in loaded.named_children()} == {name for name, _ in model.named_children()}


@pytest.mark.parametrize("kind", MODELS)
def test_and_back_bit_by_bit(run_folder, tmp_path: Path, kind: str):
    old = {
        "enc_txt.emb_txt.position_ids": torch.arange(512)[None],
        "enc_img.swin.layers.0.blocks.0.attn.relative_position_index": torch.zeros(3, 3, dtype=torch.long),
    }
    checkpoint, _ = run_folder(extra=old, **MODELS[kind])
    export(checkpoint, tmp_path / "exported")
    to_pt(tmp_path / "exported", tmp_path / "back" / "ckpt.pt")
    given, back = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "back" / "ckpt.pt"))
    assert identical(back, given)
    assert (tmp_path / "back" / "args.json").read_bytes() == checkpoint.with_name("args.json").read_bytes()
    if kind == "mlm":
        assert back[BIAS].data_ptr() == back[DECODER_BIAS].data_ptr(), "one tensor under two names, as released"


def test_biases_that_differ_stay_two(run_folder, tmp_path: Path):
    checkpoint, _ = run_folder(extra={BIAS: torch.ones(350)})
    export(checkpoint, tmp_path / "exported")
    to_pt(tmp_path / "exported", tmp_path / "ckpt.pt")
    assert identical(torch.load(tmp_path / "ckpt.pt", weights_only=True), torch.load(checkpoint, weights_only=True))


def test_half_precision_stays_half_in_the_file(run_folder, tmp_path: Path):
    checkpoint, model = run_folder()
    torch.save({name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}, checkpoint)
    export(checkpoint, tmp_path / "exported")
    to_pt(tmp_path / "exported", tmp_path / "ckpt.pt")
    assert identical(torch.load(tmp_path / "ckpt.pt", weights_only=True), torch.load(checkpoint, weights_only=True))
    assert load_pretrained(tmp_path / "exported").dtype == torch.float32


def test_what_a_folder_holds(run_folder, kit: Path, tmp_path: Path):
    checkpoint, model = run_folder(heads=Heads(classifiers={"fc": 3}), max_size_frame=9)
    export(checkpoint, tmp_path / "exported")
    folder = tmp_path / "exported"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("args.json", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt")
    ]
    for name in ("vocab.txt", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (kit / "bert_micro" / name).read_bytes()
    written = json.loads((folder / "config.json").read_text())
    assert {name: value for name, value in written.items() if name not in ("text", "fusion")} == {
        **{"model_type": "lavender", "vis_backbone_size": "micro", "max_size_frame": 9, "max_size_patch": 14},
        **{"swinbert": False, "txt_backbone_embed_only": True, "mlm": True, "task_tokens": True},
        **{"classifiers": {"fc": 3}, "unused": []},
    }
    assert (written["text"]["hidden_size"], written["fusion"]["num_hidden_layers"]) == (64, 2)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == sorted(model.state_dict())
        assert file.metadata() == {"format": "pt"}


def test_a_folder_needs_nothing_else(run_folder, kit: Path, config: Config, tmp_path: Path, log):
    """Moved away from everything it was made of, it is a model, a vocabulary and a checkpoint."""
    shutil.copytree(kit / "bert_micro", tmp_path / "bert")
    names = {"txt_backbone": str(tmp_path / "bert"), "fusion_encoder": str(tmp_path / "bert")}
    checkpoint, model = run_folder(arguments=names)
    export(checkpoint, tmp_path / "exported")
    folder = (tmp_path / "exported").rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "bert")
    shutil.rmtree(checkpoint.parent)
    assert identical(load_pretrained(str(folder)).state_dict(), model.state_dict())
    assert TextTokenizer(find_bert(str(folder))).size == 350
    for named in (folder, folder / "model.safetensors"):
        config = replace(config, txt_backbone=str(folder), fusion_encoder=str(folder), path_ckpt=str(named))
        assert identical(build_model(config, Heads()).state_dict(), model.state_dict())
    assert f"{folder} is an exported model, read by --path_ckpt: random weights for trsfr, fc_mtm" in log.text


def test_each_part_has_its_own_bert(run_folder, tmp_path: Path):
    checkpoint, _ = run_folder()
    export(checkpoint, folder := tmp_path / "exported")
    written = json.loads((folder / "config.json").read_text())
    for part, layers in (("text", 5), ("fusion", 7)):
        written[part]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(written))
    assert [bert_config(str(folder), part).num_hidden_layers for part in ("text", "fusion")] == [5, 7]


def test_a_folder_exports_again(run_folder, tmp_path: Path):
    checkpoint, model = run_folder()
    export(checkpoint, tmp_path / "one")
    to_pt(tmp_path / "one", tmp_path / "back" / "ckpt.pt")
    (tmp_path / "back" / "args.json").unlink()
    export(tmp_path / "back" / "ckpt.pt", tmp_path / "two", str(tmp_path / "one"), str(tmp_path / "one"))
    assert identical(load_pretrained(tmp_path / "two").state_dict(), model.state_dict())
    ours, theirs = ((tmp_path / name / "config.json").read_bytes() for name in ("one", "two"))
    assert ours == theirs


def test_tensors_without_a_place_are_kept_and_named(run_folder, tmp_path: Path):
    checkpoint, model = run_folder(extra={"enc_img.old.weight": torch.ones(2)})
    assert export(checkpoint, tmp_path / "exported").unused == ["enc_img.old.weight"]
    assert identical(load_pretrained(tmp_path / "exported").state_dict(), model.state_dict())
    assert "enc_img.old.weight" in read_state(tmp_path / "exported")


def test_a_copy_beside_another_run_keeps_that_runs_options(run_folder, tmp_path: Path):
    checkpoint, _ = run_folder()
    export(checkpoint, tmp_path / "exported")
    (tmp_path / "args.json").write_text("{}")
    to_pt(tmp_path / "exported", tmp_path / "ckpt.pt")
    assert (tmp_path / "args.json").read_text() == "{}"


# --- faults -----------------------------------------------------------------------------------------------------------


def test_no_exported_folder(tmp_path: Path, kit: Path):
    with pytest.raises(WeightsError, match=rf"^{tmp_path}/none: no such folder; .*_tools/export\.py"):
        load_pretrained(tmp_path / "none")
    for folder in (tmp_path, kit / "bert_micro"):
        for read in (load_pretrained, lambda folder: to_pt(folder, tmp_path / "x.pt")):
            with pytest.raises(WeightsError, match=rf"^{folder}: no config\.json of an exported model there"):
                read(folder)
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize("spoil", ["size", "field", "text", "missing", "shape", "extra", "table", "cut", "gone"])
def test_a_spoilt_folder_is_told_in_one_line(run_folder, tmp_path: Path, spoil: str):
    checkpoint, _ = run_folder()
    export(checkpoint, folder := tmp_path / "exported")
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    offending = "config.json" if spoil in ("size", "field", "text") else "model.safetensors"
    if spoil == "size":
        config["vis_backbone_size"] = "huge"
    elif spoil == "field":
        config["colour"] = "red"
    elif spoil == "text":
        config["text"] = 3
    elif spoil == "missing":
        del weights["trsfr.layer.0.output.dense.bias"]
    elif spoil == "shape":
        weights["enc_img.norm.weight"] = torch.zeros(3)
    elif spoil == "extra":
        weights["enc_img.more"] = torch.zeros(3)
    elif spoil == "table":
        weights["enc_img.emb_len"] = torch.zeros(1, 2, 1, 64)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    if spoil == "cut":
        (folder / offending).write_bytes((folder / offending).read_bytes()[:5000])
    if spoil == "gone":
        (folder / offending).unlink()
    with pytest.raises(WeightsError, match=offending) as raised:
        load_pretrained(folder)
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)


def test_a_checkpoint_of_another_bert_is_refused(run_folder, kit: Path, tmp_path: Path):
    folder = tmp_path / "bert"
    shutil.copytree(kit / "bert_micro", folder)
    bert = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**bert, "num_hidden_layers": 3}))
    checkpoint, _ = run_folder()
    with pytest.raises(
        WeightsError, match=r"^.*ckpt_violet_x_3\.pt is not of this model: 16 weights are missing .*layer\.2"
    ) as raised:
        export(checkpoint, tmp_path / "exported", fusion_encoder=str(folder))
    assert "--fusion_encoder" in str(raised.value)
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ({"a.weight": torch.zeros(2)}, "has no Video Swin under enc_img.swin"),
        ({"backbone.patch_embed.proj.weight": torch.zeros(16, 3, 2, 4, 4)}, "has no Video Swin under enc_img.swin"),
        (
            {
                "enc_img.swin.patch_embed.proj.weight": torch.zeros(16, 3, 2, 4, 4),
                "enc_img.swin.layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(2535, 1),
            },
            r"has a Video Swin of no known size: width 16, depths \(1, 0, 0, 0\)",
        ),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_refused(config: Config, tmp_path: Path, state: dict, what: str):
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=rf"^{tmp_path}/x\.pt {what}"):
        export(tmp_path / "x.pt", tmp_path / "exported", config.txt_backbone, config.fusion_encoder)


# --- checkpoints as others save them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["mlm", "swinbert"])
@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.student."])
def test_prefixes_of_the_exported_checkpoint(run_folder, tmp_path: Path, options: str, prefix: str):
    checkpoint, model = run_folder(**MODELS[options])
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, checkpoint)
    assert export(checkpoint, tmp_path / "out").unused == []
    same = load_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in model.state_dict().items())


def test_a_folder_is_exported_with_the_args_json_in_it(run_folder, tmp_path: Path):
    checkpoint, model = run_folder()
    folder = checkpoint.parent
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    export(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "args.json").read_text())["size_txt"] == 33


def test_a_checkpoint_that_is_not_finite_is_not_exported(run_folder, tmp_path: Path):
    checkpoint, _ = run_folder(extra={"fc_mtm.predictions.bias": torch.full((99,), torch.nan)})
    with pytest.raises(WeightsError, match=r"ckpt_violet_x_3\.pt: .*not finite.*fc_mtm\.predictions\.bias"):
        export(checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_description_of_a_model_that_no_machine_holds(run_folder, tmp_path: Path):
    checkpoint, _ = run_folder()
    export(checkpoint, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_size_frame": 10**11}))
    with pytest.raises(WeightsError, match=r"model\.safetensors: enc_img\.emb_len"):
        load_pretrained(tmp_path / "out")


@pytest.mark.parametrize("option", ["txt_backbone", "fusion_encoder"])
def test_a_bert_that_args_json_names_and_that_is_not_here(run_folder, kit: Path, tmp_path: Path, option: str):
    own = {"txt_backbone": str(kit / "bert_micro"), "fusion_encoder": str(kit / "bert_micro")}
    checkpoint, model = run_folder(arguments={**own, option: "/home/other/bert"})
    beside = rf"/home/other/bert.*{checkpoint.parent}/args\.json .*names it as {option}.*--{option}"
    with pytest.raises(WeightsError, match=beside):
        open_checkpoint(checkpoint)
    with pytest.raises(WeightsError, match=beside):
        export(checkpoint, tmp_path / "out")
    opened, _ = open_checkpoint(checkpoint, **own)
    assert torch.equal(opened.state_dict()["enc_img.emb_cls"], model.state_dict()["enc_img.emb_cls"])
    export(checkpoint, tmp_path / "out", **own)
    with pytest.raises(WeightsError) as told:  # what the caller names is the caller's
        open_checkpoint(checkpoint, **own | {option: "/home/mine/bert"})
    assert "args.json" not in str(told.value)


def test_a_missing_folder_is_told_with_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=rf"^no/where: .*{tmp_path}"):
        load_pretrained("no/where")
