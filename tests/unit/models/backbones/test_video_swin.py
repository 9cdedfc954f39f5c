from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lavender.models.backbones.video_swin import (
    PatchEmbedding,
    PatchMerging,
    SwinBlock,
    VideoSwin,
    WindowAttention,
    attend,
    effective_window,
    join_windows,
    partition_windows,
    relative_position_index,
    shifted_window_mask,
)
from lavender.models.backbones.video_swin_sizes import SWIN_SIZES

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


def lively(module: Any) -> Any:
    """Every weight drawn at random, biases and tables of positions too."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


# --- windows ----------------------------------------------------------------------------------------------------------


def test_sizes():
    assert {name: (s.embed_dim, s.depths, s.heads, s.window) for name, s in SWIN_SIZES.items()} == {
        "micro": (16, (2, 2, 4, 2), (1, 2, 4, 8), (8, 7, 7)),
        "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), (8, 7, 7)),
        "small": (96, (2, 2, 18, 2), (3, 6, 12, 24), (8, 7, 7)),
        "base": (128, (2, 2, 18, 2), (4, 8, 16, 32), (8, 7, 7)),
        "large": (192, (2, 2, 18, 2), (6, 12, 24, 48), (8, 7, 7)),
        "large_384": (192, (2, 2, 18, 2), (6, 12, 24, 48), (8, 12, 12)),
    }


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((4, 56, 56), (4, 7, 7), (0, 3, 3)),
        ((8, 8, 7), (8, 7, 7), (0, 3, 0)),
        ((9, 14, 3), (8, 7, 3), (4, 3, 0)),
        ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ],
)
def test_a_dimension_within_its_window_is_used_whole_and_unshifted(size, window, shift):
    assert effective_window(size, (8, 7, 7), (4, 3, 3)) == (window, shift)
    assert effective_window(size, (8, 7, 7), (0, 0, 0)) == (window, (0, 0, 0))


@pytest.mark.parametrize(("size", "window"), [((4, 6, 9), (2, 3, 3)), ((1, 7, 14), (1, 7, 7)), ((2, 2, 2), (1, 1, 1))])
def test_windows_are_cut_and_joined(size, window):
    x = torch.randn(2, *size, 5)
    windows = partition_windows(x, window)
    assert windows.shape == (2, x[0, ..., 0].numel() // (window[0] * window[1] * window[2]), *windows.shape[2:])
    starts = product(*[range(0, s, w) for s, w in zip(size, window, strict=True)])
    for number, (t, h, w) in enumerate(starts):
        cut = x[:, t : t + window[0], h : h + window[1], w : w + window[2]]
        assert torch.equal(windows[:, number], cut.flatten(1, 3))
    assert torch.equal(join_windows(windows, window, size), x)


@pytest.mark.parametrize(
    ("size", "window", "shift"),
    [
        ((1, 14, 21), (1, 7, 7), (0, 3, 3)),
        ((16, 7, 14), (8, 7, 7), (4, 0, 3)),
        ((4, 4, 4), (2, 2, 2), (1, 1, 1)),
    ],
)
def test_shifted_windows_separate_what_only_the_roll_brought_together(size, window, shift):
    mask = shifted_window_mask(size, window, shift, CPU)
    place = torch.stack(torch.meshgrid(*[torch.arange(s) for s in size], indexing="ij"), -1)  # (T, H, W, 3)
    came_from = torch.roll(place, [-s for s in shift], (0, 1, 2))
    wrapped = partition_windows((came_from < torch.tensor(shift)).float()[None], window)[0]  # (windows, N, 3)
    apart = (wrapped[:, :, None] != wrapped[:, None]).any(-1)
    assert torch.equal(mask, apart * -100.0)
    assert mask.min() == -100
    assert not mask[0].any(), "the first window holds no token from the other end"


def test_the_cached_mask_of_an_evaluation_serves_training():
    shifted_window_mask.cache_clear()
    block = SwinBlock(8, 2, (8, 7, 7), (4, 3, 3), 0.0)
    with torch.inference_mode():
        block(torch.randn(1, 2, 8, 8, 8))
        assert not shifted_window_mask((2, 14, 14), (2, 7, 7), (0, 3, 3), CPU).is_inference()
    block(torch.randn(1, 2, 8, 8, 8)).sum().backward()
    assert shifted_window_mask.cache_info().hits == 2
    assert block.attn.relative_position_bias_table.grad is not None


# --- attention --------------------------------------------------------------------------------------------------------


def test_relative_positions():
    window = (3, 2, 4)
    index = relative_position_index(window)
    places = list(product(*[range(w) for w in window]))
    rows: dict[tuple, set] = {}
    for (i, one), (j, other) in product(enumerate(places), enumerate(places)):
        rows.setdefault(tuple(a - b for a, b in zip(one, other, strict=True)), set()).add(int(index[i, j]))
    assert all(len(found) == 1 for found in rows.values()), "one row for each offset"
    used = set.union(*rows.values())
    assert len(used) == len(rows) == 5 * 3 * 7
    assert (min(used), max(used)) == (0, 5 * 3 * 7 - 1)
    assert index[0, -1] == 0
    assert index[-1, 0] == 5 * 3 * 7 - 1


def test_a_smaller_window_takes_the_top_left_of_the_index():
    attention = lively(WindowAttention(8, (8, 7, 7), 2))
    bias = attention.relative_position_bias(20)
    assert bias.shape == (2, 20, 20)
    full = attention.relative_position_bias_table[relative_position_index((8, 7, 7))]  # (392, 392, heads)
    assert torch.equal(bias, full[:20, :20].permute(2, 0, 1))


def test_the_table_of_positions_gets_a_gradient_where_it_is_used():
    attention = lively(WindowAttention(8, (2, 3, 3), 2))
    attention(torch.randn(2, 3, 12, 8), None).square().sum().backward()
    gradient = attention.relative_position_bias_table.grad
    assert gradient is not None
    used = torch.zeros(len(gradient), dtype=torch.bool)
    used[relative_position_index((2, 3, 3))[:12, :12].flatten()] = True
    assert torch.equal(gradient.ne(0).all(1), used)
    assert used.any()
    assert not used.all()


def test_the_gradient_of_the_table_is_the_slope():
    attention = lively(WindowAttention(4, (1, 2, 2), 1)).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.double)
    mask = shifted_window_mask((1, 2, 4), (1, 2, 2), (0, 0, 1), CPU).double()

    def loss(table: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(attention, {"relative_position_bias_table": table}, (x, mask))

    table = attention.relative_position_bias_table.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, table)


@pytest.mark.parametrize("masked", [False, True])
def test_both_ways_to_attend_agree(masked: bool):
    query, key, value = (torch.randn(2, 3, 10, 4, requires_grad=True) for _ in range(3))
    table = torch.randn(1, 3, 10, 10, requires_grad=True)
    bias = table + (torch.rand(10, 10) < 0.3) * -100.0 if masked else table
    written_out = attend(query, key, value, bias)
    with torch.no_grad():
        fused = attend(query, key, value, bias)
    assert torch.allclose(written_out, fused, atol=1e-6)
    reference = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    leaves, weights = (query, key, value, table), torch.randn_like(fused)
    ours = torch.autograd.grad((written_out * weights).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad((reference * weights).sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("shift", [(0, 0, 0), (4, 3, 3)])
def test_samples_do_not_see_each_other(shift):
    block = lively(SwinBlock(8, 2, (8, 7, 7), shift, 0.0))
    x = torch.randn(3, 2, 10, 9, 8)
    together = block(x)
    alone = torch.cat([block(sample[None]) for sample in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_pads_come_after_the_norm_and_are_attended_to():
    block = lively(SwinBlock(8, 2, (2, 4, 4), (0, 0, 0), 0.0))
    x = torch.randn(1, 2, 4, 5, 8)
    padded = F.pad(x, (0, 0, 0, 3))  # zeros, after the norm: no token of the frame looks like that before it
    windows = block.attn(partition_windows(padded, (2, 4, 4)), None)
    expected = join_windows(windows, (2, 4, 4), (2, 4, 8))[:, :, :, :5]
    assert torch.allclose(block.attend(x), expected, atol=1e-6)
    lonely = block.attn(x[:, :, :, 4:].reshape(1, 1, 8, 8), None)
    assert not torch.allclose(block.attend(x)[:, :, :, 4:].reshape(lonely.shape), lonely, atol=1e-3)


# --- the parts around it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [1, 3])
def test_patches_are_those_of_the_convolution(time: int):
    embedding = lively(PatchEmbedding(16))
    img = torch.randn(2, time, 3, 8, 12)
    frames = F.pad(img.transpose(1, 2), (0, 0, 0, 0, 0, 1))  # (B, 3, T + 1, H, W), one zero frame at the end
    expected = embedding.norm(embedding.proj(frames).permute(0, 2, 3, 4, 1))
    assert torch.allclose(embedding(img), expected, atol=1e-5)
    assert embedding(img).shape == (2, time, 2, 3, 16)
    turned = torch.randn(2, time, 3, 12, 8).transpose(3, 4)  # not contiguous
    assert torch.allclose(embedding(turned), embedding(turned.contiguous()))


def test_merging_joins_neighbours_in_the_released_order():
    merging = PatchMerging(2)
    merging.norm, merging.reduction = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    x = torch.arange(1 * 1 * 3 * 3 * 2.0).view(1, 1, 3, 3, 2) + 1
    out = merging(x)
    assert out.shape == (1, 1, 2, 2, 8)
    assert torch.equal(out[0, 0, 0, 0], torch.cat([x[0, 0, h, w] for h, w in ((0, 0), (1, 0), (0, 1), (1, 1))]))
    zeros = torch.zeros(2)
    assert torch.equal(out[0, 0, 1, 1], torch.cat([x[0, 0, 2, 2], zeros, zeros, zeros]))
    assert torch.equal(out[0, 0, 0, 1], torch.cat([x[0, 0, 0, 2], x[0, 0, 1, 2], zeros, zeros]))
    assert PatchMerging(2).reduction.bias is None


def test_frames_in_frames_out():
    swin = VideoSwin("micro").eval()
    with torch.inference_mode():
        assert swin(torch.randn(1, 3, 3, 64, 96)).shape == (1, 3, 2, 3, 128)
        assert swin(torch.randn(1, 1, 3, 32, 32)).shape == (1, 1, 1, 1, 128)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 65), (16, 16)])
def test_sides_that_are_no_multiple_of_32(height: int, width: int):
    with pytest.raises(ValueError, match=rf"multiples of 32 pixels, not {height}×{width}"):
        VideoSwin("micro")(torch.zeros(1, 1, 3, height, width))


@pytest.mark.parametrize("size", ["micro", "tiny"])
def test_norms_and_shifts_of_all_blocks(size: str):
    with torch.device("meta"):
        swin = VideoSwin(size)
    norms = [module for module in swin.modules() if isinstance(module, nn.LayerNorm)]
    depths = SWIN_SIZES[size].depths
    assert len(norms) == 2 * sum(depths) + 3 + 2  # blocks, mergings, patches and the last
    assert {norm.eps for norm in norms} == {1e-5}
    shifts = [module.shift for module in swin.modules() if isinstance(module, SwinBlock)]
    assert shifts == [(0, 0, 0), (4, 3, 3)] * (sum(depths) // 2)


# --- drop path --------------------------------------------------------------------------------------------------------


def drop_path_rates(swin: VideoSwin) -> list[float]:
    return [getattr(block.drop_path, "drop_prob", 0.0) for block in swin.modules() if isinstance(block, SwinBlock)]


@pytest.mark.parametrize(("size", "blocks"), [("micro", 10), ("tiny", 12), ("base", 24)])
@pytest.mark.parametrize("last", [0.2, 0.5, 0.0])
def test_drop_path_grows_from_0_to_the_last_block(size: str, blocks: int, last: float):
    with torch.device("meta"):
        rates = drop_path_rates(VideoSwin(size, last))
    assert rates == pytest.approx([last * block / (blocks - 1) for block in range(blocks)])


def test_drop_path_takes_whole_samples_and_each_branch_by_itself(monkeypatch: pytest.MonkeyPatch):
    block = SwinBlock(4, 1, (8, 7, 7), (0, 0, 0), 0.25)
    monkeypatch.setattr(block, "attend", torch.ones_like)
    nn.init.zeros_(block.mlp.fc2.weight)
    block.mlp.fc2.bias = nn.Parameter(torch.full((4,), 10.0))  # attention adds 1, the MLP 10
    x = torch.randn(4000, 1, 2, 2, 4)
    block.train()
    added = (block(x) - x).flatten(1)
    assert (added - added[:, :1]).abs().max() < 1e-4, "a sample is dropped whole"
    kinds, counts = (added[:, 0] * 0.75).round().unique(return_counts=True)
    assert kinds.tolist() == [0, 1, 10, 11], "what is kept is scaled by 1 / (1 − rate)"
    shares = counts / len(x)
    assert torch.allclose(shares, torch.tensor([1 / 16, 3 / 16, 3 / 16, 9 / 16]), atol=0.03)
    block.eval()
    assert torch.allclose(block(x) - x, torch.tensor(11.0), atol=1e-4)


def test_drop_path_is_at_work_in_training_alone():
    swin = lively(VideoSwin("micro", 0.5))
    img = torch.randn(2, 2, 3, 64, 64)
    with torch.no_grad():
        steady = swin(img)
        assert torch.equal(swin(img), steady)
        swin.train()
        assert not torch.allclose(swin(img), swin(img), atol=1e-3)
        without = VideoSwin("micro", 0.0).train()
        without.load_state_dict(swin.state_dict())
        assert torch.equal(without(img), steady), "without drop path nothing is dropped: Swin has no other dropout"
