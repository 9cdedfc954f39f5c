"""Backbones of others against the models that they come from: timm's 2D Swin."""

# isort: split

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lavender.config.schema import Config
from lavender.models.backbones.video_swin import VideoSwin
from lavender.models.backbones.video_swin_sizes import SWIN_SIZES, SwinSize
from lavender.models.backbones.video_swin_weights import (
    backbone_file,
    backbone_kind,
    fetch_timm_swin,
    from_timm,
    resize_bias,
    to_video_swin,
)
from lavender.models.lavender import Heads
from lavender.models.weights import build_model
from lavender.runtime.errors import WeightsError
from tests.unit.models.backbones.foreign_world import TIMM_TINY, WINDOW, drawn, filled, images, read_backbone, same

# --- 2D Swin ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swin2d() -> nn.Module:
    return drawn(timm.create_model(TIMM_TINY))


@pytest.fixture(scope="module")
def inflated(swin2d: nn.Module) -> VideoSwin:
    return filled("tiny", swin2d.state_dict(), "2d")


def original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A timm state as the original repository writes it, buffers and head included."""
    ours = {}
    for name, tensor in state.items():
        _, stage, rest = name.split(".", 2) if ".downsample." in name else ("", "", "")
        ours[f"layers.{int(stage) - 1}.{rest}" if rest else name] = tensor
    ours["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    ours["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    return {name.replace("head.fc.", "head."): tensor for name, tensor in ours.items()}


def test_two_equal_frames_embed_as_one_image(swin2d: nn.Module, inflated: VideoSwin):
    """Each frame is embedded with the next one: equality holds but for the last, which is embedded with zeros."""
    img = images(2, 3, 224, 224)
    with torch.inference_mode():
        ours, theirs = inflated.patch_embed(img[:, None].repeat(1, 4, 1, 1, 1)), swin2d.patch_embed(img)
    for frame in range(3):
        assert same(ours[:, frame], theirs, 1e-5)
    assert not same(ours[:, 3], theirs, 1e-2)


@pytest.mark.parametrize("frames", [1, 8])
def test_a_still_clip_is_encoded_as_its_image(swin2d: nn.Module, inflated: VideoSwin, frames: int):
    """All stages behind the patch embedding, shifted windows and patch merging included, give for T equal frames what
    the 2D model gives for one: at 224 pixels windows are whole, T ≤ 8 frames are not shifted, the biases do not depend
    on time, and attention over T copies of the same keys is attention over one. From the 2D model's patch embedding,
    because the last frame's differs (see above)."""
    img = images(1, 3, 224, 224)
    with torch.inference_mode():
        x = swin2d.patch_embed(img)[:, None].repeat(1, frames, 1, 1, 1)
        for layer in inflated.layers:
            x = layer(x)
        ours, theirs = inflated.norm(x), swin2d.forward_features(img)
    for frame in range(frames):
        assert same(ours[:, frame], theirs)


def test_patch_merging_has_timms_order_of_channels(swin2d: nn.Module, inflated: VideoSwin):
    x = images(1, 1, 5, 7, 96)  # odd sides are padded
    with torch.inference_mode():
        ours, theirs = inflated.layers[0].downsample(x), swin2d.layers[1].downsample(x[0])
        assert same(ours[0], theirs)
        swapped = x.transpose(2, 3)
        assert not same(inflated.layers[0].downsample(swapped)[0].transpose(1, 2), theirs, 1e-2), "an order was tested"


def test_both_ways_of_naming_are_the_same(swin2d: nn.Module):
    state = swin2d.state_dict()
    ours, theirs = (to_video_swin(s, "2d", WINDOW) for s in (original(state), state))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(name.startswith("head") or "attn_mask" in name for name in ours)
    assert list(from_timm(original(state))) == list(original(state)), "these names stay"


def test_tables_are_repeated_over_time(swin2d: nn.Module, inflated: VideoSwin):
    name = "layers.2.blocks.3.attn.relative_position_bias_table"
    table, ours = swin2d.state_dict()[name], inflated.state_dict()[name]
    assert ours.shape == (15 * 169, 12)
    assert torch.equal(ours.view(15, 169, 12), table.expand(15, -1, -1))


def test_tables_of_another_window_are_resized():
    """Bicubic resizing keeps a plane a plane (away from the borders), and knows rows from columns."""
    side, target = 23, 13  # of windows of 12 and 7
    rows, columns = torch.meshgrid(torch.arange(side).float(), torch.arange(side).float(), indexing="ij")
    table = torch.stack([3 * rows - columns, rows + 10 * columns], dim=-1).view(side * side, 2)
    resized = resize_bias("t", table, 7, 7).view(target, target, 2)
    centers = (torch.arange(target) + 0.5) * side / target - 0.5  # where a cell of the smaller grid lies in the larger
    rows, columns = torch.meshgrid(centers, centers, indexing="ij")
    expected = torch.stack([3 * rows - columns, rows + 10 * columns], dim=-1)
    inner = slice(2, -2)
    assert torch.allclose(resized[inner, inner], expected[inner, inner], atol=1.0)
    assert (resized[inner, inner] - expected[inner, inner]).abs().mean() < 0.3
    wide = resize_bias("t", table, 7, 12).view(target, side, 2)
    assert torch.allclose(wide[inner, inner, 0], (3 * centers[:, None] - torch.arange(side))[inner, inner], atol=1.0)
    assert resize_bias("t", table, 12, 12) is table, "nothing to resize"
    assert resize_bias("t", table.bfloat16(), 7, 7).dtype == torch.float32


def test_a_file_of_384_pixels_fills_a_window_of_7(config: Config, monkeypatch: pytest.MonkeyPatch):
    theirs = timm.create_model(
        "swin_base_patch4_window12_384", embed_dim=16, num_heads=(1, 2, 4, 8), depths=(2, 2, 4, 2)
    )
    swin = filled("micro", theirs.state_dict(), "2d")
    table = theirs.layers[0].blocks[0].attn.relative_position_bias_table
    first = swin.layers[0].blocks[0].attn.relative_position_bias_table[:169]
    assert torch.equal(first, resize_bias("t", table, 7, 7))
    large = SwinSize(16, (2, 2, 4, 2), (1, 2, 4, 8), (8, 12, 12))
    monkeypatch.setitem(SWIN_SIZES, "large_384", large)
    swin = filled("large_384", theirs.state_dict(), "2d")
    assert torch.equal(swin.layers[0].blocks[0].attn.relative_position_bias_table[:529], table)


def test_a_table_of_no_square_window_is_told():
    for table in (torch.zeros(168, 3), torch.zeros(169), torch.zeros(0, 3), torch.tensor(1.0)):
        with pytest.raises(WeightsError, match=r"^layers\.0\.table is .*no table of a square window"):
            resize_bias("layers.0.table", table, 7, 7)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def micro2d() -> dict[str, Tensor]:
    """A 2D Swin of the micro size, under timm's names."""
    options = {"embed_dim": 16, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8), "num_classes": 10}
    return drawn(timm.create_model(TIMM_TINY, **options)).state_dict()


@pytest.mark.parametrize("names", ["original", "timm"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_2d_files_in_a_whole_model(config: Config, micro2d: dict[str, Tensor], tmp_path: Path, names: str, ending: str):
    state = original(micro2d) if names == "original" else micro2d
    path = tmp_path / f"swin{ending}"
    if ending == ".pth":
        torch.save({"model": state}, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    model = build_model(replace(config, vis_backbone_init="2d", vis_backbone_path=str(path)), Heads())
    swin = model.enc_img.swin
    kernel = micro2d["patch_embed.proj.weight"]
    assert torch.equal(swin.patch_embed.proj.weight, torch.stack([kernel / 2, kernel / 2], dim=2))
    assert torch.equal(swin.layers[2].downsample.reduction.weight, micro2d["layers.3.downsample.reduction.weight"])
    assert torch.equal(swin.norm.bias, micro2d["norm.bias"])


@pytest.mark.parametrize(
    ("size", "size_img", "names"),
    [
        ("base", 224, ["swin_base_patch4_window7_224_22k.pth"]),
        ("large", 224, ["swin_large_patch4_window7_224_22k.pth"]),
        ("large", 384, ["swin_large_patch4_window12_384_22k.pth"]),
        ("tiny", 224, ["swin_tiny_patch4_window7_224.pth", "swin_tiny_patch4_window7_224_22k.pth"]),
        ("small", 224, ["swin_small_patch4_window7_224.pth", "swin_small_patch4_window7_224_22k.pth"]),
    ],
)
def test_released_names_of_2d_files(config: Config, monkeypatch, tmp_path: Path, size: str, size_img: int, names: list):
    monkeypatch.chdir(tmp_path)
    folder = Path("_models/swin_transformer")
    changed = replace(config, vis_backbone_init="2d", vis_backbone_size=size, size_img=size_img)
    assert backbone_file(changed) == folder / names[0]
    with pytest.raises(WeightsError, match=rf"^{folder / names[0]}: .*--vis_backbone_path.*--vis_backbone_init random"):
        read_backbone(changed)
    folder.mkdir(parents=True)
    for name in reversed(names):  # the likelier wins
        (folder / name).touch()
        assert backbone_file(changed) == folder / name


def test_a_file_of_another_kind_says_which_option_it_is_for(
    config: Config, swin3d_t: nn.Module, micro2d: dict[str, Tensor], tmp_path: Path
):
    own = {f"backbone.{name}": tensor for name, tensor in VideoSwin("micro").state_dict().items()}
    states = {"2d": micro2d, "torchvision": swin3d_t.state_dict(), "3d": own, "": {"layers.0.weight": torch.zeros(2)}}
    path = tmp_path / "swin.pth"
    for kind, state in states.items():
        torch.save(state, path)
        for asked in ("2d", "3d", "torchvision"):
            if asked == kind:
                continue
            what = f"is for --vis_backbone_init {kind}, and" if kind else "is no Swin whose names are known, and"
            changed = replace(config, vis_backbone_init=asked, vis_backbone_path=str(path))
            with pytest.raises(WeightsError, match=rf"^{path} {what} vis_backbone_init is {asked}"):
                read_backbone(changed)
    assert backbone_kind({"patch_embed.proj.weight": torch.zeros(3)}) == ""


# --- timm's hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    def answer(with_: Callable) -> list:
        asked: list = []

        def create(name: str, pretrained: bool = False, **_):
            asked.append((name, pretrained))
            return with_()

        monkeypatch.setattr(timm, "create_model", create)
        return asked

    return answer


def test_a_model_of_timms_hub(config: Config, swin2d: nn.Module, hub, log):
    asked = hub(lambda: swin2d)
    config = replace(config, vis_backbone_size="tiny", vis_backbone_init="2d", vis_backbone_path=f"timm:{TIMM_TINY}")
    model = build_model(config, Heads())
    assert asked == [(TIMM_TINY, True)]
    assert torch.equal(model.enc_img.swin.norm.weight, swin2d.norm.weight)
    assert f"weights from timm:{TIMM_TINY}: " in log.text


def test_without_a_network_timm_is_a_line_with_advice(hub):
    def refuse():
        from huggingface_hub.errors import LocalEntryNotFoundError

        raise LocalEntryNotFoundError("An error happened while trying to locate the file\non the Hub")

    hub(refuse)
    with pytest.raises(WeightsError, match=rf'^"timm:{TIMM_TINY}" could not be fetched from the hub') as raised:
        fetch_timm_swin(TIMM_TINY)
    assert "--vis_backbone_path" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_that_timm_has_not_and_other_kinds(config: Config):
    for name in ("swin_nope", "resnet18", ""):
        with pytest.raises(WeightsError, match=rf'"timm:{name}" is no 2D Swin of timm; it has .*{TIMM_TINY}'):
            fetch_timm_swin(name)
    changed = replace(config, vis_backbone_init="3d", vis_backbone_path=f"timm:{TIMM_TINY}")
    with pytest.raises(WeightsError, match="is a model of images: set --vis_backbone_init 2d"):
        read_backbone(changed)


def test_a_tag_of_timm_is_part_of_the_name(swin2d: nn.Module, hub):
    asked = hub(lambda: swin2d)
    fetch_timm_swin(f"{TIMM_TINY}.ms_in22k")
    assert asked == [(f"{TIMM_TINY}.ms_in22k", True)]
