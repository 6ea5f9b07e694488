"""The focal factor: pixels that are already right count less.

    m_p = (1 - q_p)^gamma

q_p is the softmax probability of the pixel's class, unweighted and unsmoothed; m is differentiated
through q. gamma >= 0. 1 - q is taken as `-expm1(log q)`; where it rounds to 0 the gradient is 0,
also for gamma < 1.

Neutral: `focal_gamma: 0`.

Normaliser: none; the pixel term still divides by its pixels.

Source: Lin et al., ICCV 2017, arXiv 1708.02002, in its softmax form.

Differs: the paper and most libraries ask every class apart, with a sigmoid.

Examples:
    >>> import torch
    >>> from study.losses.focal import focal_factor
    >>> focal_factor(torch.tensor([0.9, 0.5, 0.0]).log(), 2.0).round(decimals=2).tolist()
    [0.009999999776482582, 0.25, 1.0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from study.losses.axis import Axis, has_pixel_term

if TYPE_CHECKING:
    from torch import Tensor

FOCAL = (
    Axis(
        name="focal",
        off={"focal_gamma": 0.0},
        is_on=lambda loss: loss.focal_gamma > 0 and has_pixel_term(loss),
        words=lambda loss: ("the focal factor", "Lin et al., ICCV 2017, arXiv 1708.02002"),
        short=lambda loss: f"focal {loss.focal_gamma:.2g}" if loss.focal_gamma else "",
        after=True,
        parts=("FOCAL",),
        numbers=lambda loss: {"focal_gamma": loss.focal_gamma},
    ),
)


def focal_factor(log_q: Tensor, gamma: float) -> Tensor:
    """(1 - q)^gamma of log q, any shape, gamma > 0."""
    miss = -log_q.expm1()
    away = miss > 0
    return (miss.where(away, 1.0) ** gamma).where(away, 0.0)
