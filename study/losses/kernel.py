"""Value and gradient of the whole loss from one softmax: the fast path of `loss`.

It takes tensors and plain numbers, looks nothing up, and has no graph. Every weight (class, recall,
pooling) is a constant to the gradient. With v the pooling weight, w = a * (1 - R),
m = (1 - q)^gamma and e_y the one-hot label, the gradient of the pixel term is

    d / dz = c1 * (p * sum(s) - s) + c2 * (p - e_y)
    c1 = v * w * m,     c2 = v * w * ce * gamma * (1 - q)^(gamma - 1) * q

The Jaccard term, with G its derivative by p, adds p * (G - sum_c p_c G_c). The gradient is written
into the softmax's own buffer.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from study.losses.config import LossConfig, MaxPooling, Ohem
from study.losses.family import active
from study.losses.histogram import sum_by_label
from study.losses.jaccard import Overlap, active_classes, partial_derivatives
from study.losses.looking import may_look
from study.losses.loss import WEIGHTS, Terms
from study.losses.max_pooling import max_pooling_weights, max_pools
from study.losses.ohem import margins, mines, ohem_kept, tells_apart
from study.losses.targets import Labels

KNOWN = {
    "label_smoothing",
    "boundary_smoothing",
    "focal",
    "class_weights",
    "recall",
    "max_pooling",
    "ohem",
    "jaccard",
    "logit_adjustment",  # its scores come adjusted
}
_BLOCK = 1 << 11  # pixels per matrix product; its rounding error grows with them


def knows(config: LossConfig) -> bool:
    """Whether the loss of a config is computed here; the plain form computes any."""
    return {axis.name for axis in active(config)} <= KNOWN


class Step:
    """One evaluation: `hits` may be asked for first, then `run` once.

    Args:
        config: for which `knows` is true.
        scores: logits (B, C, P), adjusted, without graph.
        labels: of the same pixels.
        wants_gradient: whether `run` turns `probability`, the softmax, into the gradient.
    """

    def __init__(
        self, config: LossConfig, scores: Tensor, labels: Labels, wants_gradient: bool
    ) -> None:
        self.config, self.labels, self.wants_gradient = config, labels, wants_gradient
        if labels.soft is not None:
            labels.check(labels.soft, labels.valid, 1)
        self.scores = scores
        self.terms: Terms = {}
        self.overlap: Overlap | None = None
        self.mix = self.config.jaccard.mix
        self.label = labels.label
        self.num_valid = labels.num_valid.clamp(min=1)
        self.log_p = torch.log_softmax(scores, 1)
        self._log_q = self.at_label(self.log_p)
        self.jaccard_is_dense = self.mix > 0 and (
            labels.soft is not None
            or (self.config.jaccard.target == "smoothed" and self.config.label_smoothing > 0)
        )
        # A pixel's log_p is NaN for all classes or for none. Without NaNs a factor 0 is enough to
        # exclude the ignored pixels. On an accelerator, looking for NaNs would wait for the device.
        self.must_clear = labels.some_ignored and (
            scores.device.type != "cpu"
            or self.jaccard_is_dense
            or math.isnan(float(self._log_q.sum()))
        )
        self.log_q = self.masked(self._log_q)

    def masked(self, per_pixel: Tensor, fill: float = 0.0) -> Tensor:
        if not self.labels.some_ignored:
            return per_pixel
        return per_pixel.masked_fill(self.labels.ignored, fill)

    def at_label(self, per_class: Tensor) -> Tensor:
        """Select the values of (B, C, P) at each pixel's label, (B, P)."""
        return per_class.view(-1).index_select(0, self.label_index).view(self.label.shape)

    @cached_property
    def label_index(self) -> Tensor:
        """Position of each pixel's label in the flattened (B, C, P): (B * P,)."""
        batch, pixels = self.label.shape
        size = self.labels.num_classes * pixels
        image = torch.arange(0, batch * size, size, device=self.label.device)[:, None]
        pixel = torch.arange(pixels, device=self.label.device)
        return torch.add(pixel, self.label, alpha=pixels).add_(image).view(-1)

    def clear_ignored(self, per_class: Tensor) -> None:
        """Write 0 at the ignored pixels of (B, C, P), in place."""
        if per_class.device.type != "cpu":
            per_class.masked_fill_(self.labels.ignored[:, None], 0)
            return
        for image, ignored in zip(per_class, self.labels.ignored, strict=True):
            image.index_fill_(1, ignored.nonzero()[:, 0], 0)

    @cached_property
    def q(self) -> Tensor:
        """Softmax probability of the label, (B, P); 1 at ignored pixels."""
        return self.log_q.exp()

    @cached_property
    def support(self) -> Tensor:
        """Valid pixels of each image and class, (B, C) float64."""
        return self.labels.sum_by_image()

    def run(self, class_factors: Tensor | None) -> Tensor:
        """The value. class_factors: a * (1 - R), (C,) float64; None where all are 1."""
        pixel_gradient = jaccard_gradient = None
        smoothed_log_p = self.smoothed_log_p()
        if self.mix < 1:
            term, pixel_gradient = self.pixel_term(smoothed_log_p, class_factors)
            value = (1 - self.mix) * term
        if not self.wants_gradient and self.mix == 0:
            return value
        self.probability = self.log_p.exp_()
        if self.must_clear:
            self.clear_ignored(self.probability)
        if self.mix > 0:
            term, jaccard_gradient = self.jaccard_term()
            value = self.mix * term + (value if self.mix < 1 else 0)
        if self.wants_gradient:
            self.write_gradient(pixel_gradient, jaccard_gradient)
        return value

    def hits(self) -> Tensor:
        """Valid pixels of each class whose label is the argmax, (C,) float64; before `run`."""
        classes = self.labels.num_classes
        hit = predicted_right(self.scores, self.log_p, self._log_q, self.label, self.label_index)
        return sum_by_label(torch.where(hit, self.labels.apart, classes), classes + 1)[:-1]

    # --- pixel term -------------------------------------------------------------------------

    def smoothed_log_p(self) -> Tensor | None:
        """sum_c s_c log p_c, computed before log_p becomes the softmax; None if s is one-hot or
        unused."""
        if self.mix == 1:
            return None
        epsilon, soft = self.labels.epsilon, self.labels.soft
        sharp = None
        if soft is not None:
            parts = soft * self.log_p
            sharp = parts.sum(1)
            if not may_look(sharp) or math.isnan(float(sharp.sum())):
                sharp = parts.masked_fill_(soft == 0, 0).sum(1)  # 0 log 0, of a class masked out
            sharp = self.masked(sharp)
        if self.config.label_smoothing == 0:
            return sharp
        flat = self.masked(self.log_p.sum(1))
        sharp = self.log_q if sharp is None else sharp
        return (1 - epsilon) * sharp + epsilon / self.labels.num_classes * flat

    def pixel_term(
        self, smoothed_log_p: Tensor | None, class_factors: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        """Return the pooled term and its coefficients c1 (B, P) and c2 (B, P) or None."""
        ce = -(self.log_q if smoothed_log_p is None else smoothed_log_p)
        self.terms["cross_entropy"] = ce.sum() / self.num_valid
        gamma = self.config.focal_gamma
        factor = self.pixel_weights(class_factors)
        c2 = None
        if gamma > 0:
            miss = -torch.expm1(self.log_q)
            c2 = torch.where(miss > 0, gamma * miss ** (gamma - 1) * self.q * ce, 0)
            c2 = c2 if factor is None else c2 * factor
            factor = miss**gamma if factor is None else factor * miss**gamma
        losses = ce if factor is None else ce * factor
        pooling = self.pool(losses)
        c1 = pooling if factor is None else factor * pooling
        c2 = None if c2 is None else c2 * pooling
        is_mean = pooling.ndim == 0
        self.terms["pixel"] = losses.sum() * pooling if is_mean else (losses * pooling).sum()
        return self.terms["pixel"], (self.masked(c1.expand_as(ce)), c2)

    def pixel_weights(self, weights: Tensor | None) -> Tensor | None:
        """a[y] * (1 - R[y]) with the normaliser applied, 0 at ignored pixels; None if all
        weights are 1."""
        if weights is None:
            return None
        if self.config.normalizer == "weight":
            total = (self.support.sum(0) * weights).sum()
            weights = torch.where(total > 0, weights * self.num_valid / total, 0)
        self.terms[WEIGHTS] = weights
        per_pixel = weights.to(self.log_q.dtype).take(self.label)
        return self.masked(per_pixel)

    def pool(self, losses: Tensor) -> Tensor:
        """Weights of the pixels in the sum: (B, P), or 0-dim if they are equal."""
        pooling = self.config.pooling
        if isinstance(pooling, MaxPooling) and max_pools(pooling):
            weights, capped = max_pooling_weights(
                losses, self.labels.num_valid, pooling.p, pooling.ratio
            )
            self.terms["capped"] = capped.sum() / self.num_valid
            return weights
        if isinstance(pooling, Ohem) and mines(pooling):
            q = self.masked(self.q, torch.inf)
            order = self.log_q
            if not tells_apart(q, self.labels.num_valid, pooling.min_kept):
                order = margins(self.log_p, self._log_q, self.label)
            order = self.masked(order, torch.inf)
            kept = ohem_kept(order, q, self.labels.num_valid, pooling.threshold, pooling.min_kept)
            count = kept.sum()
            self.terms["kept"] = count / self.num_valid
            return kept.to(losses.dtype) / count.clamp(min=1)
        return self.num_valid.to(losses.dtype).reciprocal()

    # --- Jaccard term -----------------------------------------------------------------------

    def jaccard_target(self) -> Tensor | None:
        """The target t (B, C, P); None if it is the hard label."""
        if not self.jaccard_is_dense:
            return None
        soft, epsilon = self.labels.soft, self.labels.epsilon
        if self.config.jaccard.target == "hard" or self.config.label_smoothing == 0:
            return soft
        if isinstance(epsilon, Tensor):
            epsilon = epsilon[:, None]
        if soft is None:
            soft = torch.zeros_like(self.probability).scatter_(1, self.label[:, None], 1.0)
        target = soft * (1 - epsilon) + epsilon / self.labels.num_classes
        return target.masked_fill_(self.labels.ignored[:, None], 0)

    def jaccard_term(self) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Return the term and its derivative by p: dense (B, C, P), or for hard labels the pair
        (by |p|, by tp), (B, C) each, the second of which acts only at the label."""
        config, p = self.config.jaccard, self.probability
        target = self.jaccard_target()
        predicted = self.sum_over_valid(p)
        if target is None:
            hit = self.labels.sum_by_image(self.q).to(p.dtype)
            peak = labelled = self.support.to(p.dtype)
        else:
            hit, labelled = torch.minimum(p, target).sum(-1), target.sum(-1)
            soft = self.labels.soft
            peak = self.support.to(p.dtype) if soft is None else soft.amax(-1)
        active = active_classes(config, peak, self.labels.valid)
        self.overlap = Overlap(hit, predicted, labelled, active)
        term, by_hit, by_predicted = partial_derivatives(config, self.overlap)
        self.terms["jaccard"] = term
        if target is None:
            return term, (by_predicted, by_hit)
        by_p = (p - target).sign_().neg_().add_(1).mul_(0.5)
        return term, by_p.mul_(by_hit[..., None]).add_(by_predicted[..., None])

    def sum_over_valid(self, p: Tensor) -> Tensor:
        """Sum (B, C, P) over the valid pixels, (B, C); equal to the last bit, cleared or not."""
        if p.device.type != "cpu" or self.jaccard_is_dense or not self.labels.some_ignored:
            return p.sum(-1)
        sums = torch.zeros_like(p[..., 0])
        for image, valid, total in zip(p, self.labels.valid.to(p.dtype), sums, strict=True):
            for part, factor in zip(image.split(_BLOCK, 1), valid.split(_BLOCK), strict=True):
                total.add_(torch.mv(part, factor))
        return sums

    # --- gradient ---------------------------------------------------------------------------

    def write_gradient(
        self,
        pixel: tuple[Tensor, Tensor | None] | None,
        jaccard: Tensor | tuple[Tensor, Tensor] | None,
    ) -> None:
        """Turn `probability` into the gradient: p * (G + k) minus the terms at single classes."""
        p, labels = self.probability, self.labels
        k = at_label = torch.zeros((), dtype=p.dtype, device=p.device)  # per pixel
        dense = flat = None
        if pixel is not None:
            c1, c2 = pixel
            c1 = (1 - self.mix) * c1
            epsilon = labels.epsilon
            if labels.soft is None:
                k, at_label = c1, (epsilon - 1) * c1
            else:
                k = c1 * ((1 - epsilon) * labels.soft.sum(1) + epsilon)
                dense = ((epsilon - 1) * c1)[:, None] * labels.soft
            if self.config.label_smoothing > 0:
                flat = -epsilon / self.labels.num_classes * c1
            if c2 is not None:
                c2 = (1 - self.mix) * c2
                k, at_label = k + c2, at_label - c2
        if jaccard is None:
            p.mul_(k[:, None])
        elif isinstance(jaccard, tuple):
            by_predicted, by_hit = (self.mix * part for part in jaccard)
            hit = self.masked(by_hit.gather(1, self.label) * self.q)
            k = self.masked(k - torch.bmm(by_predicted[:, None], p)[:, 0] - hit)
            at_label = at_label + hit
            self.multiply_by_sum(p, by_predicted, k)
        else:
            by_p = jaccard.mul_(self.mix)
            k = k - (p * by_p).sum(1)
            p.mul_(by_p.add_(k[:, None]))
        if flat is not None:
            p.add_(flat[:, None])
        if dense is not None:
            p.add_(dense)
        at_label = at_label.expand_as(self.label).reshape(-1)
        p.view(-1).scatter_add_(0, self.label_index, at_label)

    def multiply_by_sum(self, p: Tensor, by_class: Tensor, by_pixel: Tensor) -> None:
        """p *= by_class + by_pixel, (B, C) and (B, P), in place; 0 at ignored pixels."""
        factor = torch.empty_like(p[0]) if len(p) else p
        weighs = self.labels.some_ignored and not self.must_clear
        valid = self.labels.valid.to(p.dtype) if weighs else None
        for b, image in enumerate(p):
            column = by_class[b][:, None]
            if valid is None:
                torch.add(column, by_pixel[b], out=factor)
            else:
                torch.addcmul(by_pixel[b], column, valid[b], out=factor)
            image.mul_(factor)


def predicted_right(
    scores: Tensor, log_p: Tensor, log_q: Tensor, label: Tensor, label_index: Tensor
) -> Tensor:
    """Where the label is the argmax of scores (B, C, P); of equal scores the lowest class wins.

    On a CPU a maximum is many times cheaper than an argmax: the label's log probability is removed
    from log_p temporarily and compared with the largest of the others. The scores are read only
    where the two are equal. A NaN is never right.
    """
    if scores.device.type != "cpu":
        return (scores.argmax(1) == label) & ~log_q.isnan()
    flat = log_p.view(-1)
    flat.index_fill_(0, label_index, -torch.inf)
    others = log_p.amax(1)
    flat.index_copy_(0, label_index, log_q.view(-1))
    hit = log_q > others
    image, pixel = (log_q == others).nonzero(as_tuple=True)
    if len(pixel):
        hit[image, pixel] = scores[image, :, pixel].argmax(1) == label[image, pixel]
    return hit
