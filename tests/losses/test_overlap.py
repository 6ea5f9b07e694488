"""Powers and mixtures of averages of the overlap term, against numbers worked out apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from study.losses import PRESETS, LossConfig, build_loss
from study.losses.describe import describe

# Two images of four pixels, two classes; the probability of class 1 and the label.
P1 = np.array([[0.9, 0.6, 0.2, 0.4], [0.3, 0.1, 0.8, 0.5]])
Y = np.array([[1, 1, 0, 255], [0, 0, 0, 1]])


def logits(dtype=torch.float64):
    p = torch.tensor(np.stack([1 - P1, P1], 1))[:, :, None]
    return p.log().to(dtype).requires_grad_()


def target():
    return torch.tensor(Y)[:, None]


def sums(of_class: int, images: list[int]) -> tuple[float, float, float]:
    """True positives, false positives and misses, pixel by pixel."""
    hit = wrong = missed = 0.0
    for image in images:
        for p1, label in zip(P1[image], Y[image], strict=True):
            if label == 255:
                continue
            p = p1 if of_class == 1 else 1 - p1
            if label == of_class:
                hit, missed = hit + p, missed + 1 - p
            else:
                wrong += p
    return hit, wrong, missed


def loss_of(of_class: int, images: list[int], alpha: float, beta: float, power: float) -> float:
    hit, wrong, missed = sums(of_class, images)
    return float((1 - (hit + 1e-3) / (hit + alpha * wrong + beta * missed + 1e-3)) ** power)


def by_average(alpha: float, beta: float, power: float) -> dict[str, float]:
    """Both classes are in both images."""
    each = {(c, i): loss_of(c, [i], alpha, beta, power) for c in (0, 1) for i in (0, 1)}
    return {
        "batch": float(np.mean([loss_of(c, [0, 1], alpha, beta, power) for c in (0, 1)])),
        "image": float(np.mean([np.mean([each[c, i] for c in (0, 1)]) for i in (0, 1)])),
        "class": float(np.mean([np.mean([each[c, i] for i in (0, 1)]) for c in (0, 1)])),
    }


def value(config: dict[str, object]) -> float:
    return float(build_loss(config, num_classes=2)(logits().detach(), target()))


def cross_entropies() -> np.ndarray:
    q = np.where(Y == 1, P1, 1 - P1)[Y != 255]
    return -np.log(q)


@pytest.mark.parametrize("power", [0.75, 1.0, 2.0])
@pytest.mark.parametrize("average", ["batch", "image", "class"])
def test_a_power_is_taken_of_each_classs_loss(average, power):
    expected = by_average(0.3, 0.7, power)[average]
    jaccard = {"mix": 1.0, "alpha": 0.3, "beta": 0.7, "average": average, "power": power}
    assert value({"jaccard": jaccard}) == pytest.approx(expected, rel=1e-12)


def test_a_mixture_is_the_weighted_mean_of_its_averages():
    parts = by_average(1.0, 1.0, 1.0)
    mixture = {"batch": 0.5, "image": 0.25, "class": 0.25}
    expected = sum(weight * parts[name] for name, weight in mixture.items())
    found = value({"jaccard": {"mix": 1.0, "average": mixture}})
    assert found == pytest.approx(expected, rel=1e-12)
    twice = {name: 2 * weight for name, weight in mixture.items()}
    assert value({"jaccard": {"mix": 1.0, "average": twice}}) == pytest.approx(found)
    one = {"batch": 0.0, "image": 3.0}
    assert value({"jaccard": {"mix": 1.0, "average": one}}) == pytest.approx(parts["image"])


def test_the_overlap_presets_have_the_numbers_that_are_worked_out_by_hand():
    dice = by_average(0.5, 0.5, 1.0)["batch"]
    ce = cross_entropies()
    expected = {
        "dice_ce": 0.5 * ce.mean() + 0.5 * dice,
        "dice_topk": 0.5 * ce.max() + 0.5 * dice,  # a tenth of 7 pixels is one
        "focal_tversky": by_average(0.3, 0.7, 0.75)["batch"],
    }
    for name, number in expected.items():
        assert value(PRESETS[name].config) == pytest.approx(number, rel=1e-12)
    # the same, once on paper
    assert sums(0, [0, 1]) == pytest.approx((2.6, 1.0, 1.4))
    assert sums(1, [0, 1]) == pytest.approx((2.0, 1.4, 1.0))
    of_0 = 1 - 2.601 / (2.601 + 0.3 * 1.0 + 0.7 * 1.4)
    of_1 = 1 - 2.001 / (2.001 + 0.3 * 1.4 + 0.7 * 1.0)
    golden = (math.sqrt(math.sqrt(of_0)) ** 3 + math.sqrt(math.sqrt(of_1)) ** 3) / 2
    assert golden == pytest.approx(0.4494, abs=5e-5)
    assert value(PRESETS["focal_tversky"].config) == pytest.approx(golden, rel=1e-12)


@pytest.mark.parametrize("power", [0.5, 0.75, 2.0])
def test_gradients_are_those_of_finite_differences(power):
    mixture = {"batch": 1.0, "image": 2.0, "class": 3.0}
    jaccard = {"mix": 0.7, "beta": 0.6, "average": mixture, "power": power}
    loss = build_loss({"jaccard": jaccard}, num_classes=2)
    assert torch.autograd.gradcheck(lambda z: loss(z, target()), logits())


@pytest.mark.parametrize("power", [0.5, 2.0])
def test_a_class_without_a_loss_has_a_gradient_of_zero(power):
    right = torch.tensor([[[[1.0, -1.0]], [[-1.0, 1.0]]]]) * 200
    right.requires_grad_()
    loss = build_loss({"jaccard": {"mix": 1.0, "power": power, "smooth": 0.0}}, num_classes=2)
    found = loss(right, torch.tensor([[[0, 1]]]))
    found.backward()
    assert found == 0 and not right.grad.any()


@pytest.mark.parametrize(
    ("average", "told"),
    [
        ({}, "at least 1"),
        ({"batch": 0.0, "image": 0.0}, "one of batch, image and class a weight above 0"),
        ({"batch": -1.0, "image": 2.0}, "greater than or equal to 0"),
        ({"pixel": 1.0}, "'batch', 'image' or 'class'"),
        ("pixel", "'batch', 'image' or 'class'"),
    ],
)
def test_mixtures_that_are_none_are_refused(average, told):
    with pytest.raises(ValidationError, match=told):
        LossConfig.model_validate({"jaccard": {"average": average}})


def test_tables_show_power_and_mixture():
    def of(**jaccard):
        return describe(LossConfig.model_validate({"jaccard": {"mix": 0.5, **jaccard}}))

    assert of() == "jaccard 0.5"
    assert of(power=0.75) == "jaccard^0.75 0.5"
    mixture = {"batch": 1.0, "image": 1.0, "class": 2.0}
    assert of(average=mixture) == "jaccard 0.5 per batch 0.25/image 0.25/class 0.5"
    assert of(average={"class": 2.0}) == "jaccard 0.5 per class"
