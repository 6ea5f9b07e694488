"""The optimiser of a trial and its learning rate at every step."""

from __future__ import annotations

import math

import torch
from torch import nn

from study.config.task import Adamw, LrSchedule, Sgd
from study.core.errors import InputError


def build_optimizer(
    config: Adamw | Sgd, model: nn.Module, *, lr_scale: float = 1.0
) -> torch.optim.Optimizer:
    """Build AdamW or SGD with rate `lr * lr_scale`, times `encoder_lr_scale` in the encoder.

    Weight decay skips biases and norms (1-D parameters). Every parameter group keeps its peak rate
    under "peak_lr" for `set_lr`. Raises InputError if the encoder should have its own rate and the
    model has no part of that name.
    """
    peak = config.lr * lr_scale
    inside = _of_encoder(model) if config.encoder_lr_scale != 1 else set()
    groups = []
    for encoder in (False, True):
        for decayed in (True, False):
            parameters = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad
                and (parameter.ndim > 1) == decayed
                and (id(parameter) in inside) == encoder
            ]
            if parameters:
                groups.append(
                    {
                        "params": parameters,
                        "weight_decay": config.weight_decay if decayed else 0.0,
                        "peak_lr": peak * (config.encoder_lr_scale if encoder else 1.0),
                    }
                )
    if isinstance(config, Sgd):
        sgd = torch.optim.SGD(
            groups, lr=peak, momentum=config.momentum, nesterov=config.nesterov, fused=True
        )
        if config.momentum > 0:
            # Left to its first step, torch would make them of uninitialised memory where GradScaler
            # skips that step, and none where a gradient comes later than others.
            for group in sgd.param_groups:
                for parameter in group["params"]:
                    sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    return torch.optim.AdamW(groups, lr=peak, fused=True)


def _of_encoder(model: nn.Module) -> set[int]:
    """The ids of the parameters of the submodule named `encoder`, at any depth."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "encoder":
            return {id(parameter) for parameter in module.parameters()}
    raise InputError(
        "encoder_lr_scale needs a model with a part named 'encoder'",
        key="optimizer/encoder_lr_scale",
    )


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale all gradients by one factor so that their total L2 norm is at most max_norm.

    Does not wait for the device. A gradient that is not finite stays so, for GradScaler to see.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, max_norm)


def lr_factor(schedule: LrSchedule, step: int, num_steps: int) -> float:
    """The fraction of the peak rate at a step, 0 <= step < num_steps: decay times warm-up.

    Decay over the whole budget, with t = step / num_steps: poly (1 - t)^power, cosine (1 + cos(pi
    t)) / 2, constant 1. Warm-up rises linearly over the first `warmup * num_steps` steps: (step +
    1) / (warmup * num_steps), at most 1.
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
    """Set every group to `factor` of its peak rate; return the first group's rate, the head's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return optimizer.param_groups[0]["lr"]
