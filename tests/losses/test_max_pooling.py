from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from losses.plain import water_filling
from scipy.optimize import minimize

from study.losses import build_loss
from study.losses.max_pooling import max_pooling_weights
from study.losses.water_filling import _log_alpha, _newton_on_the_device


def weights(losses, p, ratio):
    losses = torch.as_tensor(losses)
    return max_pooling_weights(losses, torch.tensor(losses.numel()), p, ratio)[0]


def bounds(n, p, ratio):
    m = max(1, int(ratio * n))
    gamma = n ** (1 / p - 1)
    return gamma, gamma * m ** (-1 / p)


vectors = st.lists(st.floats(1e-3, 20) | st.just(0.0), min_size=1, max_size=12)
norms = st.sampled_from([1.0, 1.0001, 1.02, 1.3, 2.0, 4.0, 50.0])
ratios = st.sampled_from([0.01, 0.2, 0.5, 0.99])


@pytest.mark.slow
@pytest.mark.parametrize("p", [1.0, 1.3, 1.7, 3.0])
@pytest.mark.parametrize("ratio", [0.2, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_feasible_weighting_found_by_a_generic_solver_is_better(p, ratio, seed):
    losses = np.random.default_rng(seed).exponential(1.0, 6)
    gamma, tau = bounds(6, p, ratio)
    found = minimize(
        lambda w: -w @ losses,
        np.full(6, 1 / 6),
        jac=lambda w: -losses,
        bounds=[(0, tau)] * 6,
        constraints={"type": "ineq", "fun": lambda w: gamma**p - (np.abs(w) ** p).sum()},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    ours = float(weights(losses, p, ratio) @ torch.from_numpy(losses))
    assert ours == pytest.approx(-found.fun, rel=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=200, derandomize=True)
@given(losses=vectors, p=norms, ratio=ratios)
def test_weights_are_feasible_and_equal_the_sorted_solution(losses, p, ratio):
    losses = torch.tensor(losses, dtype=torch.float64)
    n = losses.numel()
    gamma, tau = bounds(n, p, ratio)
    found = weights(losses, p, ratio)
    assert found.min() >= 0
    assert found.max() <= tau * (1 + 1e-9)
    assert float((found / gamma).pow(p).sum()) <= 1 + 1e-9
    expected = water_filling(losses, p, max(1, int(ratio * n)))
    if p >= 1.02:  # below, the sorted form itself underflows
        torch.testing.assert_close((found * losses).sum(), (expected * losses).sum())


@settings(deadline=None, max_examples=60, derandomize=True)
@given(losses=vectors, p=norms, ratio=ratios)
def test_the_pooled_loss_lies_between_mean_and_max_and_falls_in_p_and_ratio(losses, p, ratio):
    losses = torch.tensor(losses, dtype=torch.float64)

    def pooled(p, ratio):
        return float(weights(losses, p, ratio) @ losses)

    value, slack = pooled(p, ratio), 1e-9 * (1 + float(losses.max()))
    assert float(losses.mean()) - slack <= value <= float(losses.max()) + slack
    assert pooled(p + 0.5, ratio) <= value + slack
    assert pooled(p, min(0.999, 2 * ratio)) <= value + slack


@pytest.mark.parametrize("p", [1.0, 1.001, 1.05, 1.7, 4.0])
@pytest.mark.parametrize("value", [1e-6, 0.7, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_losses_get_equal_weight(p, value, dtype):
    found = weights(torch.full((10,), value, dtype=dtype), p, 0.3)
    rtol = 1e-9 if dtype == torch.float64 else 2e-6 * max(1, 1 / (p - 1 or 1)) ** 0.5
    torch.testing.assert_close(found, torch.full((10,), 0.1, dtype=dtype), rtol=rtol, atol=0)


def test_at_p_one_ties_at_the_edge_share_what_is_left():
    found = weights([3.0, 1.0, 1.0, 1.0, 0.5], 1.0, 0.4)
    torch.testing.assert_close(found, torch.tensor([0.5, 1 / 6, 1 / 6, 1 / 6, 0.0]))


@pytest.mark.parametrize("p", [1.02, 1.05, 1.1, 1.4])
@pytest.mark.parametrize("easy", [1e-2, 1e-4, 1e-13])
def test_bimodal_losses_in_float32_get_exact_weights(p, easy):
    """5 % hard pixels: powers of the easy ones relative to the largest loss underflow."""
    generator = torch.Generator().manual_seed(0)
    n = 20_000
    losses = easy * torch.rand(n, generator=generator, dtype=torch.float64)
    losses[: n // 20] = 5 + torch.rand(n // 20, generator=generator, dtype=torch.float64)
    single = losses.float()
    exact = weights(single.double(), p, 0.3)
    found = weights(single, p, 0.3)
    assert exact[n // 20 :].sum() > 0.01  # the easy pixels matter
    torch.testing.assert_close(found.double(), exact, rtol=2e-4, atol=1e-12)
    gamma, _ = bounds(n, p, 0.3)
    assert float((exact / gamma).pow(p).sum()) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("p", [1.000001, 1.001, 1.01])
def test_p_near_one_is_near_the_top_mean_and_not_rounded_to_it(p):
    losses = torch.rand(2000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, top = weights(losses, p, 0.25), weights(losses, 1.0, 0.25)
    assert float(found @ losses) < float(top @ losses)
    gamma, _ = bounds(2000, p, 0.25)
    assert float((found / gamma).pow(p).sum()) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("p", [1.0, 1.2, 2.0])
def test_no_more_positive_losses_than_the_support_all_weigh_tau(p):
    losses = torch.tensor([2.0, 0.0, 1e-9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    _, tau = bounds(10, p, 0.3)
    expected = torch.where(losses > 0, tau, 0.0)
    torch.testing.assert_close(weights(losses, p, 0.3), expected.double())


def test_all_zero_losses_weigh_nothing():
    assert (weights(torch.zeros(7), 1.7, 0.3) == 0).all()


@pytest.mark.parametrize("p", [1.0, 1.4])
def test_a_nan_loss_stays_visible(p):
    losses = torch.tensor([1.0, math.nan, 2.0, 0.5])
    assert (weights(losses, p, 0.5) * losses).sum().isnan()


@pytest.mark.parametrize("p", [1.0, 1.05, 1.7])
def test_order_and_scale_do_not_matter(p):
    losses = torch.rand(50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    found = weights(losses, p, 0.3)
    torch.testing.assert_close(weights(losses[order], p, 0.3), found[order])
    torch.testing.assert_close(weights(1e-3 * losses, p, 0.3), found)


@pytest.mark.parametrize("p", [1.02, 1.2, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.8, 0.99])
def test_a_fixed_number_of_steps_is_enough_for_losses_of_all_sizes(p, ratio):
    generator = torch.Generator().manual_seed(0)
    x = 18 * torch.rand(5000, generator=generator) - 16  # log of 1e-7 to 7
    m = torch.tensor(ratio * len(x)).double().floor()
    q = p / (p - 1)
    settled = _log_alpha(x, float(m), q)
    assert float(_newton_on_the_device(x, m, q)) == pytest.approx(settled, rel=0, abs=1e-6)


@pytest.mark.parametrize("p", [1.02, 1.05, 1.2, 1.7, 4.0])
@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_losses_whose_order_misleads_a_sample_still_meet_the_ball(p, ratio, dtype):
    n = 40_000
    losses = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses[8::16] *= 1e-6  # the pixels that the start is taken from
    losses[::7] = 0
    found = weights(losses.to(dtype), p, ratio)
    gamma, tau = bounds(n, p, ratio)
    rel = 1e-9 if dtype == torch.float64 else 1e-4
    assert float((found.double() / gamma).pow(p).sum()) == pytest.approx(1, rel=rel)
    assert float(found.max()) <= tau * (1 + rel)


@pytest.mark.parametrize("p", [1e15, 1e16, 1e300])
def test_a_p_that_is_as_good_as_infinite_gives_the_mean(p):
    logits, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    logits[0, 1, 0, 0], logits[0, 0, 1, 1] = 1, 200
    pooled = build_loss({"pooling": {"kind": "max", "p": p, "ratio": 0.5}}, num_classes=2)
    mean = build_loss({}, num_classes=2)(logits, target)
    torch.testing.assert_close(pooled(logits, target), mean, rtol=1e-6, atol=0)
