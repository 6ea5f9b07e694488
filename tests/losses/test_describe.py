"""Every axis that is not neutral is named; cross entropy is just that."""

from __future__ import annotations

from typing import Any

import pytest

from study.losses import PRESETS, LossConfig, family
from study.losses.describe import describe


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "ce"),
        ({"class_weights": {"scheme": "inverse_frequency", "exponent": 0.0}}, "ce"),
        (
            {"class_weights": {"scheme": "inverse_frequency", "exponent": 0.621}},
            "inverse frequency^0.62",
        ),
        ({"class_weights": {"scheme": "median_frequency"}}, "median frequency"),
        (
            {"class_weights": {"scheme": "effective_number", "kappa": 0.1}},
            "effective number 0.1",
        ),
        ({"class_weights": {"scheme": "enet", "c": 1.005}}, "enet 1.005"),
        ({"class_weights": {"scheme": "manual", "weights": [1, 2]}}, "manual weights"),
        ({"recall": {"ema_momentum": 0.0}}, "recall"),
        ({"recall": {"ema_momentum": 0.9312}}, "recall(ema 0.931)"),
        ({"pooling": {"kind": "max", "p": 1.7, "ratio": 0.3}}, "max-pooling(p 1.7, ratio 0.3)"),
        ({"pooling": {"kind": "ohem"}}, "ohem(0.7, 0.1)"),
        ({"jaccard": {"mix": 0.75}}, "jaccard 0.75"),
        (
            {"jaccard": {"mix": 0.5, "alpha": 0.3, "beta": 0.7, "average": "image"}},
            "jaccard 0.5 0.3/0.7 per image",
        ),
        ({"label_smoothing": 0.1, "focal_gamma": 2.0}, "smoothing 0.1 + focal 2"),
        ({"smoothing_region": {"kind": "boundary"}}, "ce"),
        (
            {"label_smoothing": 0.5, "smoothing_region": {"kind": "boundary"}},
            "boundary smoothing(0.5, width 3)",
        ),
        (
            {"recall": {"ema_momentum": 0.0}, "jaccard": {"mix": 0.28}},
            "recall + jaccard 0.28",
        ),
    ],
)
def test_a_loss_in_a_few_words(config: dict[str, Any], words: str) -> None:
    assert describe(LossConfig.model_validate(config)) == words


@pytest.mark.parametrize("name", PRESETS)
def test_only_neutral_losses_are_called_cross_entropy(name: str) -> None:
    loss = LossConfig.model_validate(PRESETS[name].config)
    assert (describe(loss) == "ce") == (family(loss) == "ce")
