"""Parameter groups, clipping, and that each option of the optimiser has its effect."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_task import tiny
from torch import nn

from study.config.task import Adamw, LrSchedule, Sgd
from study.core.errors import InputError
from study.training.optim import build_optimizer, clip_gradients, lr_factor, set_lr


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
    with pytest.raises(
        InputError, match="optimizer/encoder_lr_scale: encoder_lr_scale needs a model"
    ):
        build_optimizer(sgd(encoder_lr_scale=0.1), nn.Conv2d(3, 2, 1))
    build_optimizer(sgd(), nn.Conv2d(3, 2, 1))


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ValueError, match="momentum must be > 0"):
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


def test_norms_and_biases_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    optimizer = build_optimizer(tiny().task.optimizer, model, lr_scale=2.0)
    decayed, plain = optimizer.param_groups
    assert [p.ndim for p in decayed["params"]] == [4]
    assert decayed["weight_decay"] == 1.0e-4
    assert [p.ndim for p in plain["params"]] == [1, 1, 1]
    assert plain["weight_decay"] == 0.0
    assert set_lr(optimizer, 0.5) == 1.0e-2
    assert plain["lr"] == 1.0e-2


def test_schedules_rise_in_the_warm_up_and_fall_over_the_whole_budget():
    poly = LrSchedule(name="poly", power=0.9)
    assert lr_factor(poly, 0, 100) == 1
    assert lr_factor(poly, 50, 100) == pytest.approx(0.5**0.9)
    assert lr_factor(LrSchedule(name="cosine"), 50, 100) == pytest.approx(0.5)
    assert lr_factor(LrSchedule(name="cosine"), 99, 100) < 0.001
    assert lr_factor(LrSchedule(name="constant"), 99, 100) == 1
    warm = LrSchedule(name="constant", warmup=0.1)
    assert [lr_factor(warm, step, 100) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1, 1]


def fused_and_plain(config: Sgd, gradients: list[dict[str, float | None]]) -> list[nn.Module]:
    """Two networks after a step per entry, which says what each parameter's gradient is: one by
    `build_optimizer`, one by torch's plain loop."""
    models: list[nn.Module] = []
    for plain in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict({"a": nn.Conv2d(3, 4, 3), "b": nn.Conv2d(4, 2, 1)})
        optimizer: torch.optim.Optimizer = build_optimizer(config, model)
        if plain:
            decay = config.weight_decay
            groups = [
                {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": decay},
                {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
            ]
            optimizer = torch.optim.SGD(
                groups,
                lr=config.lr,
                momentum=config.momentum,
                nesterov=config.nesterov,
                foreach=False,
                fused=False,
            )
        for step in gradients:
            for name, parameter in model.named_parameters():
                value = step[name[0]]
                parameter.grad = None if value is None else torch.full_like(parameter, value)
            optimizer.step()
        models.append(model)
    return models


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_steps_as_torchs_plain_loop_does_also_where_a_gradient_comes_late(nesterov) -> None:
    config = sgd(nesterov=nesterov, weight_decay=0.1)
    gradients: list[dict[str, float | None]] = [
        {"a": 1.0, "b": None},
        {"a": 0.5, "b": 2.0},
        {"a": None, "b": -1.0},
        {"a": 3.0, "b": 0.1},
    ]
    one, other = fused_and_plain(config, gradients)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_a_first_step_that_is_left_out_leaves_nothing_behind() -> None:
    """In fp16 the first scale is often too large; the momentum must not be what memory held."""
    junk = [torch.full((count,), 1e4) for count in (36, 4, 8, 2) for _ in range(200)]
    del junk
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1))
    optimizer = build_optimizer(sgd(), model)
    scaler = torch.amp.GradScaler("cpu")
    before = [parameter.clone() for parameter in model.parameters()]
    for value in (torch.inf, 1.0):
        scaler.scale(torch.zeros(()))
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value * scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
    for parameter, start in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter, start - 0.1, rtol=0, atol=1e-6)
