"""Single and half precision against float64, on a million pixels and at the ends of the range.

Logits are multiples of 1/16 below 16: every dtype holds them exactly, so what differs is the loss.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from losses.variants import AXES, each

from study.losses import build_loss

SHAPE = (4, 19, 512, 512)
COUNTS = torch.arange(19, 0, -1).expand(2, 19)
FOUR = {
    "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
    "recall": {"ema_momentum": 0.9},
    "pooling": {"kind": "max"},
    "jaccard": {"mix": 0.5},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "focal": {"focal_gamma": 2.0},
    "recall": {"recall": {"ema_momentum": 0.0}},
    "max-1.05": {"pooling": {"kind": "max", "p": 1.05}},
    "ohem": {"pooling": {"kind": "ohem"}},
    "jaccard-batch": {"jaccard": {"mix": 1.0}},
    "jaccard-image": {"jaccard": {"mix": 1.0, "average": "image"}},
    "jaccard-class": {"jaccard": {"mix": 1.0, "average": "class"}},
    "four-at-once": FOUR,
}
LARGEST = 65504.0  # of float16


@cache
def batch():
    """As late in training: 90 % of the pixels right and sure, 5 % ignored."""
    generator = torch.Generator().manual_seed(0)
    batch, classes, height, width = SHAPE
    target = torch.randint(classes - 1, (batch, height, width), generator=generator)
    logits = torch.randint(-32, 33, SHAPE, generator=generator, dtype=torch.float32)
    sure = torch.rand(target.shape, generator=generator) < 0.9
    logits.scatter_add_(1, target[:, None], 144.0 * sure[:, None])
    target[torch.rand(target.shape, generator=generator) < 0.05] = 255
    return logits.div_(16), target


def run(config, dtype, scale=1.0):
    logits, target = batch()
    logits = logits.to(dtype).requires_grad_()
    loss = build_loss(config, num_classes=SHAPE[1], class_counts=COUNTS)
    value = loss(logits, target)
    return value.detach(), torch.autograd.grad(scale * value, logits)[0]


def distance(found, exact):
    """Relative, in the Euclidean norm."""
    return float((found.double() - exact).norm() / exact.norm())


@each(CONFIGS, few=())
def test_single_precision_on_a_million_pixels(config):
    value, gradient = run(config, torch.float32)
    exact, exact_gradient = run(config, torch.float64)
    assert distance(value, exact) < 1e-6
    assert distance(gradient, exact_gradient) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["max-1.05", "four-at-once"])
def test_half_precision_loses_only_what_rounding_the_gradient_loses(name, dtype):
    scale = 2.0**16  # as a GradScaler's, without which a mean's gradient underflows in float16
    value, gradient = run(CONFIGS[name], torch.float32, scale)
    half_value, half_gradient = run(CONFIGS[name], dtype, scale)
    assert half_value == value
    assert torch.equal(half_gradient, gradient.to(dtype))
    assert distance(half_gradient, gradient.double()) < torch.finfo(dtype).eps / 2


@pytest.mark.slow
def test_under_autocast_a_head_in_half_precision_trains_on_the_exact_loss():
    torch.manual_seed(0)
    head = torch.nn.Conv2d(8, 19, 1)
    features, target = torch.randn(4, 8, 64, 64), batch()[1][:, :64, :64]
    for dtype in (torch.bfloat16, torch.float16):
        loss = build_loss(FOUR, num_classes=19, class_counts=COUNTS)
        with torch.autocast("cpu", dtype=dtype):
            logits = head(features)
            value = loss(logits, target)
        assert (logits.dtype, value.dtype) == (dtype, torch.float32)
        double = logits.detach().double().requires_grad_()
        exact = build_loss(FOUR, num_classes=19, class_counts=COUNTS)(double, target)
        assert distance(value.detach(), exact.detach()) < 1e-6
        (gradient,) = torch.autograd.grad(2**16 * value, logits)
        (expected,) = torch.autograd.grad(2**16 * exact, double)
        assert distance(gradient, expected) < torch.finfo(dtype).eps / 2


@each(AXES, few=["ce", "everything"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e4, 6e4, LARGEST])
@pytest.mark.parametrize("right", [0.0, 0.5, 1.0], ids=["all-wrong", "half-right", "all-right"])
def test_logits_at_the_ends_of_the_range_give_no_nan(config, dtype, size, right):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (2, 6, 5), generator=generator)
    hit = torch.rand(target.shape, generator=generator) < right
    pred = torch.where(hit, target, (target + 1) % 3)
    sign = 2 * torch.nn.functional.one_hot(pred, 4).movedim(-1, 1) - 1
    target[0, :2] = 255
    logits = (sign * size).to(dtype).requires_grad_()
    counts = [[400, 90, 10, 0], [300, 0, 150, 50]]
    value = build_loss(config, num_classes=4, class_counts=counts)(logits, target)
    exact = build_loss(config, num_classes=4, class_counts=counts)(logits.double(), target)
    assert torch.isfinite(value)
    torch.testing.assert_close(value.double(), exact, rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(value, logits)
    assert torch.isfinite(gradient).all()
