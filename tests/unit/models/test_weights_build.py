"""A whole model from its configuration: BERT folders, Video Swin files, checkpoints."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lavender.config.schema import Config
from lavender.models.backbones.video_swin import DropPath, VideoSwin
from lavender.models.backbones.video_swin_weights import video_swin_file
from lavender.models.lavender import Heads, Lavender
from lavender.models.load_report import AS_INITIALISED
from lavender.models.weights import build_model, load_backbone
from lavender.runtime.errors import WeightsError
from tests.unit.models.weights_world import assert_part, backbone_state, save_bert

# --- BERT -------------------------------------------------------------------------------------------------------------


def test_a_folder_without_weights_says_so(config: Config, log):
    model = build_model(config, Heads())
    assert isinstance(model, Lavender)
    folder = config.txt_backbone
    assert f"{folder} holds config and vocabulary only: random weights for enc_txt.emb_txt" in log.text
    assert f"{folder} holds config and vocabulary only: random weights for trsfr, fc_mtm" in log.text
    assert "video backbone: random weights" in log.text


def test_bert_fills_embeddings_fusion_and_head(config: Config, bert: dict[str, Tensor], log):
    model = build_model(config, Heads())
    assert_part(model, "enc_txt.emb_txt", bert, "bert.embeddings")
    assert_part(model, "trsfr", bert, "bert.encoder")
    assert_part(model, "fc_mtm", bert, "cls")
    words, decoder = model.enc_txt.emb_txt.word_embeddings.weight, model.fc_mtm.predictions.decoder.weight
    assert torch.equal(words, decoder), "BERT's own are tied"
    with torch.no_grad():
        words += 1
    assert not torch.equal(words, decoder), "ours are two parameters"
    assert "(bert.embeddings → enc_txt.emb_txt): 5 loaded" in log.text
    assert "random weights for" not in log.text


def test_bert_fills_the_encoder_of_the_text_too(config: Config, bert: dict[str, Tensor]):
    config.txt_backbone_embed_only = False
    model = build_model(config, Heads(mlm=False, task_tokens=False, classifiers={"fc": 1}))
    assert_part(model, "enc_txt.txt_trsfr", bert, "bert.encoder")
    assert_part(model, "trsfr", bert, "bert.encoder")
    with torch.no_grad():
        for parameter in model.trsfr.parameters():
            parameter.add_(1)
    assert_part(model, "enc_txt.txt_trsfr", bert, "bert.encoder")


def test_text_and_fusion_come_from_two_folders(config: Config, bert: dict[str, Tensor], tmp_path: Path, kit: Path):
    other = save_bert(tmp_path / "other_bert", kit, num_hidden_layers=3)
    config.fusion_encoder = str(tmp_path / "other_bert")
    model = build_model(config, Heads())
    assert_part(model, "enc_txt.emb_txt", bert, "bert.embeddings")
    assert_part(model, "trsfr", other, "bert.encoder")
    assert_part(model, "fc_mtm", other, "cls")
    assert len(model.trsfr.layer) == 3


def test_fusion_encoder_rand_init_takes_the_shape_alone(config: Config, bert: dict[str, Tensor], log):
    config.fusion_encoder_rand_init = True
    model = build_model(config, Heads())
    weights = [tensor for name, tensor in model.trsfr.state_dict().items() if tensor.dim() > 1]
    assert all(float(tensor.std()) == pytest.approx(0.02, rel=0.1) for tensor in weights)
    assert_part(model, "enc_txt.emb_txt", bert, "bert.embeddings")
    assert f"fusion encoder: only its shape is taken from {config.fusion_encoder}; random weights" in log.text


def test_a_bert_without_head_leaves_the_head_fresh(config: Config, tmp_path: Path, kit: Path, log):
    state = save_bert(tmp_path / "bert", kit, "BertModel")
    config.txt_backbone = config.fusion_encoder = str(tmp_path / "bert")
    model = build_model(config, Heads())
    assert_part(model, "enc_txt.emb_txt", {f"bert.{name}": t for name, t in state.items()}, "bert.embeddings")
    dense = model.fc_mtm.predictions.transform.dense.weight.detach()
    assert float(dense.std()) == pytest.approx(0.02, rel=0.1)
    assert any("missing" in line and "transform" in line for line in log.text.splitlines())


def test_the_old_format_of_weights_runs_no_code(config: Config, tmp_path: Path, kit: Path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'it_ran'}",)

    folder = tmp_path / "bert"
    shutil.copytree(kit / "bert_micro", folder)
    torch.save({"bert.embeddings.LayerNorm.weight": Hostile()}, folder / "pytorch_model.bin")
    config.fusion_encoder = str(folder)
    with pytest.raises(WeightsError, match=str(folder)):
        build_model(config, Heads())
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("spoil", ["config", "weights cut", "weights of text"])
def test_a_broken_folder_is_told_in_one_line(config: Config, bert: dict[str, Tensor], tmp_path: Path, spoil: str):
    folder = tmp_path / "bert"
    if spoil == "config":
        (folder / "config.json").write_text('{"hidden_size": 64')
    else:
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000] if spoil == "weights cut" else b"version https://git-lfs")
    with pytest.raises(WeightsError, match=str(folder)) as raised:
        build_model(config, Heads())
    assert "\n" not in str(raised.value)


def test_widths_of_text_and_fusion_must_agree(config: Config, tmp_path: Path, kit: Path):
    save_bert(tmp_path / "wide", kit, hidden_size=128)
    config.fusion_encoder = str(tmp_path / "wide")
    with pytest.raises(WeightsError, match="txt_backbone is 64 wide and fusion_encoder 128: they must be equal"):
        build_model(config, Heads())


# --- Video Swin -------------------------------------------------------------------------------------------------------


def test_video_swin_file(config: Config, backbone: dict[str, Tensor], log):
    model = build_model(config, Heads())
    for name, tensor in model.enc_img.swin.state_dict().items():
        assert torch.equal(tensor, backbone[f"backbone.{name}"]), name
    assert f"weights from {config.vis_backbone_path}: " in log.text
    assert "missing" not in log.text
    assert "left over" not in log.text


def test_the_released_place_of_the_file(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_model):
    monkeypatch.chdir(tmp_path)
    config.vis_backbone_init = "3d"
    released = Path("_models/video_swin_transformer/swin_micro_patch244_window877_kinetics600_1k.pth")
    with pytest.raises(WeightsError, match=rf"^{released}: .*--vis_backbone_path.*--vis_backbone_init random"):
        load_backbone(make_model(), config)
    released.parent.mkdir(parents=True)
    torch.save({"state_dict": backbone_state()}, released)
    load_backbone(make_model(), config)


@pytest.mark.parametrize(
    ("size", "size_img", "kinetics", "name"),
    [
        ("base", 224, 600, "swin_base_patch244_window877_kinetics600_22k.pth"),
        ("base", 224, 400, "swin_base_patch244_window877_kinetics400_22k.pth"),
        ("tiny", 224, 400, "swin_tiny_patch244_window877_kinetics400_1k.pth"),
        ("small", 224, 400, "swin_small_patch244_window877_kinetics400_1k.pth"),
        ("large", 224, 600, "swin_large_patch244_window877_kinetics600_22k.pth"),
        ("large", 384, 600, "swin_large_384_patch244_window81212_kinetics600_22k.pth"),
    ],
)
def test_released_names(config: Config, size: str, size_img: int, kinetics: int, name: str):
    changed = replace(config, vis_backbone_size=size, size_img=size_img, kinetics=kinetics)
    assert video_swin_file(changed) == name


def test_a_backbone_of_another_size_is_refused(config: Config, tmp_path: Path):
    state = {name: tensor.repeat(*[2] * tensor.dim()) for name, tensor in backbone_state().items()}
    config.vis_backbone_init, config.vis_backbone_path = "3d", str(tmp_path / "swin.pth")
    torch.save({"state_dict": state}, tmp_path / "swin.pth")
    with pytest.raises(WeightsError, match=r"swin\.pth is not of this model: .* check vis_backbone_size"):
        build_model(config, Heads())


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_wins_over_bert_and_needs_no_backbone(
    config: Config, bert: dict[str, Tensor], kit: Path, tmp_path: Path
):
    first = build_model(config, Heads())
    torch.save(first.state_dict(), tmp_path / "ckpt.pt")
    save_bert(tmp_path / "bert", kit)  # other weights in the same place
    config.vis_backbone_init = "3d"  # and no file of it anywhere
    config.path_ckpt = str(tmp_path / "ckpt.pt")
    again = build_model(config, Heads())
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_reinit_head_is_berts_head(config: Config, bert: dict[str, Tensor], make_model, tmp_path: Path):
    torch.save(make_model().state_dict(), tmp_path / "ckpt.pt")
    config.path_ckpt, config.reinit_head = str(tmp_path / "ckpt.pt"), True
    model = build_model(config, Heads())
    assert_part(model, "fc_mtm", bert, "cls")
    assert_part(model, "trsfr", bert, "bert.encoder", equal=False)


def test_a_missing_checkpoint_stops_the_run(config: Config):
    config.path_ckpt = "nowhere/ckpt.pt"
    with pytest.raises(WeightsError, match=r"^nowhere/ckpt\.pt: no such checkpoint"):
        build_model(config, Heads())


# --- the table of origins ---------------------------------------------------------------------------------------------


def origins(messages: list[str]) -> dict[str, dict[str, int]]:
    """Module → source → parameters, from the table at the end of a log."""
    start = messages.index("weights of each module, in parameters:")
    table: dict[str, dict[str, int]] = {}
    for line in messages[start + 1 :]:
        module, count, source = re.fullmatch(r"  (\S.*?) +([\d,]+)  (.+)", line).groups()
        assert source not in table.setdefault(module, {}), "one line for each source of a module"
        table[module][source] = int(count.replace(",", ""))
    return table


def size(module: object) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_table_says_where_each_module_is_from(
    config: Config, bert: dict[str, Tensor], backbone: dict[str, Tensor], log
):
    model = build_model(config, Heads(classifiers={"fc": 3}))
    folder = config.txt_backbone
    assert origins(log.messages) == {
        "emb_task": {AS_INITIALISED: 640},
        "enc_img tables": {AS_INITIALISED: 64 * (1 + 197 + 6 + 1)},
        "enc_img.swin": {config.vis_backbone_path: size(model.enc_img.swin)},
        "enc_img.fc": {AS_INITIALISED: 128 * 64 + 64},
        "enc_img.norm": {AS_INITIALISED: 128},
        "enc_txt.emb_txt": {folder: size(model.enc_txt.emb_txt)},
        "trsfr": {folder: size(model.trsfr)},
        "fc_mtm": {folder: size(model.fc_mtm)},
        "fc": {AS_INITIALISED: size(model.fc)},
    }


def test_the_table_counts_rows_of_tables_and_heads_that_stay_berts(
    config: Config, bert: dict[str, Tensor], make_model, tmp_path: Path, log
):
    path = str(tmp_path / "ckpt.pt")
    torch.save(make_model(max_size_frame=4).state_dict(), path)
    config.path_ckpt, config.reinit_head = path, True
    model = build_model(config, Heads())
    table = origins(log.messages)
    assert table["enc_img tables"] == {path: 64 * (1 + 197 + 4 + 1), AS_INITIALISED: 2 * 64}
    assert table["fc_mtm"] == {config.fusion_encoder: size(model.fc_mtm)}
    assert table["trsfr"] == {path: size(model.trsfr)}
    assert sum(sum(sources.values()) for sources in table.values()) == size(model)


def test_one_line_says_what_is_from_where(config: Config, bert: dict[str, Tensor], backbone: dict[str, Tensor], log):
    model = build_model(config, Heads(classifiers={"fc": 3}))
    (line,) = [record.getMessage() for record in log.records if record.levelname == "INFO"]
    random = size(model) - size(model.enc_img.swin) - size(model.enc_txt) - size(model.trsfr) - size(model.fc_mtm)
    assert line.startswith(f"model: {size(model):,} parameters")
    assert f"{size(model.enc_img.swin):,} from {config.vis_backbone_path}" in line
    assert f"{size(model.enc_txt) + size(model.trsfr) + size(model.fc_mtm):,} from {config.txt_backbone}" in line
    assert f"{random:,} random (emb_task, enc_img tables, enc_img.fc, enc_img.norm, fc)" in line


def test_a_model_without_any_file_is_all_random_in_the_table(config: Config, log):
    build_model(config, Heads())
    assert {source for sources in origins(log.messages).values() for source in sources} == {AS_INITIALISED}


def test_a_bert_without_head_is_no_source_of_the_head(config: Config, tmp_path: Path, kit: Path, log):
    save_bert(tmp_path / "bert", kit, "BertModel")
    config.txt_backbone = config.fusion_encoder = str(tmp_path / "bert")
    model = build_model(config, Heads())
    assert origins(log.messages)["fc_mtm"][AS_INITIALISED] > 0.9 * size(model.fc_mtm.predictions.transform)


def test_options_reach_the_model(config: Config):
    config.max_size_frame, config.max_size_patch, config.vis_backbone_drop_path = 9, 3, 0.45
    model = build_model(config, Heads())
    assert model.enc_img.emb_len.shape == (1, 9, 1, 64)
    assert model.enc_img.emb_pos.shape == (1, 1, 10, 64)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert max(rates) == rates[-1] == pytest.approx(0.45)
    assert json.loads((Path(config.txt_backbone) / "config.json").read_text())["hidden_size"] == 64


def test_large_at_384_pixels_has_its_own_window(config: Config, monkeypatch: pytest.MonkeyPatch):
    sizes = []

    class Stop(Exception):  # noqa: N818
        pass

    def note(size: str, *_, **__):
        sizes.append(size)
        raise Stop

    monkeypatch.setattr(VideoSwin, "__init__", lambda self, *options: note(*options))
    for size, size_img in [("large", 384), ("large", 224), ("base", 384)]:
        with pytest.raises(Stop):
            build_model(replace(config, vis_backbone_size=size, size_img=size_img, max_size_patch=14), Heads())
    assert sizes == ["large_384", "large", "base"]


def test_an_evaluation_of_a_head_that_the_checkpoint_lacks_is_refused(config: Config, make_model, tmp_path: Path):
    torch.save(make_model().state_dict(), tmp_path / "ckpt.pt")
    config.path_ckpt, config.size_epoch, heads = str(tmp_path / "ckpt.pt"), 0, Heads(classifiers={"fc": 1})
    with pytest.raises(WeightsError, match=r"ckpt\.pt .*fc\.1\.weight.*--allow_random"):
        build_model(config, heads)
    for options in ({"allow_random": True}, {"size_epoch": 1}):
        assert build_model(replace(config, **options), heads)


def test_an_evaluation_of_weights_that_the_checkpoint_lacks_is_refused(config: Config, make_model, tmp_path: Path):
    """Not the head alone: a checkpoint without one of its layers would be evaluated with a random one."""
    state = {name: t for name, t in make_model().state_dict().items() if not name.startswith("trsfr.layer.1.")}
    torch.save(state, tmp_path / "ckpt.pt")
    config.path_ckpt, config.size_epoch = str(tmp_path / "ckpt.pt"), 0
    with pytest.raises(WeightsError, match=r"ckpt\.pt .*trsfr\.layer\.1\..*--allow_random"):
        build_model(config, Heads())
    for options in ({"allow_random": True}, {"size_epoch": 1}):
        assert build_model(replace(config, **options), Heads())
