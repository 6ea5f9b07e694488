"""The whole loss in one screen of plain autograd: what is right, whatever is asked of it.

    z'_p  = z_p + tau * log pi                               the logits, with the prior in the loss
    ce_p  = -sum_c s_p[c] log softmax(z'_p)[c]               s: one-hot, smoothed or soft label
    ell_p = w_p a[y_p] (1 - R[y_p]) (1 - q_p)^gamma ce_p     q_p = softmax(z'_p)[y_p], w: per pixel
    L     = (1 - mix) * sum_p v_p ell_p + mix * Jaccard(softmax z', target)

over the valid pixels p, with label y_p. The class weights a, the recall R and the pooling weights v
are constants to the gradient. With every axis neutral L is the mean cross entropy.

Each part is a function of its own file. `kernel` computes the same value with its gradient at once,
for the configs that it knows; `module` chooses between them, and holds the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from study.losses.config import LossConfig
from study.losses.focal import focal_factor
from study.losses.jaccard import Overlap, active_classes, jaccard_loss
from study.losses.label_smoothing import smoothed
from study.losses.logit_adjustment import adjusted
from study.losses.pooling import pooling_weights
from study.losses.targets import Labels

WEIGHTS = "weights"  # key of the (C,) weights among the terms, which are 0-dim
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Plain:
    """The loss of a step, 0-dim; its terms; the sums of its Jaccard term, if it has one."""

    value: Tensor
    terms: Terms
    overlap: Overlap | None


def plain_loss(
    config: LossConfig,
    scores: Tensor,
    labels: Labels,
    class_factors: Tensor | None,
    log_prior: Tensor | None,
) -> Plain:
    """The loss of logits (B, C, P), and its terms, with everything attached to the graph.

    class_factors: a * (1 - R), (C,) float64; None where all are 1. log_prior: log pi, (C,) float64;
    None where the logits are not adjusted.
    """
    valid, mix, terms = labels.valid, config.jaccard.mix, Terms()
    if log_prior is not None:
        scores = adjusted(scores, log_prior, config.logit_adjustment.tau)
    log_p = scores.masked_fill(labels.ignored[:, None], 0).log_softmax(1)
    log_q = log_p.gather(1, labels.label[:, None])[:, 0]
    sharp = labels.soft
    if sharp is not None:
        labels.check(sharp.detach(), valid, 1)
    if sharp is None:
        sharp = torch.zeros_like(log_p).scatter(1, labels.label[:, None], 1.0)
    value = torch.zeros((), dtype=scores.dtype, device=scores.device)
    overlap = None

    if mix < 1:
        losses = -log_q  # cross entropy
        if labels.soft is not None:
            impossible = (sharp == 0) & log_p.isneginf()
            losses = -(sharp * log_p.masked_fill(impossible, 0)).sum(1)  # 0 log 0 is 0
        if config.label_smoothing > 0:
            losses = (1 - labels.epsilon) * losses - labels.epsilon * log_p.mean(1)
        losses = losses.where(valid, 0)
        terms["cross_entropy"] = losses.sum() / labels.num_valid.clamp(min=1)
        if class_factors is None and labels.weight is not None:
            class_factors = losses.new_ones(labels.num_classes, dtype=torch.float64)
        if class_factors is not None:
            factors = _normalized(config, class_factors, labels)
            terms[WEIGHTS] = factors
            losses = losses * factors.to(losses.dtype)[labels.label]
        if labels.weight is not None:
            losses = losses * labels.weight
        if config.focal_gamma > 0:
            losses = losses * focal_factor(log_q, config.focal_gamma)
        losses = losses.where(valid, 0)
        pooled, more = pooling_weights(
            config.pooling, losses.detach(), log_p.detach(), labels.label, valid
        )
        terms |= {"pixel": (pooled * losses).sum(), **more}
        value = value + (1 - mix) * terms["pixel"]

    if mix > 0:
        p, t = log_p.exp(), sharp
        if config.jaccard.target == "smoothed" and config.label_smoothing > 0:
            t = smoothed(sharp, labels.epsilon)
        p, t, sharp = (each.where(valid[:, None], 0) for each in (p, t, sharp))
        active = active_classes(config.jaccard, sharp.detach().amax(2), valid)
        overlap = Overlap(torch.minimum(p, t).sum(2), p.sum(2), t.sum(2), active)
        terms["jaccard"] = jaccard_loss(config.jaccard, overlap)
        value = value + mix * terms["jaccard"]
    return Plain(value, terms, overlap)


def _normalized(config: LossConfig, factors: Tensor, labels: Labels) -> Tensor:
    """The class factors, with `normalizer: weight` scaled to average 1 over the valid pixels, those
    of the pixels' own included."""
    if config.normalizer == "valid":
        return factors
    each = factors[labels.label]
    if labels.weight is not None:
        each = each * labels.weight
    total = each.where(labels.valid, 0).sum()
    return (factors * labels.num_valid / total.where(total > 0, 1)).where(total > 0, 0)
