"""The weights of loss max-pooling (`max_pooling`): the exact optimum, found by Newton's method."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from study.losses.looking import may_look

_SMALLEST_SUM = 1e-28  # far above float32's smallest: terms that underflow are negligible
_NOTHING = -80.0  # exp of less approaches float32's denormal numbers, which are slow
_SAMPLE_STEP = 16  # the optimum of every 16th pixel is the starting point
_SMALLEST_SAMPLE = 256
_BISECTIONS = 4  # halvings of the root's bracket where Newton's steps stay long
_STEPS_WITHOUT_SYNC = 32  # Newton steps where the host may not check convergence


def at_the_top(flat: Tensor, m: Tensor) -> Tensor:
    """w / tau at p = 1: 1 above the m-th largest loss; losses equal to it divide the rest."""
    if may_look(flat):
        k = max(1, flat.numel() - int(m) + 1)
        edge = torch.kthvalue(flat, k).values
    else:
        edge = flat.sort(descending=True).values.gather(0, m.long().reshape(1) - 1)[0]
    above, at = flat > edge, flat == edge
    weight = (m - above.sum()) / at.sum().clamp(min=1)
    return above.to(flat.dtype) + at * weight.to(flat.dtype)


def within_the_ball(flat: Tensor, m: Tensor, p: float, slack: Tensor) -> Tensor:
    """w / tau at 1 < p < inf: min(1, (ell / alpha)^(q - 1))."""
    q = p / (p - 1)
    work = flat.double() if q > 64 else flat  # q multiplies the rounding error of log ell
    x = work.log()
    if may_look(flat):
        if bool(slack):
            return torch.ones_like(flat)
        x = x.sub_(_log_alpha(x, float(m), q))
    else:
        x = x.sub_(_newton_on_the_device(x, m, q).to(x.dtype))
    x.mul_(q - 1).clamp_max_(0)
    return torch.threshold_(x, _NOTHING, -torch.inf).exp_().to(flat.dtype)


# With s = alpha^-q the constraint sum min(1, s * ell^q) is concave, increasing and piecewise linear
# in s. So a Newton step from any point ends at or before the root, every further step gets closer
# without passing it, and finitely many steps fix the set of capped pixels: the result is exact.
# Below, x = log ell and beta = log alpha.


def _log_alpha(x: Tensor, m: float, q: float) -> float:
    """beta on a CPU, where the host may check convergence after each step."""
    beta = float("inf")
    if x.numel() >= 2 * _SAMPLE_STEP * _SMALLEST_SAMPLE:
        sample = x[_SAMPLE_STEP // 2 :: _SAMPLE_STEP]
        expected = m * sample.numel() / x.numel()
        if int((sample > -torch.inf).sum()) > expected:
            beta = _tangent_root(x, m, q, _log_alpha(sample, expected, q))
    if beta == float("inf"):
        beta = (float(_log_sum_exp(q, x)) - math.log(m)) / q  # the root if no pixel is capped
    settled = 0.0 if x.dtype == torch.float64 else 1e-4 / q
    bisected = q <= 4
    while True:
        lower = _tangent_root(x, m, q, beta)
        if not lower < beta - settled:
            return min(lower, beta)
        if not bisected and beta - lower > 1 / q:
            bisected, lower = True, _bisected(x, m, q, lower)
        beta = lower


def _bisected(x: Tensor, m: float, q: float, high: float) -> float:
    """An upper bound of beta below `high`, for large q, where Newton steps are short.

    With e the m-th largest x the root lies in [e, e + log(n) / q]: at the upper end the pixels
    below e add less than 1, at the lower end m pixels are capped.
    """
    low = float(torch.kthvalue(x, max(1, x.numel() - int(m) + 1)).values)
    high = min(high, low + math.log(x.numel()) / q)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        root = _tangent_root(x, m, q, middle)
        low = low if root < middle else middle
        high = min(high, root)
    return high


def _tangent_root(x: Tensor, m: float, q: float, beta: float) -> float:
    """A Newton step from beta; inf if the constraint is flat or exceeds m there."""
    beta = x.new_tensor(beta).item()  # rounded to the pixels' dtype, for the comparison
    relative = torch.sub(x, beta).mul_(q).clamp_(_NOTHING, 0)
    capped = x.numel() - int(torch.count_nonzero(relative))
    if capped >= m:
        return float("inf")
    below = float(relative.exp_().sum(dtype=torch.float64)) - capped
    if below > _SMALLEST_SUM:
        return beta + (math.log(below) - math.log(m - capped)) / q
    rest = torch.where(x < beta, x, -torch.inf)
    return (float(_log_sum_exp(q, rest)) - math.log(m - capped)) / q


def _newton_on_the_device(x: Tensor, m: Tensor, q: float) -> Tensor:
    """beta without a host synchronisation: a fixed number of Newton steps.

    Each step sums relative to the largest loss below the cap, so no relevant term underflows. For
    large q, where steps are short, a few bisections bring the start near.
    """
    count = x.numel()

    def newton(beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the root of the tangent at beta (inf: none) and the constraint's sum."""
        below = x < beta.to(x.dtype)
        capped = count - below.sum()
        log_sum = _log_sum_exp(q, torch.where(below, x, -torch.inf))
        root = torch.where(capped < m, (log_sum - torch.log(m - capped)) / q, torch.inf)
        return root, capped + torch.exp(log_sum - q * beta)

    high = (_log_sum_exp(q, x) - torch.log(m)) / q  # no pixel capped: an upper bound
    if q > 4:
        low = high - 32
        for _ in range(math.ceil(math.log2(q))):
            middle = (low + high) / 2
            root, total = newton(middle)
            high = torch.minimum(high, root)
            low = torch.where(total > m, middle, low)
            high = torch.where(total > m, high, torch.minimum(high, middle))
    for _ in range(_STEPS_WITHOUT_SYNC):
        high = torch.minimum(high, newton(high)[0])
    return high


def _log_sum_exp(q: float, x: Tensor) -> Tensor:
    """log sum exp(q x) in float64, relative to the largest x."""
    top = x.max()
    top = torch.where(torch.isneginf(top), 0, top)
    return q * top.double() + torch.log(torch.exp(q * (x - top)).sum(dtype=torch.float64))
