"""Backbones of others against the models that they come from: torchvision's Video Swin."""

# isort: split

import urllib.error
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision.models._api
from torch import Tensor, nn
from torchvision.models import video as torchvision_video

from lavender.config.schema import Config
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.backbones.video_swin_sizes import SWIN_SIZES, SwinSize
from lavender.models.backbones.video_swin_weights import (
    backbone_file,
    fetch_torchvision,
)
from lavender.models.lavender import Heads
from lavender.models.weights import build_model
from lavender.runtime.errors import WeightsError
from tests.unit.models.backbones.foreign_world import drawn, filled, images, read_backbone, same


def torchvision_features(model: nn.Module, img: Tensor) -> Tensor:
    """Its features with our stride: (B, T, 3, H, W) → (B, T, H/32, W/32, C). It has the patch convolution at stride
    (2, 4, 4) and pads odd clips; ours has (1, 4, 4) and always one zero frame after the last."""
    model.patch_embed.tuple_patch_size = (1, 4, 4)  # what it pads to multiples of
    model.patch_embed.proj.stride = (1, 4, 4)
    return model.norm(model.features(model.patch_embed(F.pad(img.transpose(1, 2), (0, 0, 0, 0, 0, 1)))))


# 64: from the third stage a side fits in its window, which then is the whole side, unshifted; 96 × 160: padded and
# shifted in space; 10 frames: padded and shifted in time too, as more than a window's 8.
@pytest.mark.parametrize(
    ("frames", "height", "width"), [(4, 64, 64), (1, 96, 160), (4, 96, 160), (4, 224, 224), (10, 64, 96)]
)
def test_torchvision_gives_our_output_with_our_stride(swin3d_t: nn.Module, frames: int, height: int, width: int):
    img = images(1, frames, 3, height, width)
    with torch.inference_mode():
        ours = filled("tiny", swin3d_t.state_dict(), "torchvision")(img)
        assert same(ours, torchvision_features(swin3d_t, img))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "base"])
@pytest.mark.parametrize("frames", [4, 10])
def test_torchvisions_larger_models_too(size: str, frames: int):
    theirs = drawn(getattr(torchvision_video, f"swin3d_{size[0]}")())
    img = images(1, frames, 3, 96, 160)
    with torch.inference_mode():
        assert same(filled(size, theirs.state_dict(), "torchvision")(img), torchvision_features(theirs, img))


def test_with_its_own_stride_torchvision_differs(swin3d_t: nn.Module):
    """So the test above would see a stride that is not ours."""
    img = images(1, 4, 3, 64, 64)
    with torch.inference_mode():
        swin3d_t.patch_embed.tuple_patch_size = swin3d_t.patch_embed.proj.stride = (2, 4, 4)
        theirs = swin3d_t.norm(swin3d_t.features(swin3d_t.patch_embed(img.transpose(1, 2))))
        assert theirs.shape == (1, 2, 2, 2, 768)
        ours = filled("tiny", swin3d_t.state_dict(), "torchvision")(img)
        assert not same(ours[:, ::2], theirs, 1e-2)


def test_a_torchvision_file_in_a_whole_model(config: Config, swin3d_t: nn.Module, tmp_path: Path, log):
    torch.save(swin3d_t.state_dict(), tmp_path / "swin3d.pth")
    named = replace(config, vis_backbone_size="tiny", vis_backbone_init="torchvision")
    named.vis_backbone_path = str(tmp_path / "swin3d.pth")
    model = build_model(named, Heads())
    state = swin3d_t.state_dict()
    swin = model.enc_img.swin
    assert torch.equal(swin.layers[2].blocks[5].mlp.fc2.weight, state["features.4.5.mlp.3.weight"])
    assert torch.equal(swin.layers[1].downsample.reduction.weight, state["features.3.reduction.weight"])
    assert f"{sum(p.numel() for p in swin.parameters()):,}  {tmp_path / 'swin3d.pth'}" in log.text


def test_a_size_that_is_a_part_of_another_is_refused(config: Config, tmp_path: Path, monkeypatch):
    """Small is tiny with more blocks: every weight of tiny fits it."""
    few, many = (SwinSize(16, (2, 2, depth, 2), (1, 2, 4, 8)) for depth in (2, 4))
    path = tmp_path / "swin.pth"
    config = replace(config, vis_backbone_init="3d", vis_backbone_path=str(path))
    for here, there in ((few, many), (many, few)):
        monkeypatch.setitem(SWIN_SIZES, "micro", there)
        torch.save({"state_dict": VideoSwin("micro").state_dict()}, path)
        monkeypatch.setitem(SWIN_SIZES, "micro", here)
        fault = r"26 .*the first: layers\.2\.blocks\.2\..*; check vis_backbone_size"
        with pytest.raises(WeightsError, match=rf"^{path} is not of this model: {fault}"):
            build_model(config, Heads())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)


def test_torchvisions_own_weights_are_fetched(config: Config, swin3d_t: nn.Module, monkeypatch, tmp_path: Path):
    asked = []

    def fetch(url: str, **options):
        asked.append((url, options))
        return swin3d_t.state_dict()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    config = replace(config, vis_backbone_size="tiny", vis_backbone_init="torchvision")
    state, source = read_backbone(config)
    ((url, options),) = asked
    assert source == url == "https://download.pytorch.org/models/swin3d_t-7615ae03.pth"
    assert options["weights_only"] is True, "a file from the network runs no code"
    assert options["check_hash"] is True
    assert torch.equal(state["norm.weight"], swin3d_t.norm.weight)

    released = Path("_models/video_swin_transformer/swin3d_t-7615ae03.pth")
    assert backbone_file(config) == released
    released.parent.mkdir(parents=True)
    torch.save(swin3d_t.state_dict(), released)
    assert read_backbone(config)[1] == str(released)
    assert len(asked) == 1, "a file here needs no network"


def test_without_a_network_torchvision_is_a_line_with_advice(config: Config, offline: None, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = replace(config, vis_backbone_size="base", vis_backbone_init="torchvision")
    with pytest.raises(
        WeightsError, match=r"^https://\S+/swin3d_b_22k-7c6ae6fa\.pth could not be fetched \(.*not known"
    ) as raised:
        read_backbone(config)
    assert "--vis_backbone_path" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_sizes_that_torchvision_has_not(config: Config):
    with pytest.raises(WeightsError, match='no Video Swin of size "micro": set vis_backbone_size to tiny, small, base'):
        read_backbone(replace(config, vis_backbone_init="torchvision"))
    with pytest.raises(WeightsError, match='no Video Swin of size "large"'):
        fetch_torchvision("large")
