"""The loss of a student as a module: that of the other axes, and its terms on soft labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from study.losses.config import LossConfig
from study.losses.digest import loss_digest
from study.losses.distillation import mean_entropy, softened
from study.losses.logit_adjustment import LogitAdjustment
from study.losses.looking import exactly, transforms_active
from study.losses.loss import Terms
from study.losses.module import SegmentationLoss
from study.losses.targets import compute_dtype, in_shape

NORM = "grad_norm/"


class DistilledLoss(SegmentationLoss):
    """A SegmentationLoss that is also called with a teacher's probabilities; `build_loss` makes one
    where `distillation` is set. See `study.losses.distillation`.

    State: that of the loss on the true labels.

    Examples:
        >>> import torch
        >>> from study.losses import build_loss
        >>> loss = build_loss({"distillation": {"mix": 0.5}}, num_classes=2)
        >>> logits, label = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
        >>> value = loss(logits, label, teacher=torch.full((1, 2, 4, 4), 0.5))
        >>> round(float(value), 4)  # log 2 / 2: the student agrees with the teacher
        0.3466
    """

    def __init__(self, config: LossConfig, *, num_classes: int, **given: Any) -> None:
        hard = config.model_copy(update={"distillation": None})
        super().__init__(hard, num_classes=num_classes, **given)
        self._whole = config
        assert config.distillation is not None
        self._mix, self._temperature = config.distillation.mix, config.distillation.temperature
        own, temperature = config.jaccard.mix, self._temperature

        def part(mix: float, tau: float) -> SegmentationLoss:
            jaccard = config.jaccard.model_copy(update={"mix": mix, "target": "hard"})
            adjustment = LogitAdjustment(tau=tau)
            alone = LossConfig(jaccard=jaccard, logit_adjustment=adjustment)
            made = SegmentationLoss(alone, num_classes=self._classes, **given)
            made._is_used = True  # the whole loss tells that it is used
            return made

        tau = config.logit_adjustment.tau
        self._at_t: SegmentationLoss | None = None
        self._at_1: SegmentationLoss | None = None
        if temperature == 1:  # both terms from one softmax
            self._at_t = part(own, tau)
        else:
            self._at_t = part(0.0, tau / temperature) if own < 1 else None
            self._at_1 = part(1.0, tau) if own > 0 else None

    @property
    def config(self) -> LossConfig:
        """The config, with the distillation."""
        return self._whole

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None = None,
        weight: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch, as `SegmentationLoss.forward` does.

        Args:
            logits: (B, C, H, W) float.
            target: (B, H, W) integers, or soft.
            keep: (B, H, W) bool, pixels that count; None keeps all.
            weight: (B, H, W) float, of each pixel's loss in the part on the true labels.
            teacher: (B, C, H, W) float, the teacher's probabilities, which sum to 1 over the
                classes of each pixel that counts; as a soft target is.

        Returns:
            The loss, a scalar tensor.

        Raises:
            ValueError: without a teacher's labels, and as `SegmentationLoss.forward`.
        """
        if teacher is None or not teacher.is_floating_point():
            got = "nothing" if teacher is None else str(teacher.dtype)
            raise ValueError(
                "a distilled loss needs the teacher's probabilities as floats: teacher=..., got "
                f"{got}"
            )
        self._tell(logits)
        for part in filter(None, (self._at_t, self._at_1)):
            part.measure_gradients = self.measure_gradients
        _, target, keep = in_shape(logits, target, keep, self._num_classes)
        hard = super().forward(logits, target, keep, weight) if self._mix < 1 else None
        scores, soft, _ = in_shape(logits, teacher, keep, self._num_classes)
        with exactly(logits):
            scores = scores.to(compute_dtype(logits))
            kept = self._kept(target, keep)
            found = self._mix * self._soft(scores, soft.detach().to(scores.dtype), kept)
        return found if hard is None else (1 - self._mix) * hard + found

    def _kept(self, target: Tensor, keep: Tensor | None) -> Tensor:
        of_pixels = target[:, 0] if target.is_floating_point() else target.long()
        kept = torch.ones_like(of_pixels, dtype=torch.bool)
        if not target.is_floating_point():
            for index in self._ignored:
                kept = kept & (of_pixels != index)
        return kept if keep is None else kept & keep

    def _soft(self, scores: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
        """(1 - j) * T^2 * KL + j * Jaccard."""
        own, temperature = self._whole.jaccard.mix, self._temperature
        value = scores.new_zeros(())
        if self._at_t is not None:
            labels = softened(teacher, temperature)
            entropy = mean_entropy(labels, keep)  # a part has cross entropy in place of KL
            found = self._at_t(scores / temperature, labels, keep)
            if temperature == 1:
                value = found - (1 - own) * entropy
            else:
                value = (1 - own) * temperature**2 * (found - entropy)
            if not transforms_active():
                self._entropy = entropy.detach()
        if self._at_1 is not None:
            value = value + own * self._at_1(scores, teacher, keep)
        return value

    @property
    def digest(self) -> str:
        """The digest of its config; see `loss_digest`."""
        return loss_digest(self._whole)

    def terms(self, class_names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """As `SegmentationLoss.terms`, and of the soft part:

        teacher_pixel, teacher_jaccard   T^2 KL, and the Jaccard term on the teacher's labels

        Norms of gradients are those of each term times its weight in the whole loss.
        """
        return super().terms(class_names)

    @property
    def step_terms(self) -> Terms:
        """As `terms()`, but with all weights in one (C,) tensor, for `named_terms`."""
        own, mix, temperature = self._whole.jaccard.mix, self._mix, self._temperature
        terms = {
            name: (1 - mix) * term if name.startswith(NORM) else term
            for name, term in self._terms.items()
        }
        of_pixel = mix if temperature == 1 else mix * (1 - own) * temperature  # T^2 / T
        of_jaccard = mix if temperature == 1 else mix * own
        for part in filter(None, (self._at_t, self._at_1)):
            found = part.step_terms
            if "pixel" in found:
                terms["teacher_pixel"] = temperature**2 * (found["pixel"] - self._entropy)
            if "jaccard" in found:
                terms["teacher_jaccard"] = found["jaccard"]
            for name, factor in (("pixel", of_pixel), ("jaccard", of_jaccard)):
                if NORM + name in found:
                    terms[f"{NORM}teacher_{name}"] = factor * found[NORM + name]
        return terms
