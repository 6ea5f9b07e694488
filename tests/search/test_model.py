"""The kernel of the search's model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from study.search.encoding import Encoder
from study.search.model import SHARED, Apart, Kernel
from study.space.search_space import load_space


def correlation(kernel: Kernel, encoder: Encoder, x: np.ndarray, y: np.ndarray) -> float:
    """The product over leaves and choices, as `study.search.model` writes it, factor by factor."""
    product = 1.0
    for column, size in enumerate(encoder.sizes):
        relevance, shared = kernel.relevance[column], kernel.shared[column]
        a, b = x[column], y[column]
        if math.isnan(a) or math.isnan(b):
            product *= 1.0 if math.isnan(a) and math.isnan(b) else shared
            continue
        gap = float(a != b) if size > 0 else (a - b) ** 2
        product *= shared**2 + (1 - shared**2) * math.exp(-relevance * gap)
    return product


def test_the_kernel_is_the_product_over_leaves_and_choices() -> None:
    encoder = Encoder(load_space("joint"))
    assert encoder.is_conditional.any() and not encoder.is_conditional.all()
    rng = np.random.default_rng(0)
    rows = encoder.uniform(24, rng)
    rows[1] = rows[0]
    shared = np.where(encoder.is_conditional, SHARED, 0.0)
    kernel = Kernel(rng.uniform(0.1, 3.0, len(encoder.columns)), shared, 0.1)
    wanted = [[correlation(kernel, encoder, x, y) for y in rows[:9]] for x in rows]
    found = kernel(Apart.of(rows, rows[:9], encoder.sizes))
    assert found == pytest.approx(np.array(wanted), rel=1e-12)
    assert found[1, 0] == 1.0
