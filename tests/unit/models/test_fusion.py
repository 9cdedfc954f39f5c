from typing import Any

import pytest
import torch
from torch import nn

from lavender.models.encoders import Encoded
from lavender.models.fusion import ATTENTION_MODES, additive_mask, full_attention, seq2seq_attention

VIDEO, TEXT, WIDTH = 6, 5, 64


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


@pytest.fixture
def model(make_model) -> Any:
    return make_model()


@pytest.fixture
def inputs() -> tuple[Encoded, Encoded]:
    """Video with holes in its mask, and texts with pads."""
    video = Encoded(torch.randn(2, VIDEO, WIDTH), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 1]]))
    text = Encoded(torch.randn(2, TEXT, WIDTH), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    return video, text


def overwhelming(encoded: Encoded, places: torch.Tensor) -> Encoded:
    """The same, with huge states in `places`: against their scores a mask of −10,000 would be nothing."""
    noise = torch.randn_like(encoded.states) * 1e6
    return Encoded(torch.where(places[..., None].bool(), noise, encoded.states), encoded.mask)


# --- masks ------------------------------------------------------------------------------------------------------------


def test_full_attention_hides_what_is_not_real():
    visible = full_attention(torch.tensor([[1, 0]]), torch.tensor([[1, 1, 0]]))
    assert visible.tolist() == [[[1, 0, 1, 1, 0]]]


def test_seq2seq_attention():
    visible = seq2seq_attention(torch.tensor([[1, 0], [1, 1]]), torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert visible[0].tolist() == [
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 1, 1, 1],  # pads are not masked among the text
    ]
    assert visible[1, 2:, :2].tolist() == [[1, 1]] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_hidden_gets_no_attention_at_all(dtype: torch.dtype):
    visible = torch.tensor([[[1, 0, 1, 0]]])
    mask = additive_mask(visible, dtype)
    assert mask.shape == (1, 1, 1, 4)
    assert mask.dtype == dtype
    assert torch.equal(mask[0, 0, 0, [0, 2]], torch.zeros(2, dtype=dtype))
    scores = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=dtype) * (torch.finfo(dtype).max / 4)
    weights = (scores + mask).float().softmax(-1)[0, 0, 0]
    assert weights.tolist() == [0.5, 0, 0.5, 0]


# --- in the model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training_graph", [False, True])
def test_hidden_places_change_nothing_in_full_attention(model: Any, inputs, training_graph: bool):
    video, text = inputs
    with torch.set_grad_enabled(training_graph):
        states = model.fuse(video, text)
        changed = model.fuse(overwhelming(video, 1 - video.mask), overwhelming(text, 1 - text.mask))
    real = torch.cat([video.mask, text.mask], dim=1).bool()
    assert torch.isfinite(changed[real]).all()
    assert torch.equal(changed[real], states[real])
    assert not torch.allclose(changed[~real], states[~real], atol=0.1)


def test_visible_places_do_change_it(model: Any, inputs):
    video, text = inputs
    states = model.fuse(video, text)
    nudged = Encoded(text.states.clone(), text.mask)
    nudged.states[:, 1] += 1
    assert ((model.fuse(video, nudged) - states).abs().amax(-1) > 1e-4).all(), "each place sees each real one"


@pytest.mark.parametrize("place", range(TEXT))
def test_seq2seq_text_sees_no_later_text_and_video_none(model: Any, inputs, place: int):
    video, text = inputs
    prefix = Encoded(torch.randn(1, 2, WIDTH), torch.ones(1, 2, dtype=torch.long))
    states = model.fuse(video, text, prefix, attention="seq2seq")
    later = torch.arange(TEXT).expand(2, -1) >= place
    changed = model.fuse(video, overwhelming(text, later), prefix, attention="seq2seq")
    before = VIDEO + 2 + place
    assert torch.equal(changed[:, :before], states[:, :before])
    assert not torch.allclose(changed[:, before:], states[:, before:], atol=0.1)


def test_seq2seq_text_sees_the_pads_before_it_and_no_hole_of_the_video(model: Any, inputs):
    video, text = inputs
    states = model.fuse(video, text, attention="seq2seq")
    holes = model.fuse(overwhelming(video, 1 - video.mask), text, attention="seq2seq")
    assert torch.equal(holes[:, VIDEO:], states[:, VIDEO:])
    nudged = Encoded(text.states.clone(), text.mask)
    nudged.states[0, 3] += 1  # a pad
    assert not torch.allclose(model.fuse(video, nudged, attention="seq2seq")[0, -1], states[0, -1], atol=1e-4)


def test_a_sample_does_not_see_the_others(model: Any, inputs):
    for mode in ATTENTION_MODES:
        together = model.fuse(*inputs, attention=mode)
        for number in range(2):
            alone = model.fuse(*(Encoded(e.states[[number]], e.mask[[number]]) for e in inputs), attention=mode)
            assert torch.allclose(alone[0], together[number], atol=1e-5)


def test_low_precision_is_finite(model: Any, inputs):
    with torch.autocast("cpu", torch.bfloat16):
        states = model.fuse(*inputs)
    assert torch.isfinite(states).all()
    assert torch.allclose(states.float(), model.fuse(*inputs), atol=0.2)
    bf16 = model.bfloat16().fuse(*(Encoded(e.states.bfloat16(), e.mask) for e in inputs))
    assert torch.isfinite(bf16).all()


def test_dropout_of_attention_and_of_states(model: Any, inputs):
    dropouts = {name: m for name, m in model.trsfr.named_modules() if isinstance(m, nn.Dropout)}
    assert {m.p for m in dropouts.values()} == {0.1}
    steady = model.fuse(*inputs)
    assert torch.equal(model.fuse(*inputs), steady)
    model.trsfr.train()
    for part in ("attention.self", "output"):  # each by itself
        for name, dropout in dropouts.items():
            dropout.p = 0.1 if part in name else 0.0
        assert not torch.allclose(model.fuse(*inputs), steady, atol=1e-3), part
    for dropout in dropouts.values():
        dropout.p = 0.0
    assert torch.equal(model.fuse(*inputs), steady)


def test_norms(model: Any):
    norms = [m.eps for m in model.trsfr.modules() if isinstance(m, nn.LayerNorm)]
    assert norms == [1e-12] * 4
