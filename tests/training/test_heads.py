"""Auxiliary heads: the loss of their outputs by its formula, and a training with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_task import CONVOLUTION, TINY, run, timeless, tiny, tiny_data
from torch import nn

from study.config.task import SmpModel
from study.core.errors import InputError
from study.losses import PRESETS, LossConfig, build_loss
from study.losses.config import FactoryLoss
from study.losses.heads import HeadsLoss
from study.losses.own import build_any_loss
from study.training.models import build_model, check_model
from study.training.trainer import loss_for

AUX = {"stage": 1, "channels": 8, "dropout": 0.0}
pytestmark = pytest.mark.usefixtures("one_thread")


def batch(heads: int = 2) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = tuple(
        torch.randn(2, 4, 6, 5, generator=generator).double().requires_grad_() for _ in range(heads)
    )
    target = torch.randint(4, (2, 6, 5), generator=generator)
    target[0, 0] = 255
    return outputs, target


def heads(config: dict[str, Any], num_aux: int = 1, weight: float = 0.5) -> HeadsLoss:
    given = LossConfig.model_validate(config)
    return HeadsLoss(given, build, num_aux, weight)


def build(config: LossConfig | FactoryLoss) -> Any:
    return build_any_loss(config, num_classes=4, class_counts=None, ignore_index=255)


def test_jml_is_the_papers_eighth_of_each_heads_cross_entropy() -> None:
    (main, aux), target = batch()
    loss = heads(PRESETS["jml"].config)
    value = loss((main, aux), target)
    ce = build_loss({}, num_classes=4)
    jaccard = build_loss({"jaccard": {"mix": 1.0}}, num_classes=4)
    expected = 0.125 * ce(main, target) + 0.125 * ce(aux, target) + 0.75 * jaccard(main, target)
    torch.testing.assert_close(value, expected)
    for one in (main, aux):
        (found,) = torch.autograd.grad(value, one, retain_graph=True)
        (of_formula,) = torch.autograd.grad(expected, one, retain_graph=True)
        torch.testing.assert_close(found, of_formula)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_several_heads_share_their_weight(weight: float) -> None:
    outputs, target = batch(3)
    loss = heads({"focal_gamma": 1.0}, 2, weight)
    one = build_loss({"focal_gamma": 1.0}, num_classes=4)
    main, first, second = (one(out, target) for out in outputs)
    expected = (1 - weight) * main + weight * (first + second) / 2
    torch.testing.assert_close(loss(outputs, target), expected)


def test_a_student_learns_from_its_teacher_by_the_main_head() -> None:
    (main, aux), target = batch()
    teacher = torch.rand(2, 4, 6, 5).double().softmax(1)
    distillation = {"temperature": 2.0, "mix": 0.25}
    value = heads({"distillation": distillation})((main, aux), target, teacher=teacher)
    whole = build_loss({"distillation": distillation}, num_classes=4)
    ce = build_loss({}, num_classes=4)
    expected = 0.5 * whole(main, target, teacher=teacher) + 0.5 * ce(aux, target)
    torch.testing.assert_close(value, expected)


def test_each_head_has_a_recall_of_its_own() -> None:
    (main, aux), target = batch()
    loss = heads({"recall": {"ema_momentum": 0.5}})
    loss((main, aux), target)
    state = loss.state_dict()
    for mine, out in (("main", main), ("aux.0", aux)):
        alone = build_loss({"recall": {"ema_momentum": 0.5}}, num_classes=4)
        alone(out, target)
        assert torch.equal(state[f"{mine}.recall.value"], alone.state_dict()["recall.value"])
    assert not torch.equal(state["main.recall.value"], state["aux.0.recall.value"])


def test_terms_are_those_of_the_main_head_and_the_mean_of_the_others() -> None:
    (main, aux), target = batch()
    loss = heads({"jaccard": {"mix": 0.5}})
    loss.measure_gradients = True
    loss((main, aux), target)
    ce = build_loss({}, num_classes=4)
    terms = loss.step_terms
    torch.testing.assert_close(terms["cross_entropy"], ce(main, target).detach())
    torch.testing.assert_close(terms["aux"], ce(aux, target).detach())
    (found,) = torch.autograd.grad(0.25 * ce(main, target), main)
    torch.testing.assert_close(terms["grad_norm/pixel"], found.norm())


def test_a_loss_of_ones_own_is_asked_of_each_head() -> None:
    (main, aux), target = batch()
    config = FactoryLoss(factory="torch.nn:CrossEntropyLoss", kwargs={"ignore_index": 255})
    value = HeadsLoss(config, build, 1, 0.25)((main, aux), target)
    ce = build_loss({}, num_classes=4)
    torch.testing.assert_close(value, 0.75 * ce(main, target) + 0.25 * ce(aux, target))
    with pytest.raises(ValueError, match="2 outputs are expected, got 1"):
        HeadsLoss(config, build, 1, 0.25)(main, target)


def test_a_head_sits_on_a_stage_of_the_encoder_and_is_left_out_of_use() -> None:
    config = SmpModel.model_validate({**TINY["model"], "aux": AUX})
    model = check_model(config, 5, (30, 46))  # not of the stride
    images = torch.randn(2, 3, 30, 46)
    main, aux = model.train()(images)
    assert main.shape == aux.shape == (2, 5, 30, 46)
    assert model.eval()(images).shape == (2, 5, 30, 46)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = build_model(SmpModel.model_validate(TINY["model"]), 5)
        torch.manual_seed(0)
        with_head = build_model(config, 5)
    own, other = plain.state_dict(), with_head.state_dict()
    assert all(torch.equal(own[n], other[n.replace("model.", "model.model.", 1)]) for n in own)
    deep = SmpModel.model_validate({**TINY["model"], "aux": {"stage": 9}})
    with pytest.raises(InputError, match=r"^model/aux/stage: stage must be below 3, .* got 9"):
        build_model(deep, 5)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("alone", "must return a tuple of 2 logits, got Tensor; `aux` says"),
        ("three", "must return a tuple of 2 logits, got a tuple of 3"),
        ("smaller", r"output 1 must have shape \(2, 5, 32, 48\), got \(2, 5, 16, 24\)"),
        ("always", r"in eval mode logits must have shape \(2, 5, 32, 48\), got tuple"),
    ],
)
def test_a_factory_that_returns_something_else_is_told(kind: str, told: str) -> None:
    config = {"factory": "tiny_task:with_heads", "kwargs": {"kind": kind}, "aux": 1}
    model = tiny(model=config).trained_here.model
    with pytest.raises(InputError, match=told):
        check_model(model, 5, (32, 48))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {**TINY["model"], "aux": AUX},
        {"factory": "tiny_task:with_heads", "kwargs": {"kind": "right"}, "aux": 1},
    ],
    ids=["smp", "factory"],
)
def test_a_training_with_heads_learns_by_them_and_goes_on_bit_for_bit(model, tmp_path) -> None:
    from study.training.trainer import train

    data = tiny_data()
    config = tiny({"recall": {"ema_momentum": 0.5}, "jaccard": {"mix": 0.5}}, model=model)
    first, last = run(config, data)
    assert last.metrics["train/aux"] < first.metrics["train/aux"]
    for report in train(config, data=data, device="cpu"):
        if report.epoch == 1:
            report.save(tmp_path / "first.pt")
    (again,) = run(config, data, resume_from=tmp_path / "first.pt")
    assert timeless(again) == timeless(last)
    other, _ = run(
        tiny(
            {"recall": {"ema_momentum": 0.5}, "jaccard": {"mix": 0.5}},
            model={**model, "aux_weight": 0.1},
        ),
        data,
    )
    assert timeless(other) != timeless(first)


def test_a_model_without_heads_has_the_loss_as_it_was() -> None:
    loss = loss_for(LossConfig(), tiny_data(), tiny(model=CONVOLUTION).trained_here.model)
    assert not isinstance(loss, HeadsLoss)
    assert isinstance(loss, nn.Module)


@pytest.mark.parametrize(
    ("model", "example"),
    [(tiny().trained_here.model.model_dump(), "`aux: {stage: 1}`"), (CONVOLUTION, "`aux: 1`")],
    ids=["smp", "factory"],
)
def test_a_weight_of_no_head_is_refused(model: dict[str, Any], example: str) -> None:
    with pytest.raises(
        ValueError, match="aux_weight has no effect without auxiliary heads"
    ) as told:
        tiny(model={**model, "aux": None if "arch" in model else 0, "aux_weight": 0.3})
    assert example in str(told.value)
