"""The running recall of a loss as buffers, and who may update them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, distributed, nn

from study.losses.recall import updated_recall


class RecallState(nn.Module):
    """R (C,) and the classes ever seen (C,), 1 or 0, as float64 buffers: an average of models
    (`AveragedModel(use_buffers=True)`) averages both."""

    value: Tensor
    seen: Tensor

    def __init__(self, ema_momentum: float, num_classes: int) -> None:
        super().__init__()
        self.ema_momentum = ema_momentum
        self.register_buffer("value", torch.zeros(num_classes, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, hits: Tensor, support: Tensor) -> None:
        """Update R with one batch's true positives and target pixels, (C,) each.

        Under distributed training the counts of all ranks are summed before the division.
        """
        if distributed.is_available() and distributed.is_initialized():
            both = torch.stack([hits, support])
            distributed.all_reduce(both)
            hits, support = both
        value, seen = updated_recall(self.value, self.seen, hits, support, self.ema_momentum)
        self.value.copy_(value)
        self.seen.copy_(seen)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load numbers of any dtype as float64, with `assign=True` too."""
        mine = {prefix + name for name, _ in self.named_buffers()}
        state_dict = {
            key: value.double() if key in mine and isinstance(value, Tensor) else value
            for key, value in state_dict.items()
        }
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if forgets(fn):
            self.value.zero_()
            self.seen.zero_()
        return self

    def mean(self) -> Tensor:
        """The mean R of the classes seen; 0 if none was."""
        return (self.value.sum() / (self.seen > 0).sum().clamp(min=1)).detach()

    def weights(self) -> Tensor:
        """1 - R, (C,) float64."""
        return 1 - self.value


def forgets(fn: Callable[[Tensor], Tensor]) -> bool:
    """Whether what a module applies to its state leaves memory without numbers, as `to_empty` does:
    it alone makes a tensor of one that has no data."""
    try:
        return not fn(torch.empty((), dtype=torch.float64, device="meta")).is_meta
    except RuntimeError:
        return False


class ObserveUnderTransforms(torch.autograd.Function):
    """`RecallState.observe` in a function that `torch.func` transforms, where tensors are wrapped.

    Under `vmap` the counts of all samples are summed, as are those of the ranks of distributed
    training.
    """

    @staticmethod
    def forward(hits: Tensor, support: Tensor, state: RecallState) -> Tensor:
        state.observe(hits, support)
        return state.value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, None]:
        *counts, state = inputs
        pooled = [
            each * info.batch_size if dim is None else each.sum(dim)
            for each, dim in zip(counts, in_dims, strict=False)
        ]
        return ObserveUnderTransforms.apply(*pooled, state), None

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> None:
        return None
