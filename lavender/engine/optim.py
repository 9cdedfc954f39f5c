"""AdamW in four groups, and the learning-rate schedule, as released."""

from inspect import unwrap
from itertools import product

import torch
from torch.optim import AdamW, Optimizer

from lavender.models.backbones.base import decays_as_released
from lavender.models.lavender import Lavender

FLOOR = 1e-8  # learning rate of step 0 and of the end, in every group
WARMUP = 0.1  # part of all steps


class PlainAdamW(AdamW):
    """torch's AdamW without the marks for torch's compiler, each of which imports `torch._dynamo` at its first call.

    That import takes as long as importing torch itself.
    """

    add_param_group = unwrap(AdamW.add_param_group)
    state_dict = unwrap(AdamW.state_dict)
    load_state_dict = unwrap(AdamW.load_state_dict)
    zero_grad = unwrap(AdamW.zero_grad)
    step = torch.no_grad()(unwrap(AdamW.step))

    def marked(self) -> AdamW:
        """The same, before its first step, of torch's own class: DeepSpeed accepts no other."""
        return AdamW(self.param_groups, fused=True)


def parameter_groups(model: Lavender, lr: float, backbone_lr_mul: float, decay: float) -> list[dict]:
    """{decay, no decay} × {backbone, rest}, in the order of the released optimizer.

    Returns:
        groups for an optimizer; `peak_lr` is what the schedule climbs to, `names` are those of `params`.
    """
    backbone = model.backbone
    decay_of = {id(weight): backbone.decays(name, weight) for name, weight in backbone.named_parameters()}
    groups = []
    for decays, in_backbone in product((True, False), (True, False)):
        named = {
            name: parameter
            for name, parameter in model.named_parameters()
            if (id(parameter) in decay_of) == in_backbone
            and decay_of.get(id(parameter), decays_as_released(name)) == decays
        }
        peak = lr * backbone_lr_mul if in_backbone else lr
        groups.append(
            {
                "params": list(named.values()),
                "names": list(named),
                "weight_decay": decay if decays else 0.0,
                "lr": peak,
                "peak_lr": peak,
            }
        )
    return groups


def build_optimizer(model: Lavender, lr: float, backbone_lr_mul: float, decay: float) -> PlainAdamW:
    """AdamW with betas (0.9, 0.98) and eps 1e-8 over `parameter_groups`; one kernel updates a group."""
    groups = parameter_groups(model, lr, backbone_lr_mul, decay)
    return PlainAdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-8, fused=True)


def learning_rate(peak: float, step: int, total_steps: int) -> float:
    """Linear from 0 to `peak` over the first tenth of the steps, then linearly back to 0, never under the floor."""
    warmup = int(WARMUP * total_steps)
    rising = step / max(warmup, 1)
    falling = (total_steps - step) / max(total_steps - warmup, 1)
    return max(peak * (rising if step < warmup else falling), FLOOR)


def set_learning_rates(optimizer: Optimizer, step: int, total_steps: int) -> float:
    """Sets every group's rate for `step`, counted from 0; returns the highest."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["peak_lr"], step, total_steps)
    return max(group["lr"] for group in optimizer.param_groups)
