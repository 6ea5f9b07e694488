"""Value and gradient where labels are distributions: the kernel's way on a CPU, block by block.

For soft labels, and for a Jaccard term of smoothed labels, where no axis asks for a pixel's class.
Blocks of pixels stay in the cache for the dozen operations that each needs. With s the label of the
cross entropy, t that of the Jaccard term and G its derivative by p, the gradient by log p is

    g = -(1 - mix) / n * s + mix * p * G,     G_c = by_predicted_c + by_hit_c * (p_c < t_c)

(half of it at p = t), and that by the logits is g - p * sum_c g_c.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from study.losses.config import LossConfig
from study.losses.family import active
from study.losses.jaccard import Overlap, active_classes, partial_derivatives
from study.losses.looking import may_look
from study.losses.targets import Labels

KNOWN = {"label_smoothing", "boundary_smoothing", "jaccard", "logit_adjustment"}
_BLOCK = 1 << 18  # numbers in a block


def suits(config: LossConfig, scores: Tensor, labels: Labels) -> bool:
    """Whether `DenseStep` computes the loss of these labels."""
    smoothed = config.jaccard.target == "smoothed" and config.label_smoothing > 0
    dense = labels.soft is not None or (config.jaccard.mix > 0 and smoothed)
    names = {axis.name for axis in active(config)}
    return dense and names <= KNOWN and may_look(scores)


def at_label(per_class: Tensor, label: Tensor) -> Tensor:
    """The values of (B, C, P) at labels (B, P), (B, P)."""
    batch, classes, pixels = per_class.shape
    size, device = classes * pixels, label.device
    image = torch.arange(0, batch * size, size, device=device)[:, None]
    pixel = torch.arange(pixels, device=device)
    index = torch.add(pixel, label, alpha=pixels).add_(image).view(-1)
    return per_class.view(-1).index_select(0, index).view(batch, pixels)


class DenseStep:
    """One evaluation, as `kernel.Step`: `run` turns `probability` into the gradient."""

    def __init__(
        self, config: LossConfig, scores: Tensor, labels: Labels, wants_gradient: bool
    ) -> None:
        self.config, self.labels, self.wants_gradient = config, labels, wants_gradient
        if labels.some_ignored:
            scores = scores.masked_fill(labels.ignored[:, None], 0)
        self.probability = torch.log_softmax(scores, 1)  # until `run`: log p, then p
        if labels.hard is not None:
            self.log_q = at_label(self.probability, labels.hard)
        self.mix = config.jaccard.mix
        self.num_valid = max(1, int(labels.num_valid))
        self.smooths_target = config.jaccard.target == "smoothed" and config.label_smoothing > 0
        batch, classes, pixels = scores.shape
        size = max(512, _BLOCK // classes)
        self.blocks = [
            (image, slice(first, min(first + size, pixels)))
            for image in range(batch)
            for first in range(0, pixels, size)
        ]
        self.space = scores.new_empty(classes * size)

    def run(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The value and the terms."""
        terms: dict[str, Tensor] = {}
        entropy, overlap = self._sums()
        self.overlap = overlap
        value = self.probability.new_zeros((), dtype=torch.float64)
        if self.mix < 1:
            terms["cross_entropy"] = entropy / self.num_valid
            terms["pixel"] = terms["cross_entropy"]
            value = (1 - self.mix) * terms["pixel"]
        if overlap is not None:
            term, by_hit, by_predicted = partial_derivatives(self.config.jaccard, overlap)
            terms["jaccard"] = term
            value = value + self.mix * term
            if self.wants_gradient:
                self._write_gradient(by_hit, by_predicted)
        dtype = self.probability.dtype
        return value.to(dtype), {name: each.to(dtype) for name, each in terms.items()}

    def _blocks(self) -> Iterator[tuple[int, slice, Tensor, Tensor | None, Tensor]]:
        """Image, pixels, their log p or p (C, n), their soft label, and room for as many."""
        for image, pixels in self.blocks:
            part = self.probability[image, :, pixels]
            soft = self.labels.soft
            room = self.space[: part.numel()].view(part.shape)
            yield image, pixels, part, None if soft is None else soft[image, :, pixels], room

    @cached_property
    def _weight(self) -> Tensor | None:
        """1 at valid pixels, 0 at ignored ones, (B, P); None where none is ignored."""
        if not self.labels.some_ignored:
            return None
        return self.labels.valid.to(self.probability.dtype)

    @cached_property
    def _low(self) -> Tensor:
        """What smoothing gives each class: epsilon / C, (B, P); 0 at ignored pixels."""
        low = self.labels.epsilon / self.labels.num_classes
        if not isinstance(low, Tensor):
            low = torch.full_like(self.labels.valid, low, dtype=self.probability.dtype)
            low = low if self._weight is None else low * self._weight
        return low

    @cached_property
    def _high(self) -> Tensor:
        """What smoothing leaves the label: 1 - epsilon, (B, P); 0 at ignored pixels."""
        high = 1 - self.labels.num_classes * self._low
        return high if self._weight is None else high * self._weight

    def _soft_target(self, soft: Tensor, image: int, pixels: slice, room: Tensor) -> Tensor:
        """The label t of the Jaccard term, (C, n), of a soft label."""
        if not self.smooths_target:
            return soft
        return torch.mul(soft, self._high[image, pixels], out=room).add_(self._low[image, pixels])

    def _sums(self) -> tuple[Tensor, Overlap | None]:
        """The summed cross entropy, and the sums of the Jaccard term; turns log p into p where
        there is one."""
        labels, smooths = self.labels, self.config.label_smoothing > 0
        entropy = self.probability.new_zeros((), dtype=torch.float64)
        shape = (3, *self.probability.shape[:2])
        sums = self.probability.new_zeros(shape, dtype=torch.float64)
        hit, predicted, labelled = sums
        for image, pixels, part, soft, room in self._blocks():
            if soft is not None:
                labels.check(soft, labels.valid[image, pixels], 0)
            if self.mix < 1:
                if soft is not None:
                    losses = torch.mul(soft, part, out=room).sum(0)
                    if math.isnan(float(losses.sum())):
                        losses = room.masked_fill_(soft == 0, 0).sum(0)  # 0 log 0, see kernel
                else:
                    losses = self.log_q[image, pixels]
                if smooths:
                    losses = losses * self._high[image, pixels]
                    losses.addcmul_(part.sum(0), self._low[image, pixels])
                entropy -= losses.sum(dtype=torch.float64)
            if self.mix == 0:
                if self.wants_gradient and soft is not None:
                    self._write_gradient_of_cross_entropy(image, pixels, part, soft, room)
                continue
            part.exp_()
            if self._weight is not None:
                part.mul_(self._weight[image, pixels])
            predicted[image] += part.sum(1)
            if soft is None:
                torch.minimum(part, self._low[image, pixels], out=room)
            else:
                target = self._soft_target(soft, image, pixels, room)
                labelled[image] += target.sum(1)
                torch.minimum(part, target, out=room)
            hit[image] += room.sum(1)
        if self.mix == 0:
            return entropy, None
        if labels.soft is not None:
            peak = labels.soft.amax(-1)
        else:
            peak = labels.sum_by_image()
            hit += labels.sum_by_image(self._more_at_label)
            labelled += self._low.sum(1, dtype=torch.float64)[:, None]
            labelled += labels.sum_by_image(self._high)
        on = active_classes(self.config.jaccard, peak, labels.valid)
        return entropy, Overlap(hit, predicted, labelled, on)

    @property
    def _more_at_label(self) -> Tensor:
        """min(p, t) of the label beyond min(p, epsilon / C), (B, P)."""
        return torch.minimum(self._q, self._low + self._high) - torch.minimum(self._q, self._low)

    @cached_property
    def _q(self) -> Tensor:
        """The probability of the label, (B, P); 0 at ignored pixels."""
        q = self.log_q.exp()
        return q if self._weight is None else q * self._weight

    def _write_gradient_of_cross_entropy(
        self, image: int, pixels: slice, part: Tensor, soft: Tensor, room: Tensor
    ) -> None:
        """Turn log p of a block into the gradient, where there is no Jaccard term."""
        share = -1 / self.num_valid
        if self.config.label_smoothing > 0:
            torch.mul(soft, share * self._high[image, pixels], out=room)
            room.add_(share * self._low[image, pixels])
        else:
            torch.mul(soft, share, out=room)
        torch.addcmul(room, part.exp_(), room.sum(0), value=-1, out=part)

    def _gradient_at_label(self, half: Tensor, share: float) -> Tensor:
        """What the gradient by log p has at the label beyond that at other classes, (B, P)."""
        sides = [(low - self._q).sign_() for low in (self._low + self._high, self._low)]
        steps = (sides[0] - sides[1]).mul_(self._q)
        for image, label, by_class in zip(steps, self.labels.label, half[..., 0], strict=True):
            image.mul_(by_class.take(label))
        return steps - share * self._high

    def _write_gradient(self, by_hit: Tensor, by_predicted: Tensor) -> None:
        """Turn p into the gradient."""
        share = (1 - self.mix) / self.num_valid  # of a pixel's cross entropy in the loss
        smooths = self.mix < 1 and self.config.label_smoothing > 0
        half = (self.mix / 2 * by_hit).to(self.probability.dtype)[..., None]
        base = (self.mix * by_predicted).to(half.dtype)[..., None] + half
        hard = self.labels.hard
        more = None if hard is None else self._gradient_at_label(half, share)
        for image, pixels, part, soft, room in self._blocks():
            target = self._low[image, pixels]
            if soft is not None:
                target = self._soft_target(soft, image, pixels, room)
            torch.sub(target, part, out=room)
            room.sign_().mul_(half[image]).add_(base[image])
            if smooths:
                torch.addcmul(-share * self._low[image, pixels], room, part, out=room)
            else:
                room.mul_(part)
            if hard is not None and more is not None:
                room.scatter_add_(0, hard[image, pixels][None], more[image, pixels][None])
            elif smooths and soft is not None:
                room.addcmul_(soft, self._high[image, pixels], value=-share)
            elif self.mix < 1 and soft is not None:
                room.add_(soft, alpha=-share)
            torch.addcmul(room, part, room.sum(0), value=-1, out=part)
