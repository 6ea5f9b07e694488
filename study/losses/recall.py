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
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn


class RecallState(nn.Module):
    """R (C,) float64 and the mask (C,) bool of the classes ever seen, as buffers."""

    value: Tensor
    seen: Tensor

    def __init__(self, ema_momentum: float, num_classes: int) -> None:
        super().__init__()
        self.ema_momentum = ema_momentum
        self.register_buffer("value", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def observe(self, hits: Tensor, support: Tensor) -> None:
        """Update R with one batch's true positives and target pixels, (C,) each.

        Under distributed training the counts of all ranks are summed before the division.
        """
        if distributed.is_available() and distributed.is_initialized():
            both = torch.stack([hits, support])
            distributed.all_reduce(both)
            hits, support = both
        present = support > 0
        batch = hits / support.clamp(min=1)
        mixed = torch.lerp(batch, self.value, self.ema_momentum)
        updated = torch.where(self.seen, mixed, batch)
        self.value.copy_(torch.where(present, updated, self.value))
        self.seen.logical_or_(present)

    def weights(self) -> Tensor:
        """1 - R, (C,) float64."""
        return 1 - self.value


def predicted_right(
    scores: Tensor, log_p: Tensor, log_q: Tensor, label: Tensor, label_index: Tensor
) -> Tensor:
    """Where the label is the argmax of scores (B, C, P); of equal scores the lowest class wins.

    On a CPU a maximum is many times cheaper than an argmax: the label's log probability is removed
    from log_p temporarily and compared with the largest of the others. The scores are read only
    where the two are equal.
    """
    if scores.device.type != "cpu":
        return scores.argmax(1) == label
    flat = log_p.view(-1)
    flat.index_fill_(0, label_index, -torch.inf)
    others = log_p.amax(1)
    flat.index_copy_(0, label_index, log_q.view(-1))
    hit = log_q > others
    image, pixel = (log_q == others).nonzero(as_tuple=True)
    if len(pixel):
        hit[image, pixel] = scores[image, :, pixel].argmax(1) == label[image, pixel]
    return hit
