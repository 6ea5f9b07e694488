"""Whether the losses may look at values, and what PyTorch is doing meanwhile."""

from __future__ import annotations

import torch
from torch import Tensor


def may_look(tensor: Tensor) -> bool:
    """Whether reading a value is possible and makes nobody wait for an accelerator."""
    return tensor.device.type == "cpu" and not transforms_active()


def transforms_active() -> bool:
    """Whether a transform of `torch.func` (grad, vmap, hessian, ...) calls this."""
    return bool(torch._C._are_functorch_transforms_active())  # no public name says it


def inside_backward() -> bool:
    """Whether autograd calls this, as where gradient checkpointing computes a forward anew."""
    return bool(torch._C._current_graph_task_id() != -1)  # as torch.utils.checkpoint asks


def has_tangent(tensor: Tensor) -> bool:
    """Whether it is dual, for a derivative in forward mode."""
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None
