import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from lavender.engine.optim import (
    FLOOR,
    PlainAdamW,
    build_optimizer,
    learning_rate,
    parameter_groups,
    set_learning_rates,
)

PEAK = 1e-3


def rates(total: int, peak: float = PEAK) -> list[float]:
    return [learning_rate(peak, step, total) for step in range(total + 1)]


# --- schedule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "warmup"), [(10, 1), (19, 1), (20, 2), (37, 3), (40, 4), (1000, 100)])
def test_a_tenth_up_and_the_rest_down(total: int, warmup: int):
    found = rates(total)
    assert found[0] == FLOOR
    assert found[warmup] == pytest.approx(PEAK) == max(found)
    for step in range(1, warmup):
        assert found[step] == pytest.approx(PEAK * step / warmup)
    for step in range(warmup, total):
        assert found[step] == pytest.approx(PEAK * (total - step) / (total - warmup))
    assert found[total] == FLOOR


@pytest.mark.parametrize("total", [1, 2, 9])
def test_short_runs_have_no_warmup(total: int):
    found = rates(total)
    assert found[0] == PEAK
    assert found == sorted(found, reverse=True)
    assert found[total] == FLOOR


@pytest.mark.parametrize(("step", "total"), [(0, 0), (5, 0), (41, 40), (1000, 40)])
def test_past_the_end_the_rate_stays_at_the_floor(step: int, total: int):
    assert learning_rate(PEAK, step, total) == FLOOR


@pytest.mark.parametrize("peak", [0.0, 1e-9])
def test_the_floor_holds_in_every_group(peak: float):
    assert set(rates(40, peak)) == {FLOOR}


def test_every_group_is_set_to_its_own_rate():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [w], "peak_lr": peak} for w, peak in zip(weights, (1e-3, 5e-4), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=7.0)
    assert set_learning_rates(optimizer, 4, 40) == pytest.approx(1e-3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 5e-4])
    set_learning_rates(optimizer, 0, 40)
    assert [group["lr"] for group in optimizer.param_groups] == [FLOOR, FLOOR]


# --- groups -----------------------------------------------------------------------------------------------------------


def test_groups(make_model):
    model = make_model()
    groups = parameter_groups(model, lr=1e-3, backbone_lr_mul=0.5, decay=0.1)
    assert [(group["weight_decay"], group["lr"]) for group in groups] == [
        (0.1, 5e-4),
        (0.1, 1e-3),
        (0.0, 5e-4),
        (0.0, 1e-3),
    ]
    assert all(group["peak_lr"] == group["lr"] for group in groups)
    place = {name: number for number, group in enumerate(groups) for name in group["names"]}
    assert sum(len(group["params"]) for group in groups) == len(place) == len(list(model.parameters()))
    swin = "enc_img.swin.layers.0.blocks.0"
    expected = {
        f"{swin}.attn.qkv.weight": 0,
        f"{swin}.norm1.weight": 0,  # as released: only a name with LayerNorm is spared
        f"{swin}.norm1.bias": 2,
        f"{swin}.attn.qkv.bias": 2,
        f"{swin}.attn.relative_position_bias_table": 2,  # its name has "bias" in it
        "enc_img.norm.weight": 1,
        "enc_img.norm.bias": 3,
        "enc_img.fc.weight": 1,
        "enc_img.emb_pos": 1,
        "enc_txt.emb_txt.LayerNorm.weight": 3,
        "enc_txt.emb_txt.word_embeddings.weight": 1,
        "trsfr.layer.1.output.LayerNorm.weight": 3,
        "trsfr.layer.1.output.dense.bias": 3,
        "fc_mtm.predictions.bias": 3,
        "emb_task": 1,
    }
    assert {name: place[name] for name in expected} == expected
    named = dict(model.named_parameters())
    for group in groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            assert named[name] is parameter


def test_adamw_as_released():
    model = nn.Linear(3, 2)
    model.backbone = nn.Module()  # without a parameter
    optimizer = build_optimizer(model, lr=0.01, backbone_lr_mul=1.0, decay=0.5)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert all((group["betas"], group["eps"]) == ((0.9, 0.98), 1e-8) for group in optimizer.param_groups)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(model.weight, before["weight"] * (1 - 0.01 * 0.5))
    assert torch.equal(model.bias, before["bias"])


# --- without torch's compiler -----------------------------------------------------------------------------------------

SAME = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1, "fused": True}


def stepped(optimizer: AdamW, weight: nn.Parameter, first: int, steps: int) -> torch.Tensor:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        (weight * torch.arange(6.0) * (step + 1)).sin().sum().backward()
        optimizer.step()
    return weight.detach().clone()


def test_steps_and_states_are_those_of_torch():
    own, torchs = (nn.Parameter(torch.linspace(-1, 1, 6)) for _ in range(2))
    plain, marked = PlainAdamW([own], **SAME), AdamW([torchs], **SAME)
    assert torch.equal(stepped(plain, own, 0, 3), stepped(marked, torchs, 0, 3))
    assert own.grad is not None
    assert own.grad.grad_fn is None
    state = plain.state_dict()
    assert state["param_groups"] == marked.state_dict()["param_groups"]
    again = nn.Parameter(own.detach().clone())
    resumed = PlainAdamW([again], lr=1.0)
    resumed.load_state_dict(state)
    assert torch.equal(stepped(resumed, again, 3, 2), stepped(marked, torchs, 3, 2))


def test_the_closure_of_a_step_has_gradients():
    weight = nn.Parameter(torch.ones(2))
    optimizer = PlainAdamW([weight], **SAME)

    def closure() -> torch.Tensor:
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 2
    assert torch.equal(weight.grad, torch.ones(2))


def test_training_does_not_import_torchs_compiler():
    """It takes as long to import as torch itself."""
    program = """
import sys, torch
from lavender.engine.optim import PlainAdamW
weight = torch.nn.Parameter(torch.ones(2))
optimizer = PlainAdamW([{"params": [weight]}], lr=1e-3, fused=True)
weight.sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_deepspeed_gets_torchs_own_class():
    weight = nn.Parameter(torch.ones(2))
    optimizer = PlainAdamW([{"params": [weight], "peak_lr": 0.5, "names": ["w"]}], **SAME)
    marked = optimizer.marked()
    assert type(marked) is AdamW
    assert marked.param_groups == optimizer.param_groups
    assert marked.param_groups[0]["params"][0] is weight
