"""Pooling: the weight of each pixel in the pixel term, a weighted sum of the pixels' losses.

    pixel = sum_p v_p ell_p         mean: v_p = 1 / n over the n valid pixels

or loss max-pooling (`max_pooling`) or OHEM (`ohem`), which prefer hard pixels. The weights v carry
no gradient.

Neutral: `{kind: mean}`.

Normaliser: n for the mean.

Source: cross entropy as torch takes it.

Differs: without a valid pixel the mean is 0, not NaN.

Examples:
    >>> import torch
    >>> from study.losses.pooling import MeanPooling, pooling_weights
    >>> log_p = torch.zeros(1, 2, 3).log_softmax(1)  # (B, C, P)
    >>> label, valid = torch.tensor([[0, 1, 0]]), torch.tensor([[True, True, False]])
    >>> pooling_weights(MeanPooling(), -log_p[:, 0], log_p, label, valid)[0].tolist()
    [[0.5, 0.5, 0.0]]
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from study.losses.axis import Config
from study.losses.max_pooling import MAX_POOLING, MaxPooling, max_pooling_weights, max_pools
from study.losses.ohem import OHEM, Ohem, margins, mines, ohem_kept

if TYPE_CHECKING:
    from torch import Tensor


class MeanPooling(Config):
    """Neutral: the mean over the valid pixels."""

    kind: Literal["mean"] = "mean"


Pooling = Annotated[MeanPooling | MaxPooling | Ohem, Field(discriminator="kind")]

POOLING = tuple(replace(axis, off={"pooling": MeanPooling()}) for axis in (MAX_POOLING, OHEM))


def pooling_weights(
    config: Pooling, losses: Tensor, log_p: Tensor, label: Tensor, valid: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The v (B, P) of the pixels, 0 where ignored, and the terms `capped` or `kept`.

    losses, label, valid: (B, P), losses 0 at ignored pixels; log_p: (B, C, P). None is attached to
    a graph.
    """
    num_valid = valid.sum()
    n = num_valid.clamp(min=1)
    if isinstance(config, MaxPooling) and max_pools(config):
        weights, capped = max_pooling_weights(losses, num_valid, config.p, config.ratio)
        return weights, {"capped": capped.sum() / n}
    if isinstance(config, Ohem) and mines(config):
        log_q = log_p.gather(1, label[:, None])[:, 0]
        order, q = margins(log_p, log_q, label), log_q.exp()
        order, q = (each.where(valid, math.inf) for each in (order, q))
        kept = ohem_kept(order, q, num_valid, config.threshold, config.min_kept)
        count = kept.sum()
        return kept.to(losses.dtype) / count.clamp(min=1), {"kept": count / n}
    return valid.to(losses.dtype) / n, {}
