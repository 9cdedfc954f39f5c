import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lavender.models.activation_checkpoint import checkpoint_activations
from lavender.models.backbones.video_swin import SwinBlock
from lavender.models.lavender import Lavender
from lavender.runtime.errors import TrainingError


@pytest.fixture
def pair(make_model) -> Callable[..., list[Lavender]]:
    """The same model twice, in training mode; the second recomputes its activations."""

    def build(offload: bool = False) -> list[Lavender]:
        pytest.importorskip("fairscale")
        models = [make_model(drop_path=0.3).train() for _ in range(2)]
        checkpoint_activations(models[1], offload)
        return models

    return build


def losses_and_gradients(model: Lavender, dtype: torch.dtype | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(11)  # drop path and dropout draw the same
    img = torch.randint(0, 256, (3, 2, 3, 64, 64), dtype=torch.uint8)
    ids = torch.randint(1, 350, (3, 5))
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        video, text = model.encode_video(img), model.encode_text(ids, torch.ones_like(ids))
        loss = model.fc_mtm(model.fuse(video, text)[:, -1]).float().logsumexp(-1).mean()
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("offload", [False, True])
def test_checkpointing_changes_neither_losses_nor_gradients(pair, offload: bool):
    (loss, plain), (again, recomputed) = (losses_and_gradients(model) for model in pair(offload))
    assert float(again) == pytest.approx(float(loss), rel=1e-6)
    assert plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert (recomputed[name] - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-8, name


def test_checkpointing_recomputes_in_the_precision_of_the_forward_pass(pair):
    """FairScale itself knows CUDA's fp16 alone: under bf16 it would recompute in another precision."""
    seen: list[list[torch.dtype]] = []
    for model in pair():
        seen.append([])
        hook = model.enc_img.swin.layers[2].blocks[0].mlp.fc1
        hook.register_forward_hook(lambda module, inputs, out, seen=seen[-1]: seen.append(out.dtype))
        losses_and_gradients(model, torch.bfloat16)
    assert seen == [[torch.bfloat16], [torch.bfloat16, torch.bfloat16]]


def test_checkpointing_wraps_every_block_and_keeps_the_names(pair):
    plain, model = pair()
    assert list(plain.state_dict()) == list(model.state_dict())
    calls: list[SwinBlock] = []
    for module in model.enc_img.swin.modules():
        if isinstance(module, SwinBlock):
            module.norm1.register_forward_hook(lambda norm, inputs, out: calls.append(norm))
    losses_and_gradients(model)
    assert len(calls) == 2 * 10, "each of the ten blocks once forward and once again for its gradient"
    calls.clear()
    with torch.inference_mode():
        model.encode_video(torch.zeros(1, 2, 3, 64, 64))
    assert len(calls) == 10


def test_a_missing_fairscale_is_an_error_with_the_line_to_type(make_model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fairscale.nn.checkpoint", None)
    with pytest.raises(TrainingError, match=r"pip install fairscale==[\d.]+, or train with --use_checkpoint false"):
        checkpoint_activations(make_model(), offload=False)
