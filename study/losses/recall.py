"""Recall weights: each class is weighted by the fraction of its pixels that are missed.

    w_c = 1 - R_c,    R_c = hits_c / support_c        (no gradient: R comes from argmax counts)
    R   <- m * R + (1 - m) * R_batch                  for the classes present in the batch

R = 0 everywhere is plain cross entropy, which is also the start of training; as frequent classes
are learned their weight falls and the loss shifts to the classes that are still missed.

ema_momentum m is the weight of the PAST, in [0, 1); torch's BatchNorm momentum means the opposite.
m = 0 is the published, instantaneous recall. The first observation of a class sets its R, a class
absent from the batch keeps its R, and a class never seen has R = 0 (weight 1). R (C,) is updated
before the step's loss, in training mode only.

Neutral: `recall: null`.

Normaliser: none here; the pixel weights 1 - R shrink as recall rises unless `normalizer: weight`.

Source: Tian et al., "Striking the Right Balance: Recall Loss for Semantic Segmentation", ICRA 2022,
arXiv 2106.14917.

Differs: the reference code floors hits and support at 1 and adds the statistics of ignored pixels
to class 0; here ignored pixels do not count and nothing is floored. Its running mean averages the
weights, not R, with momentum 0.5 and weight 1 for absent classes.

Examples:
    >>> import torch
    >>> from study.losses.recall import updated_recall
    >>> hits, support = torch.tensor([3.0, 0.0]).double(), torch.tensor([4.0, 0.0]).double()
    >>> before, seen = torch.tensor([0.25, 0.5]).double(), torch.tensor([1.0, 1.0]).double()
    >>> updated_recall(before, seen, hits, support, ema_momentum=0.5)[0].tolist()
    [0.5, 0.5]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from study.losses.axis import Axis, Config, has_pixel_term

if TYPE_CHECKING:
    from torch import Tensor


class Recall(Config):
    """Recall weights 1 - R; ema_momentum is the weight of the past, 0 takes one batch's recall."""

    ema_momentum: float = Field(ge=0, lt=1)


def _short(config: Recall | None) -> str:
    if config is None:
        return ""
    momentum = config.ema_momentum
    return f"recall(ema {momentum:.3g})" if momentum else "recall"


RECALL = (
    Axis(
        name="recall",
        off={"recall": None},
        is_on=lambda loss: loss.recall is not None and has_pixel_term(loss),
        words=lambda loss: ("recall weights", "Tian et al., ICRA 2022, arXiv 2106.14917"),
        short=lambda loss: _short(loss.recall),
        parts=("RECALL",),
        numbers=lambda loss: {"recall_momentum": loss.recall.ema_momentum},
    ),
)


def updated_recall(
    recall: Tensor, seen: Tensor, hits: Tensor, support: Tensor, ema_momentum: float
) -> tuple[Tensor, Tensor]:
    """R and the classes seen, (C,) float64 each, after a batch.

    recall, seen: before it; seen > 0 where a class was seen. hits, support: true positives and
    target pixels of the batch, (C,).
    """
    present = support > 0
    batch = hits / support.clamp(min=1)
    mixed = batch.lerp(recall, ema_momentum)
    new = mixed.where(seen > 0, batch)
    return new.where(present, recall), seen.where(~present, 1.0)
