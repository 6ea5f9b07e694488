"""The optimiser of a trial and its learning rate at every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from study.config import Adamw, LrSchedule, Sgd


def build_optimizer(
    config: Adamw | Sgd, model: nn.Module, *, lr_scale: float = 1.0
) -> torch.optim.Optimizer:
    """AdamW or SGD with `lr * lr_scale`; biases and norms (1-D parameters) are not decayed.

    Every parameter group keeps its own peak rate under "peak_lr" for `set_lr`.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    peak = config.lr * lr_scale
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [{**group, "peak_lr": peak} for group in groups if group["params"]]
    if isinstance(config, Sgd):
        return torch.optim.SGD(groups, lr=peak, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=peak, fused=True)


def lr_factor(schedule: LrSchedule, step: int, num_steps: int) -> float:
    """Share of the peak rate at a step, 0 <= step < num_steps: decay times warm-up.

    Decay over the whole budget, with t = step / num_steps: poly (1 - t)^power, cosine
    (1 + cos(pi t)) / 2, constant 1. Warm-up rises linearly over the first
    `warmup * num_steps` steps: (step + 1) / (warmup * num_steps), at most 1.
    """
    progress = step / num_steps
    if schedule.name == "poly":
        decay = (1 - progress) ** schedule.power
    elif schedule.name == "cosine":
        decay = (1 + math.cos(math.pi * progress)) / 2
    else:
        decay = 1.0
    warm = schedule.warmup * num_steps
    return decay * min(1.0, (step + 1) / warm) if warm > 0 else decay


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group to `factor` of its peak; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return optimizer.param_groups[0]["lr"]
