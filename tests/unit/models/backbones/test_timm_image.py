"""Image models of timm as video backbones, with random weights; nothing is fetched."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.engine.optim import parameter_groups
from lavender.models.activation_checkpoint import checkpoint_activations
from lavender.models.backbones.timm_image import TimmImage
from lavender.models.lavender import Heads, Lavender
from lavender.models.pretrained import export, load_pretrained
from lavender.models.weights import build_model
from lavender.runtime.errors import ConfigError, TrainingError, WeightsError

TINY = "test_vit"  # of timm, for tests: 0.4 M parameters, trained on 160 pixels
KINDS = {  # name → pixels a token, width, blocks
    "vit_small_patch16_224": (16, 384, 12),
    "convnext_tiny": (32, 768, 18),
    "swin_tiny_patch4_window7_224": (32, 768, 12),
    "hiera_tiny_224": (32, 768, 12),
}


@pytest.fixture
def tiny(config: Config) -> Config:
    return replace(config, vis_backbone=f"timm:{TINY}")


def clips(frames: int = 2, size: int = 64) -> Tensor:
    return torch.randn(2, frames, 3, size, size, generator=torch.Generator().manual_seed(2))


def loss_of(model: Lavender) -> Tensor:
    torch.manual_seed(5)  # drop path and dropout draw the same
    ids = torch.tensor([[101, 110, 111, 102]] * 2)
    return model.fuse(model.encode_video(clips()), model.encode_text(ids, torch.ones_like(ids))).square().mean()


def gradients(model: Lavender) -> dict[str, Tensor]:
    loss_of(model).backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in KINDS])
def test_a_model_trains_is_saved_loaded_recomputed_and_exported(name: str, config: Config, tmp_path: Path):
    pixels, width, blocks = KINDS[name]
    config = replace(config, vis_backbone=f"timm:{name}")
    model = build_model(config, Heads()).train()
    backbone = model.backbone
    assert (backbone.pixels, backbone.width, len(backbone.blocks())) == (pixels, width, blocks)
    with torch.no_grad():
        assert backbone(clips(3)).shape == (2, 3, 64 // pixels, 64 // pixels, width)
    plain = gradients(model)
    trained = {name for name, weight in backbone.named_parameters() if weight.requires_grad}
    assert trained == {name.removeprefix("enc_img.timm.") for name in plain if name.startswith("enc_img.timm.")}
    torch.save(model.state_dict(), tmp_path / "ckpt.pt")

    again = build_model(replace(config, path_ckpt=str(tmp_path / "ckpt.pt")), Heads()).train()
    checkpoint_activations(again, offload=False)
    recomputed = gradients(again)
    assert plain.keys() == recomputed.keys()
    for weight, gradient in plain.items():
        assert (recomputed[weight] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, weight

    export(tmp_path / "ckpt.pt", tmp_path / "out", config.txt_backbone, config.fusion_encoder, config.vis_backbone, 64)
    loaded = load_pretrained(tmp_path / "out")
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_features_are_timms_without_prefix_tokens():
    backbone = TimmImage("deit_tiny_distilled_patch16_224", 64).eval()
    with torch.no_grad():
        tokens = backbone.model.forward_features(clips().flatten(0, 1))  # (4, 2 + 16, 192)
        features = backbone(clips())
    assert tokens.shape == (4, 18, 192)
    assert torch.allclose(features.flatten(2, 3).flatten(0, 1), tokens[:, 2:], atol=1e-5)


def test_a_map_of_channels_first_becomes_channels_last():
    backbone = TimmImage("resnet18", 64).eval()
    with torch.no_grad():
        maps = backbone.model.forward_features(clips().flatten(0, 1))  # (4, 512, 2, 2)
        assert torch.equal(backbone(clips())[1, 0], maps[2].permute(1, 2, 0))
    assert len(backbone.blocks()) == 8


def test_weights_that_features_do_not_need_are_frozen():
    backbone = TimmImage("convnext_atto", 64)
    frozen = {name for name, weight in backbone.named_parameters() if not weight.requires_grad}
    assert frozen == {"model.head.norm.weight", "model.head.norm.bias"}


def test_frames_are_normalised_as_the_model_expects(tiny: Config):
    model = build_model(tiny, Heads()).eval()
    assert (model.backbone.mean, model.backbone.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    grey = torch.full((1, 1, 3, 64, 64), 255, dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model.encode_video(grey).states, model.encode_video(torch.ones(1, 1, 3, 64, 64)).states)


def test_optimizer_groups_are_the_backbones(config: Config):
    wider = replace(config, vis_backbone="timm:vit_tiny_patch16_224")  # than the text encoder: features are projected
    groups = parameter_groups(build_model(wider, Heads()), lr=1e-3, backbone_lr_mul=0.5, decay=0.1)
    place = {name: number for number, group in enumerate(groups) for name in group["names"]}
    expected = {"pos_embed": 2, "cls_token": 2, "blocks.0.norm1.weight": 2, "blocks.0.attn.qkv.weight": 0}
    assert {name: place[f"enc_img.timm.model.{name}"] for name in expected} == expected
    assert place["enc_img.fc.weight"] == 1
    assert [group["lr"] for group in groups] == [5e-4, 1e-3, 5e-4, 1e-3]


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pretrained() -> nn.Module:
    """A whole classifier of 160 pixels, as timm gives it."""
    with torch.random.fork_rng():
        torch.manual_seed(9)
        return timm.create_model(TINY)


@pytest.mark.parametrize("form", ["file", "folder", "wrapped"])
def test_weights_from_a_file_or_a_folder(tiny: Config, pretrained: nn.Module, tmp_path: Path, form: str, log):
    state = {name: tensor.contiguous() for name, tensor in pretrained.state_dict().items()}
    path = tmp_path / {"file": "vit.safetensors", "folder": "", "wrapped": "vit.pth"}[form]
    if form == "wrapped":
        torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    else:
        save_file(state, path / "model.safetensors" if form == "folder" else path)
    model = build_model(replace(tiny, vis_backbone_init="3d", vis_backbone_path=str(path)), Heads())
    own = model.backbone.model
    assert torch.equal(own.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])
    assert own.pos_embed.shape == (1, 1 + 16, 64), "built for 64 pixels; the table of 160 is resized by timm"
    assert torch.equal(own.norm.bias, state["norm.bias"])
    assert f"weights from {path}: " in log.text
    assert "left over" not in log.text


def test_weights_of_another_model_are_refused(tiny: Config, tmp_path: Path):
    for name, what in (("test_vit3", "of another|do not fit"), ("test_resnet", "do not fit")):
        torch.save(timm.create_model(name).state_dict(), tmp_path / "x.pth")
        with pytest.raises(WeightsError, match=rf"x\.pth.*{what}"):
            build_model(replace(tiny, vis_backbone_path=str(tmp_path / "x.pth"), vis_backbone_init="timm"), Heads())


@pytest.mark.parametrize(("init", "path"), [("3d", ""), ("2d", f"timm:{TINY}"), ("timm", f"timm:{TINY}")])
def test_weights_that_nobody_names_are_asked_for(tiny: Config, init: str, path: str):
    with pytest.raises(
        WeightsError, match=r"--vis_backbone_path.*--vis_backbone_init timm.*--vis_backbone_init random"
    ):
        build_model(replace(tiny, vis_backbone_init=init, vis_backbone_path=path), Heads())


def test_timm_fetches_weights_only_when_it_is_asked(tiny: Config, monkeypatch: pytest.MonkeyPatch):
    create, asked = timm.create_model, []

    def note(name: str, pretrained: bool = False, **options):
        asked.append((name, pretrained, options.get("img_size")))
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", note)
    build_model(tiny, Heads())
    assert asked == [(TINY, False, 64)]
    build_model(replace(tiny, vis_backbone_init="timm"), Heads())
    assert asked[1:] == [(TINY, False, 64), (TINY, True, 64)]


def test_a_checkpoint_serves_another_size_of_frame(tiny: Config, tmp_path: Path):
    first = build_model(tiny, Heads())
    torch.save(first.state_dict(), tmp_path / "ckpt.pt")
    larger = build_model(replace(tiny, size_img=96, path_ckpt=str(tmp_path / "ckpt.pt")), Heads())
    assert larger.backbone.model.pos_embed.shape[1] == 1 + 36
    assert torch.equal(larger.backbone.model.blocks[0].attn.qkv.weight, first.backbone.model.blocks[0].attn.qkv.weight)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "facts"),
    [
        ("vit_tiny_patch16_22", 64, r'"vit_tiny_patch16_22".*vit_tiny_patch16_224'),
        ("qqq", 64, '"qqq"'),
        (f"{TINY}.nope", 64, f"{TINY}.nope.*nope"),
        ("crossvit_tiny_240", 64, "crossvit_tiny_240.*64×64"),
    ],
)
def test_a_model_that_cannot_serve_is_told(name: str, size: int, facts: str):
    with pytest.raises(ConfigError, match=facts) as raised:
        TimmImage(name, size)
    assert "\n" not in str(raised.value)


def test_a_table_with_too_few_patches_is_told_at_the_start(tiny: Config):
    with pytest.raises(ConfigError, match=r"size_img 64 has 4 patches a side.*max_size_patch to 4"):
        build_model(replace(tiny, max_size_patch=3), Heads())


def test_without_blocks_nothing_can_be_recomputed(make_model, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("fairscale")
    model = make_model()
    monkeypatch.setattr(type(model.backbone), "blocks", lambda self: [])
    with pytest.raises(TrainingError, match="--use_checkpoint false"):
        checkpoint_activations(model, offload=False)


def test_an_export_needs_the_name_of_the_backbone(tiny: Config, tmp_path: Path):
    torch.save(build_model(tiny, Heads()).state_dict(), tmp_path / "ckpt.pt")
    with pytest.raises(WeightsError, match=r"ckpt\.pt has no Video Swin.*--vis_backbone"):
        export(tmp_path / "ckpt.pt", tmp_path / "out", tiny.txt_backbone, tiny.fusion_encoder)
    assert not (tmp_path / "out").exists()
