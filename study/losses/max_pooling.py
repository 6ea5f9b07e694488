"""Loss max-pooling: the worst-case weighting of the pixels within a p-norm ball.

    L = max_w sum_u w_u ell_u    subject to  w >= 0,  |w|_p <= gamma,  max w <= tau
    gamma = n^(1/p - 1),   tau = gamma * m^(-1/p),   m = max(1, floor(ratio * n))

over the n valid pixels of the batch: the uniform weighting lies on the ball, and at least m pixels
are supported. With q = p / (p - 1) the optimum is

    w_u = tau * min(1, (ell_u / alpha)^(q - 1)),   alpha from  sum_u min(1, (ell_u / alpha)^q) = m

p in [1, inf], ratio in (0, 1]; p = 1 is the mean of the m hardest. Weights carry no gradient, which
is exact (envelope theorem). Zero losses have weight 0; if at most m losses are positive the ball is
slack and each of them has weight tau. Equal losses have equal weights, also at p = 1, where those
at the boundary divide the remaining weight.

Neutral: `{kind: mean}`, p = inf or ratio = 1, each of which is the mean.

Normaliser: none beyond the ball; the weights sum to at most 1.

Source: Rota Bulo, Neuhold, Kontschieder, CVPR 2017, arXiv 1704.02966.

Differs: public ports (mpl.pytorch) stop the water filling at a wrong index and drop the hardest
pixels when some losses are zero.

Examples:
    >>> import torch
    >>> from study.losses.max_pooling import max_pooling_weights
    >>> losses = torch.tensor([4.0, 1.0, 2.0, 3.0])
    >>> max_pooling_weights(losses, torch.tensor(4), p=1.0, ratio=0.5)[0].tolist()
    [0.5, 0.0, 0.0, 0.5]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field

from study.losses.axis import Axis, Config, has_pixel_term

if TYPE_CHECKING:
    from torch import Tensor


class MaxPooling(Config):
    """Loss max-pooling: p of the p-norm ball of weights; least fraction of supported pixels."""

    model_config = ConfigDict(allow_inf_nan=True)
    kind: Literal["max"]
    p: float = Field(1.7, ge=1)
    ratio: float = Field(0.3, gt=0, le=1)


def max_pools(config: Any) -> bool:
    """Whether a pooling is loss max-pooling, and not the mean whatever the data."""
    if not isinstance(config, MaxPooling):
        return False
    p = config.p  # infinite where p / (p - 1) rounds to 1
    return (p == 1 or p / (p - 1) > 1) and config.ratio < 1


MAX_POOLING = Axis(
    name="max_pooling",
    off={},
    is_on=lambda loss: max_pools(loss.pooling) and has_pixel_term(loss),
    words=lambda loss: ("loss max-pooling", "Rota Bulo et al., CVPR 2017, arXiv 1704.02966"),
    short=lambda loss: (
        f"max-pooling(p {loss.pooling.p:.2g}, ratio {loss.pooling.ratio:.2g})"
        if isinstance(loss.pooling, MaxPooling)
        else ""
    ),
    parts=("MAX_POOLING",),
    numbers=lambda loss: {"pooling_p": loss.pooling.p, "pooling_ratio": loss.pooling.ratio},
)


def max_pooling_weights(
    losses: Tensor, num_valid: Tensor, p: float, ratio: float
) -> tuple[Tensor, Tensor]:
    """Return the optimal weights of `losses` and the mask of those at the cap tau.

    losses: any shape, >= 0, 0 at ignored pixels, without gradient; num_valid: 0-dim count n. p must
    be finite and ratio below 1; the mean needs no weights.
    """
    import torch

    from study.losses.water_filling import at_the_top, within_the_ball

    flat = losses.reshape(-1)
    n = num_valid.double().clamp(min=1)
    m = torch.floor(n * ratio).clamp(min=1)
    tau = n ** (1 / p - 1) * m ** (-1 / p)
    positive = flat > 0
    slack = positive.sum() <= m
    relative = at_the_top(flat, m) if p == 1 else within_the_ball(flat, m, p, slack)
    relative = torch.where(slack, positive.to(flat.dtype), relative)
    weights = torch.where(torch.isnan(flat), flat, tau.to(flat.dtype) * relative)
    return weights.reshape(losses.shape), (relative >= 1).reshape(losses.shape)
