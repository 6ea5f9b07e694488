"""The loss as one opaque operator for `torch.compile`, without a graph break.

The CPU fast paths of the loss look at values, which no compiler can trace. So a compiled step calls
this operator, whose body runs as in eager mode and returns the gradient together with the value; to
the compiler it is one node with known shapes.

An operator's arguments are tensors and numbers, so a number identifies the loss. The number is an
attribute of the loss, so a step is compiled anew for another loss.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Evaluated(Protocol):
    """A loss that `register` accepts: returns its value and, if wanted, its gradient by the
    logits."""

    def evaluate(
        self,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None,
        teacher: Tensor | None,
        wants_gradient: bool,
    ) -> tuple[Tensor, Tensor | None]: ...


_numbers = itertools.count()
_losses: WeakValueDictionary[int, Evaluated] = WeakValueDictionary()


def register(loss: Evaluated) -> int:
    """Return a number for `opaque_loss`, valid for the lifetime of the loss."""
    number = next(_numbers)
    _losses[number] = loss
    return number


def opaque_loss(
    number: int, logits: Tensor, target: Tensor, keep: Tensor | None, teacher: Tensor | None
) -> Tensor:
    """The value of the loss with that number, differentiable by logits (B, C, H, W)."""
    wants_gradient = torch.is_grad_enabled() and logits.requires_grad
    value, _ = _evaluate(logits, target, keep, teacher, number, wants_gradient)
    return value


@torch.library.custom_op("study::segmentation_loss", mutates_args=())
def _evaluate(
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    teacher: Tensor | None,
    number: int,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """Return the value and its gradient by the logits; an empty tensor if it is not wanted."""
    value, gradient = _losses[number].evaluate(logits, target, keep, teacher, wants_gradient)
    if gradient is None or not wants_gradient:
        gradient = logits.new_empty(0)
    return value, gradient


@_evaluate.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    teacher: Tensor | None,
    number: int,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor]:
    gradient = logits if wants_gradient else logits.new_empty(0)
    return logits.new_empty(()), torch.empty_like(gradient, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return gradient * upstream, None, None, None, None, None


_evaluate.register_autograd(_backward, setup_context=_setup_context)
