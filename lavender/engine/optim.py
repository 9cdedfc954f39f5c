"""AdamW in four groups, and the learning-rate schedule, as released."""

from inspect import unwrap
from itertools import product

import torch
from torch.optim import AdamW, Optimizer

from lavender.models.backbones.base import decays_as_released
from lavender.models.lavender import Lavender

FLOOR = 1e-8  # learning rate at step 0 and at the end, in every group
WARMUP = 0.1  # fraction of all steps


class PlainAdamW(AdamW):
    """AdamW without the decorators of torch's compiler, which import `torch._dynamo` at the first call.

    That import takes as long as importing torch itself.
    """

    add_param_group = unwrap(AdamW.add_param_group)
    state_dict = unwrap(AdamW.state_dict)
    load_state_dict = unwrap(AdamW.load_state_dict)
    zero_grad = unwrap(AdamW.zero_grad)
    step = torch.no_grad()(unwrap(AdamW.step))

    def marked(self) -> AdamW:
        """A torch AdamW with the same groups, to be made before the first step: DeepSpeed accepts no other class."""
        return AdamW(self.param_groups, fused=True)


def parameter_groups(model: Lavender, lr: float, backbone_lr_mul: float, decay: float) -> list[dict]:
    """Optimizer groups {decay, no decay} × {backbone, rest}, in the order of the released optimizer.

    Returns:
        groups for an optimizer; `peak_lr` is the peak learning rate, `names` are the names of `params`.
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
    """Fused AdamW with betas (0.9, 0.98) and eps 1e-8 over `parameter_groups`."""
    groups = parameter_groups(model, lr, backbone_lr_mul, decay)
    return PlainAdamW(groups, lr=lr, betas=(0.9, 0.98), eps=1e-8, fused=True)


def learning_rate(peak: float, step: int, total_steps: int) -> float:
    """Linear warm-up from 0 to `peak` over the first tenth of the steps, linear decay to 0; never below `FLOOR`."""
    warmup = int(WARMUP * total_steps)
    rising = step / max(warmup, 1)
    falling = (total_steps - step) / max(total_steps - warmup, 1)
    return max(peak * (rising if step < warmup else falling), FLOOR)


def set_learning_rates(optimizer: Optimizer, step: int, total_steps: int) -> float:
    """Sets the learning rate of every group for `step`, counted from 0; returns the highest."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["peak_lr"], step, total_steps)
    return max(group["lr"] for group in optimizer.param_groups)
