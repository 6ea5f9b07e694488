"""The neutral loss, plain cross entropy, computed by torch's own kernels.

With small batches each tensor operation costs more than its arithmetic, and the kernels behind
torch's cross entropy need the fewest operations. They are called one by one, to get the number of
valid pixels and a gradient that is 0 at ignored pixels whatever their logits are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_PIXELS = 1 << 24  # the kernel counts them in float32
_SUM = 2  # reduction="sum"


def suits(scores: Tensor, target: Tensor) -> bool:
    """Whether the labels are hard, on a CPU (other kernels are not deterministic) and few
    enough."""
    return (
        scores.device.type == "cpu"
        and not target.is_floating_point()
        and target.numel() <= MOST_PIXELS
    )


def cross_entropy(
    scores: Tensor, target: Tensor, ignore_index: int, wants_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """The mean over valid pixels of -log softmax(scores)[target], 0 without any, and its gradient.

    scores: (B, C, H, W) float32 or float64, target: (B, H, W) int64. Raises IndexError for a label
    outside [0, C) that is not `ignore_index`.
    """
    log_p = torch.log_softmax(scores, 1)
    total, valid = torch.ops.aten.nll_loss2d_forward(log_p, target, None, _SUM, ignore_index)
    num_valid = int(valid)
    value = total / max(1, num_valid)
    if not wants_gradient:
        return value, None
    upstream = torch.full_like(total, 1 / max(1, num_valid))
    gradient = torch.ops.aten.nll_loss2d_backward(
        upstream, log_p, target, None, _SUM, ignore_index, valid
    )
    gradient = torch._log_softmax_backward_data(gradient, log_p, 1, log_p.dtype)
    # A pixel's log_p is NaN for all classes or for none, so testing one class is enough.
    if num_valid < target.numel() and math.isnan(float(log_p[:, 0].sum())):
        gradient.masked_fill_((target == ignore_index)[:, None], 0)
    return value, gradient
