"""The loss of a network with auxiliary heads, which are trained and then left out.

    L = (1 - j) * ((1 - w) * pixel(main) + w * mean_k pixel(aux_k)) + j * Jaccard(main)

with j the mix of the Jaccard term and w in [0, 1) the weight of the auxiliary heads: the overlap is
asked of the main head alone. Each head has a loss object of its own, so that the recall of one is
not mixed with that of another. Distilled, the main head learns from the teacher (its T^2 KL weighs
(1 - j) * (1 - w), too), the auxiliary heads from the true labels. A loss of the user's own is
(1 - w) * L(main) + w * mean_k L(aux_k).

Neutral: a network without auxiliary heads; at w = 0 the heads do not learn.

Source: Wang, Ning, Blaschko, NeurIPS 2023, arXiv 2302.05666, whose code takes j = 0.75 and w = 0.5:
0.125 and 0.125 of cross entropy beside 0.75 of the Jaccard term.

Differs: mmsegmentation adds 0.4 of the auxiliary loss to the whole main one, w = 0.29 here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from study.losses.config import FactoryLoss, LossConfig
from study.losses.loss import Terms
from study.losses.module import SegmentationLoss
from study.losses.own import OwnLoss

AnyModule = SegmentationLoss | OwnLoss
NORM = "grad_norm/"


class HeadsLoss(nn.Module):
    """The loss of the outputs of a network: (main, aux_1, ..., aux_K), each logits (B, C, H, W).

    Args:
        config: of the whole loss.
        build: makes a loss object from a config.
        num_aux: K, at least 1.
        weight: w in [0, 1).

    Examples:
        >>> import torch
        >>> from study.losses import LossConfig, build_loss
        >>> from study.losses.heads import HeadsLoss
        >>> loss = HeadsLoss(LossConfig(), lambda config: build_loss(config, num_classes=2), 1, 0.5)
        >>> main, aux = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
        >>> value = loss((main, aux), torch.zeros(1, 4, 4, dtype=torch.int64))
        >>> round(float(value), 4)  # log 2
        0.6931
    """

    def __init__(
        self,
        config: LossConfig | FactoryLoss,
        build: Callable[[LossConfig | FactoryLoss], AnyModule],
        num_aux: int,
        weight: float,
    ) -> None:
        super().__init__()
        self.config = config
        of_main = of_aux = config
        self._of_aux, self._of_main = weight, 1 - weight
        if isinstance(config, LossConfig):
            jaccard = config.jaccard
            self._of_aux = (1 - jaccard.mix) * weight
            self._of_main = 1 - self._of_aux
            mix = jaccard.mix / self._of_main
            of_main = config.model_copy(update={"jaccard": jaccard.model_copy(update={"mix": mix})})
            alone = jaccard.model_copy(update={"mix": 0.0})
            of_aux = config.model_copy(update={"jaccard": alone, "distillation": None})
        self.main = build(of_main)
        num = num_aux if self._of_aux > 0 else 0
        self.aux = nn.ModuleList([build(of_aux) for _ in range(num)])
        self.measure_gradients = False
        self._aux_value: Tensor | None = None

    def forward(
        self, outputs: tuple[Tensor, ...] | Tensor, target: Tensor, **teacher: Tensor
    ) -> Tensor:
        """The loss of a batch, a scalar; as each head's loss object takes it.

        Raises:
            ValueError: for another number of outputs.
        """
        if isinstance(outputs, Tensor) or len(outputs) < 1 + len(self.aux):
            got = 1 if isinstance(outputs, Tensor) else len(outputs)
            raise ValueError(f"{1 + len(self.aux)} outputs are expected, got {got}")
        self.main.measure_gradients = self.measure_gradients
        value = self._of_main * self.main(outputs[0], target, **teacher)
        if len(self.aux):
            each = [loss(out, target) for loss, out in zip(self.aux, outputs[1:], strict=True)]
            mean = torch.stack(each).mean()
            self._aux_value = mean.detach()
            value = value + self._of_aux * mean
        return value

    @property
    def step_terms(self) -> Terms:
        """The terms of the main head, with norms of gradients as in the whole loss; and `aux`, the
        mean of the auxiliary heads."""
        found = {
            name: self._of_main * term if name.startswith(NORM) else term
            for name, term in self.main.step_terms.items()
        }
        if self._aux_value is not None:
            found["aux"] = self._aux_value
        return found
