from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from study.losses import LossConfig, build_loss
from study.losses.class_weights import class_weights


def config_of(**tree):
    return LossConfig.model_validate(tree)


COUNTS = [5000.0, 1200.0, 400.0, 90.0, 11.0, 0.0]
SCHEMES = {
    "inverse": ({"scheme": "inverse_frequency"}, lambda f, n: 1 / f),
    "inverse-sqrt": ({"scheme": "inverse_frequency", "exponent": 0.5}, lambda f, n: f**-0.5),
    "enet": ({"scheme": "enet"}, lambda f, n: 1 / np.log(1.02 + f)),
    "enet-1.1": ({"scheme": "enet", "c": 1.1}, lambda f, n: 1 / np.log(1.1 + f)),
    "effective-number": (
        {"scheme": "effective_number"},
        lambda f, n: (1 / n.sum()) / (1 - (1 - 1 / n.sum()) ** n),
    ),
}


@pytest.mark.parametrize(("scheme", "shape"), SCHEMES.values(), ids=SCHEMES)
def test_schemes_have_their_shape_and_a_frequency_weighted_mean_of_one(scheme, shape):
    found = class_weights(config_of(class_weights=scheme).class_weights, COUNTS, 6).numpy()
    counts = np.array(COUNTS)
    frequency = counts / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = shape(frequency, counts)[:5]
    np.testing.assert_allclose(found[:5] / found[0], expected / expected[0], rtol=1e-9)
    assert found @ frequency == pytest.approx(1, rel=1e-12)
    assert found[5] == 0  # a class without pixels
    assert found.dtype == np.float64


def test_median_frequency_counts_the_images_that_contain_a_class():
    counts = [[40, 10, 0, 6], [30, 20, 6, 0], [0, 50, 6, 0], [56, 0, 0, 0]]
    config = config_of(class_weights={"scheme": "median_frequency"}).class_weights
    found = class_weights(config, counts, 4).numpy()
    published = np.array([0.38888889, 0.6125, 2.72222222, 2.72222222])
    np.testing.assert_allclose(found / found[0], published / published[0], rtol=1e-8)


def test_manual_weights_are_taken_as_given():
    config = config_of(class_weights={"scheme": "manual", "weights": [3.0, 0.0]}).class_weights
    assert class_weights(config, None, 2).tolist() == [3.0, 0.0]


def test_effective_number_stays_exact_for_huge_counts():
    config = config_of(class_weights={"scheme": "effective_number", "kappa": 1e4}).class_weights
    found = class_weights(config, [2e12, 1e6], 2)
    inverse = class_weights(
        config_of(class_weights={"scheme": "inverse_frequency"}).class_weights, [2e12, 1e6], 2
    )
    torch.testing.assert_close(found, inverse, rtol=1e-3, atol=0)


@pytest.mark.parametrize("kappa", [1e12, 1e300, 1e308])
def test_effective_number_ends_in_inverse_frequency(kappa):
    schemes = {"scheme": "effective_number", "kappa": kappa}, {"scheme": "inverse_frequency"}
    found, limit = (
        class_weights(config_of(class_weights=scheme).class_weights, COUNTS, 6)
        for scheme in schemes
    )
    torch.testing.assert_close(found, limit, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("scheme", "counts", "words"),
    [
        ({"scheme": "enet"}, None, "enet needs class_counts"),
        ({"scheme": "median_frequency"}, [1, 2, 3], r"class_counts of shape \(images, C\)"),
        ({"scheme": "enet"}, [1, 2], r"shape \(3,\) or \(images, 3\)"),
        ({"scheme": "enet"}, [0, 0, 0], "must not all be 0"),
        ({"scheme": "enet"}, [1, -2, 3], "finite and >= 0"),
        ({"scheme": "enet"}, [1, math.nan, 3], "finite and >= 0"),
        ({"scheme": "enet"}, "many", "class_counts must be an array of numbers"),
        ({"scheme": "enet"}, [[1, 2, 3], [1]], "class_counts must be an array of numbers"),
        ({"scheme": "effective_number", "kappa": 0.01}, [1, 2, 3], "kappa"),
        ({"scheme": "manual", "weights": [1.0]}, None, "one entry per class \\(3\\), got 1"),
    ],
)
def test_class_weights_that_cannot_be_made_are_refused(scheme, counts, words):
    with pytest.raises(ValueError, match=words):
        build_loss({"class_weights": scheme}, num_classes=3, class_counts=counts)
