from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from study.losses import PRESETS, build_loss

COUNTS = [[50, 30, 15, 4, 1]] * 2


def inputs(seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(2, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 5, (2, 6, 7))
    target[0, :2] = 255
    return logits, target, torch.rand(2, 6, 7, dtype=torch.float64) * 3


def made(config):
    return build_loss(config, num_classes=5, class_counts=COUNTS)


def test_each_pixels_cross_entropy_is_multiplied():
    logits, target, weight = inputs()
    value = made("ce")(logits, target, weight=weight)
    each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
    assert value.item() == pytest.approx(((each * weight).sum() / (target != 255).sum()).item())
    (found,) = torch.autograd.grad(value, logits)
    (wanted,) = torch.autograd.grad((each * weight).sum() / (target != 255).sum(), logits)
    torch.testing.assert_close(found, wanted)


def test_the_normaliser_weight_divides_by_the_weights():
    logits, target, weight = inputs()
    for scheme in ("none", "inverse_frequency"):
        loss = made({"class_weights": {"scheme": scheme}, "normalizer": "weight"})
        value = loss(logits, target, weight=weight)
        each = F.cross_entropy(logits, target, ignore_index=255, reduction="none")
        factors = torch.ones(5) if loss.class_weights is None else loss.class_weights
        total = weight * factors[target.where(target != 255, 0)] * (target != 255)
        assert value.item() == pytest.approx(((each * total).sum() / total.sum()).item())
        torch.testing.assert_close(loss(logits, target, weight=7 * weight), value)


@pytest.mark.parametrize("name", [name for name in PRESETS if "kd" not in name])
def test_weights_of_one_change_nothing(name):
    logits, target, weight = inputs()
    value = made(name)(logits, target, weight=torch.ones_like(weight))
    torch.testing.assert_close(value, made(name)(logits, target))


@pytest.mark.parametrize("name", ["ce", "ohem", "lmp", "recall", "median_frequency"])
def test_a_weight_of_zero_takes_the_pixel_out_of_the_sum_but_not_of_the_mean(name):
    logits, target, weight = inputs()
    weight[1] = 0
    value = made(name)(logits, target, weight=weight)
    (gradient,) = torch.autograd.grad(value, logits)
    assert float(gradient[1].abs().sum()) == 0 < float(gradient[0].abs().sum())


def test_the_jaccard_term_has_no_weights():
    logits, target, weight = inputs()
    loss = made({"jaccard": {"mix": 1.0}})
    torch.testing.assert_close(loss(logits, target, weight=weight), loss(logits, target))


def test_a_channel_and_ignored_pixels_are_as_elsewhere():
    logits, target, weight = inputs()
    loss = made("median_frequency")
    value = loss(logits, target, weight=weight)
    weight[0, :2] = math.nan
    torch.testing.assert_close(loss(logits, target, weight=weight[:, None]), value)
    half = loss(logits.float(), target, weight=weight.half())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(value.item(), rel=1e-3)


def test_gradient_norms_and_terms_are_those_of_the_weighted_step():
    logits, target, weight = inputs()
    loss = made({"jaccard": {"mix": 0.5}})
    loss.measure_gradients = True
    value = loss(logits, target, weight=weight)
    terms = loss.terms()
    assert value.item() == pytest.approx(0.5 * (terms["pixel"] + terms["jaccard"]).item())
    pixel = made("ce")(logits, target, weight=weight)
    (gradient,) = torch.autograd.grad(pixel, logits)
    assert terms["grad_norm/pixel"].item() == pytest.approx(0.5 * gradient.norm().item())


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.ones(2, 6, 6), r"weight must be floating-point of shape \(2, 6, 7\) .* \(2, 6, 6\)"),
        (torch.ones(2, 5, 6, 7), r"weight must be floating-point of shape \(2, 6, 7\)"),
        (torch.ones(2, 6, 7).int(), "got torch.int32"),
        (-torch.ones(2, 6, 7), "weight must be finite and >= 0"),
        (torch.full((2, 6, 7), math.inf), "weight must be finite and >= 0"),
    ],
)
def test_a_wrong_weight_is_one_line(weight, words):
    logits, target, _ = inputs()
    with pytest.raises(ValueError, match=words):
        made("ce")(logits, target, weight=weight)


def test_a_compiled_step_takes_weights():
    logits, target, weight = inputs()
    loss = made("recall_ema")
    step = torch.compile(lambda x, y, w: loss(x * 1.0, y, weight=w), backend="aot_eager")
    value = step(logits, target, weight)
    torch.testing.assert_close(value, made("recall_ema")(logits, target, weight=weight))


@pytest.mark.parametrize(
    "jaccard",
    [{}, {"average": "class"}, {"alpha": 0.3, "beta": 0.7, "power": 0.75}, {"target": "smoothed"}],
    ids=str,
)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_jaccard_term_of_each_class_is_told(jaccard, weighted):
    logits, target, weight = inputs()
    target[target == 3] = 4
    loss = made({"label_smoothing": 0.1, "jaccard": {"mix": 0.5, **jaccard}})
    loss(logits, target, weight=weight if weighted else None)
    terms = loss.terms(["a", "b", "c", "d", "e"])
    each = torch.stack([terms[f"jaccard/{name}"] for name in "abcde"])
    assert each.isnan().tolist() == [False, False, False, True, False]
    assert each.nanmean().item() == pytest.approx(terms["jaccard"].item())


def test_the_jaccard_term_of_each_class_is_the_mean_over_the_images_that_have_it():
    logits, target, _ = inputs()
    target[0] = 0
    config = {"jaccard": {"mix": 1.0, "average": "image"}}
    loss = made(config)
    loss(logits, target)
    parts = []
    for image in (0, 1):
        one = made(config)
        one(logits[image : image + 1], target[image : image + 1])
        parts.append(one.terms()["jaccard/0"])
    assert loss.terms()["jaccard/0"].item() == pytest.approx(sum(parts).item() / 2)


def test_terms_of_each_class_are_not_among_those_that_are_averaged_over_steps():
    logits, target, _ = inputs()
    loss = made("jml")
    loss(logits, target)
    assert [key for key in loss.step_terms if key.startswith("jaccard")] == ["jaccard"]
    made("ce")(logits, target)
    assert not [key for key in made("ce").terms() if key.startswith("jaccard")]
