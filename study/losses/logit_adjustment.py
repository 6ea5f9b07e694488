"""Logit adjustment: the loss is taken of logits that the log of the class prior is added to.

    z'_p[c] = z_p[c] + tau * log pi_c,    pi_c = n_c / N of the training pixels

Every part of the loss sees z' (the cross entropy, q, the Jaccard term). The network itself learns
z, from which the prior is gone: its plain argmax favours no frequent class. The running recall is
that of z, which is what predicts. tau in [0, inf): at 1 it is the balanced softmax. The counts n_c
are needed; a class without training pixels has the prior of the rarest one that has some.

Neutral: tau 0.

Normaliser: none; the gradient by z is that by z'.

Sources: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, arXiv 2007.07314; Ren
et al., "Balanced Meta-Softmax", NeurIPS 2020, arXiv 2007.10740 (tau 1).

Differs: the papers count images of a class, here its pixels are counted. A decision rule
(`study.metrics.Decision`) shifts logits after training and the other way: by -tau log pi.

Examples:
    >>> import torch
    >>> from study.losses.logit_adjustment import adjusted, log_prior
    >>> prior = log_prior([75, 25], num_classes=2)
    >>> adjusted(torch.zeros(1, 2, 1), prior, tau=1.0).exp().flatten().tolist()
    [0.75, 0.25]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from study.core.errors import InputError
from study.losses.axis import Axis, Config
from study.losses.class_weights import Counts, read_counts

if TYPE_CHECKING:
    from torch import Tensor


class LogitAdjustment(Config):
    """tau times the log prior of the training pixels is added to the logits; 0 is neutral."""

    tau: float = Field(0.0, ge=0)


LOGIT_ADJUSTMENT = (
    Axis(
        name="logit_adjustment",
        off={"logit_adjustment": LogitAdjustment()},
        is_on=lambda loss: loss.logit_adjustment.tau > 0,
        words=lambda loss: ("logit adjustment", "Menon et al., ICLR 2021, arXiv 2007.07314"),
        short=lambda loss: (
            f"logit adjustment {loss.logit_adjustment.tau:.2g}" if loss.logit_adjustment.tau else ""
        ),
        needs_counts=lambda loss: loss.logit_adjustment.tau > 0,
        parts=("ADJUSTMENT",),
        numbers=lambda loss: {"adjustment_tau": loss.logit_adjustment.tau},
    ),
)


def log_prior(counts: Counts | None, num_classes: int) -> Tensor:
    """log pi, (C,) float64. Raises InputError without counts, ValueError if they do not fit."""
    if counts is None:
        raise InputError(
            "logit_adjustment needs class_counts",
            hint="pass the training split's pixel counts",
            key="logit_adjustment/tau",
        )
    table = read_counts(counts, num_classes)
    pixels = table.sum(0) if table.ndim == 2 else table
    return (pixels.clamp(min=float(pixels[pixels > 0].min())) / pixels.sum()).log()


def adjusted(scores: Tensor, log_prior: Tensor, tau: float) -> Tensor:
    """z' of logits z (B, C, P) and log pi (C,)."""
    return scores + (tau * log_prior).to(scores.dtype)[:, None]
