"""Whether the losses may look at values, and what PyTorch is doing meanwhile."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

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


def savable(tensor: Tensor) -> Tensor:
    """The tensor; a copy of one that was made in inference mode, where autograd would refuse it."""
    if torch.is_inference_mode_enabled() or not tensor.is_inference():
        return tensor
    return tensor.clone()


def exactly(tensor: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of a tensor; some (meta) have none."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)
