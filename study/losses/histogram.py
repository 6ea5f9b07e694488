"""Sums per label, without a host synchronisation on an accelerator."""

from __future__ import annotations

import torch
from torch import Tensor


def sum_by_label(labels: Tensor, num_labels: int, values: Tensor | None = None) -> Tensor:
    """Count each label, or sum `values` (same shape) by label, in float64: (num_labels,).

    labels: int64, each in [0, num_labels); callers give ignored pixels an extra label.
    """
    flat = labels.reshape(-1)
    if flat.device.type == "cpu":
        weights = None if values is None else values.reshape(-1).double()
        return torch.bincount(flat, weights, minlength=num_labels).double()
    # On CUDA bincount copies its largest input to the host; a scatter does not.
    if values is None:
        counts = torch.zeros(num_labels, dtype=torch.int64, device=flat.device)
        return counts.scatter_add_(0, flat, torch.ones_like(flat)).double()
    sums = torch.zeros(num_labels, dtype=torch.float64, device=flat.device)
    return sums.scatter_add_(0, flat, values.reshape(-1).double())
