"""The loss as an opaque operator for `torch.compile`, without a graph break.

The CPU fast paths of the loss look at values, which no compiler can trace. So a compiled step calls
an operator, whose body runs as in eager mode and returns the gradient together with the value; to
the compiler it is one node with known shapes. The recall that it updates is an argument that it
changes, so that no call is merged with another, left out or moved.

An operator's arguments are tensors and numbers, so a number identifies the loss. The number is an
attribute of the loss, so a step is compiled anew for another loss.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from study.losses.recall_state import RecallState


class Evaluated(Protocol):
    """A loss that `register` accepts: returns its value and, if wanted, its gradient by the
    logits."""

    recall: RecallState | None

    def evaluate(
        self,
        logits: Tensor,
        target: Tensor,
        keep: Tensor | None,
        *,
        wants_gradient: bool,
        trains: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]: ...


_numbers = itertools.count()
_losses: WeakValueDictionary[int, Evaluated] = WeakValueDictionary()


def register(loss: Evaluated) -> int:
    """Return a number for `opaque_loss`, valid for the lifetime of the loss."""
    number = next(_numbers)
    _losses[number] = loss
    return number


def opaque_loss(
    number: int,
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    recall: RecallState | None,
    *,
    trains: bool,
) -> Tensor:
    """The value of the loss with that number, differentiable once by logits (B, C, ...).
    trains: False leaves recall as it is."""
    wants_gradient = torch.is_grad_enabled() and logits.requires_grad
    given = (logits.detach(), target.detach(), keep, number, wants_gradient)
    if recall is None or not trains:
        value, gradient = _evaluate(*given)
    else:
        value, gradient = _observe(*given, recall.value, recall.seen)
    return _attached(logits, value, gradient) if wants_gradient else value


def _found(
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    number: int,
    wants_gradient: bool,
    *,
    trains: bool,
) -> tuple[Tensor, Tensor]:
    """The value and its gradient by the logits; an empty tensor if it is not wanted."""
    value, gradient, _ = _losses[number].evaluate(
        logits, target, keep, wants_gradient=wants_gradient, trains=trains
    )
    if gradient is None or not wants_gradient:
        gradient = logits.new_empty(0)
    return value, gradient


def _shapes(logits: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor]:
    gradient = logits if wants_gradient else logits.new_empty(0)
    return logits.new_empty(()), torch.empty_like(gradient, memory_format=torch.contiguous_format)


# Written out, because torch 2.4 infers no schema from annotations that are strings.
STEP = "Tensor logits, Tensor target, Tensor? keep, int number, bool wants_gradient"


@torch.library.custom_op(
    "study::segmentation_loss", mutates_args=(), schema=f"({STEP}) -> (Tensor, Tensor)"
)
def _evaluate(
    logits: Tensor, target: Tensor, keep: Tensor | None, number: int, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    return _found(logits, target, keep, number, wants_gradient, trains=False)


@_evaluate.register_fake
def _(
    logits: Tensor, target: Tensor, keep: Tensor | None, number: int, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    return _shapes(logits, wants_gradient)


@torch.library.custom_op(
    "study::segmentation_loss_with_recall",
    mutates_args=("recall", "seen"),
    schema=f"({STEP}, Tensor(a!) recall, Tensor(b!) seen) -> (Tensor, Tensor)",
)
def _observe(
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    number: int,
    wants_gradient: bool,
    recall: Tensor,
    seen: Tensor,
) -> tuple[Tensor, Tensor]:
    state = _losses[number].recall
    assert state is not None
    # The compiler may hand over copies of the state.
    state.value.copy_(recall)
    state.seen.copy_(seen)
    found = _found(logits, target, keep, number, wants_gradient, trains=True)
    recall.copy_(state.value)
    seen.copy_(state.seen)
    return found


@_observe.register_fake
def _(
    logits: Tensor,
    target: Tensor,
    keep: Tensor | None,
    number: int,
    wants_gradient: bool,
    recall: Tensor,
    seen: Tensor,
) -> tuple[Tensor, Tensor]:
    return _shapes(logits, wants_gradient)


@torch.library.custom_op(
    "study::segmentation_loss_attached",
    mutates_args=(),
    schema="(Tensor logits, Tensor value, Tensor gradient) -> Tensor",
)
def _attached(logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """The value, with its gradient by the logits."""
    return value.clone()


@_attached.register_fake
def _(logits: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    return value.new_empty(())


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


@once_differentiable
def _backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
    (gradient,) = ctx.saved_tensors
    return gradient * upstream, None, None


_attached.register_autograd(_backward, setup_context=_setup_context)
