"""Online hard example mining: only the hardest pixels count.

    k    = max(1, int(min_kept * n)), at most n              n valid pixels in the batch
    kept = {q < threshold} together with {q <= the k-th smallest q}, ties included
    L    = mean of ell over the kept pixels

q is the softmax probability of the pixel's class, whatever its weight; near 1 pixels are ordered
by 1 - q, which is summed up from the other classes. threshold in [0, 1): 0 is
plain top-k; min_kept in (0, 1].

Neutral: `{kind: mean}`, or min_kept 1, which keeps all.

Normaliser: number of kept pixels. The selection carries no gradient.

Source: Shrivastava et al., CVPR 2016, arXiv 1604.03540, in the segmentation form of PIDNet and
mmsegmentation.

Differs: those take min_kept as a pixel count and keep nothing (a NaN) if all q are equal and above
the threshold.

Examples:
    >>> import torch
    >>> from study.losses.ohem import ohem_kept
    >>> q = torch.tensor([0.9, 0.2, 0.8, 0.95])
    >>> ohem_kept(q.logit(), q, torch.tensor(4), threshold=0.5, min_kept=0.5).tolist()
    [False, True, True, False]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from study.losses.axis import Axis, Config, has_pixel_term

if TYPE_CHECKING:
    from torch import Tensor


class Ohem(Config):
    """Online hard example mining: pixels below a probability, at least a fraction of all."""

    kind: Literal["ohem"]
    threshold: float = Field(0.7, ge=0, lt=1)
    min_kept: float = Field(0.1, gt=0, le=1)


def mines(config: Any) -> bool:
    """Whether a pooling is OHEM, and does not keep all pixels whatever the data."""
    return isinstance(config, Ohem) and config.min_kept < 1


OHEM = Axis(
    name="ohem",
    off={},
    is_on=lambda loss: mines(loss.pooling) and has_pixel_term(loss),
    words=lambda loss: (
        "online hard example mining",
        "Shrivastava et al., CVPR 2016, arXiv 1604.03540",
    ),
    short=lambda loss: (
        f"ohem({loss.pooling.threshold:.2g}, {loss.pooling.min_kept:.2g})"
        if isinstance(loss.pooling, Ohem)
        else ""
    ),
    parts=("OHEM",),
    numbers=lambda loss: {
        "threshold": loss.pooling.threshold,
        "min_kept": loss.pooling.min_kept,
    },
)


def ohem_kept(
    margin: Tensor, q: Tensor, num_valid: Tensor, threshold: float, min_kept: float
) -> Tensor:
    """The mask of the kept pixels.

    margin and q: same shape, +inf at ignored pixels (never kept). Pixels are ordered by the margin,
    any increasing function of q such as log q - log(1 - q), and compared with the threshold by q. A
    NaN is kept, so that it shows in the loss.
    """
    import torch

    from study.losses.looking import may_look

    below = ~(q >= threshold)
    if may_look(margin):
        count = int(num_valid)
        k = min(max(1, int(min_kept * count)), max(count, 1))
        if int(below.sum()) >= k:
            return below
        kth = torch.kthvalue(margin.reshape(-1), k).values
    else:
        index = torch.floor(num_valid.double() * min_kept).long().clamp(min=1) - 1
        kth = margin.reshape(-1).sort().values.gather(0, index.reshape(1))[0]
    return below | ~((margin > kth) | torch.isposinf(margin))


def tells_apart(q: Tensor, num_valid: Tensor, min_kept: float) -> bool:
    """Whether log q orders all pixels up to the k-th: enough of them are not near q = 1."""
    from study.losses.looking import may_look

    return may_look(q) and int((q < 0.99).sum()) >= max(1, int(min_kept * int(num_valid)))


def margins(log_p: Tensor, log_q: Tensor, label: Tensor) -> Tensor:
    """log q - log(1 - q), (B, P), with 1 - q summed up from the other classes of log_p (B, C, P).

    Single precision knows q and log q no longer where q is near 1, but 1 - q.
    """
    others = log_p.scatter(1, label[:, None], -float("inf"))
    return log_q - others.logsumexp(1)
