"""Parameter groups, clipping, and that each option of the optimiser has its effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from study.config import Adamw, Sgd
from study.errors import InputError
from study.optim import build_optimizer, clip_gradients, set_lr


def network() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return nn.ModuleDict({"model": nn.ModuleDict({"encoder": body, "head": nn.Conv2d(4, 2, 1)})})


def sgd(**given: Any) -> Sgd:
    return Sgd.model_validate({"name": "sgd", "lr": 0.1, **given})


def test_encoder_and_head_have_their_own_rates_and_the_schedule_moves_both() -> None:
    model = network()
    config = Adamw.model_validate({"name": "adamw", "lr": 0.01, "encoder_lr_scale": 0.1})
    optimizer = build_optimizer(config, model, lr_scale=2.0)
    assert set_lr(optimizer, 0.5) == pytest.approx(0.01)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(rate) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert rate[id(parameter)] == pytest.approx(0.001 if "encoder" in name else 0.01), name
        assert (decay[id(parameter)] > 0) == (parameter.ndim > 1), name


def test_a_model_without_an_encoder_is_refused_by_the_key() -> None:
    with pytest.raises(InputError, match="optimizer/encoder_lr_scale: the model must have a part"):
        build_optimizer(sgd(encoder_lr_scale=0.1), nn.Conv2d(3, 2, 1))
    build_optimizer(sgd(), nn.Conv2d(3, 2, 1))


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="0 < momentum"):
        sgd(nesterov=True, momentum=0.0)


def step_length(config: Sgd, steps: int = 1) -> float:
    weight = nn.Parameter(torch.zeros(2))
    model = nn.ParameterDict({"weight": weight})
    optimizer = build_optimizer(config, model)
    for _ in range(steps):
        weight.grad = torch.tensor([3.0, 4.0])
        if config.clip_norm is not None:
            clip_gradients(optimizer, config.clip_norm)
        optimizer.step()
    return float(weight.detach().norm())


def test_clipping_scales_the_whole_gradient_and_leaves_a_small_one() -> None:
    assert step_length(sgd(momentum=0.0)) == pytest.approx(0.5)
    assert step_length(sgd(momentum=0.0, clip_norm=1.0)) == pytest.approx(0.1)
    assert step_length(sgd(momentum=0.0, clip_norm=50.0)) == pytest.approx(0.5)


def test_momentum_and_nesterov_change_the_steps() -> None:
    assert step_length(sgd(momentum=0.5), 2) == pytest.approx(0.5 * (1 + 1.5))
    assert step_length(sgd(momentum=0.5, nesterov=True), 2) == pytest.approx(0.5 * (1.5 + 1.75))
