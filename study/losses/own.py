"""A loss of the user's own, named by a factory, in place of the axes of `SegmentationLoss`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from study.core.errors import InputError
from study.core.factories import faults_named, load_factory
from study.losses import build_loss
from study.losses.config import FactoryLoss, LossConfig
from study.losses.digest import echo, loss_digest
from study.losses.module import SegmentationLoss
from study.losses.targets import compute_dtype, refuse_probabilities

KEY = "factory"


class OwnLoss(nn.Module):
    """What a factory returns, as a loss that trains beside those of this package.

    Args:
        function: called with logits (B, C, H, W), float32 or float64 even under autocast, and a
            target (B, H, W) int64 with `ignore_index` where a pixel does not count; returns a
            scalar. A module's buffers are kept in checkpoints.
        config: the factory that made it.
    """

    def __init__(self, function: Any, config: FactoryLoss) -> None:
        super().__init__()
        self.function = function
        self.config = config
        self._is_used = False
        self.measure_gradients = False
        self.step_terms: dict[str, Tensor] = {}

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch. Raises InputError where it is no scalar tensor, or has no gradient
        where the logits have one."""
        if not self._is_used:
            self._is_used = True
            echo(self.digest)
            refuse_probabilities(logits, "the loss")
        with torch.autocast(logits.device.type, enabled=False):
            value = self.function(logits.to(compute_dtype(logits)), target)
        trains = logits.requires_grad and torch.is_grad_enabled()
        if not isinstance(value, Tensor) or value.dim() or (trains and not value.requires_grad):
            got = (
                f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            )
            raise InputError(
                f"{self.config.factory} must give a scalar tensor with a gradient, got {got}",
                key=KEY,
            )
        return value

    @property
    def digest(self) -> str:
        """The digest of its factory and kwargs; see `loss_digest`."""
        return loss_digest(self.config)


def own_loss(
    config: FactoryLoss, *, num_classes: int, class_counts: Any, ignore_index: int
) -> OwnLoss:
    """The loss that a factory makes. Another one that it makes is tried on a small batch before, so
    that this one has seen none.

    The factory is called with those of num_classes, class_counts (images, C) and ignore_index that
    its signature names, and with the config's kwargs.

    Raises:
        InputError: where the factory is not found or fails, where what it makes is no loss, or has
            parameters that would have to be trained.
    """
    factory = load_factory(config.factory, key=KEY)
    offered = {
        "num_classes": num_classes,
        "class_counts": class_counts,
        "ignore_index": ignore_index,
    }
    kwargs = {**_accepted(factory, offered), **config.kwargs}

    def make() -> Any:
        with faults_named(f"{config.factory}({', '.join(kwargs)})", key=KEY):
            return factory(**kwargs)

    made = make()
    if not callable(made):
        message = f"{config.factory} must return a loss, got {type(made).__name__}"
        raise InputError(message, key=KEY)
    if isinstance(made, nn.Module) and any(p.requires_grad for p in made.parameters()):
        message = f"{config.factory} has parameters of its own, which nothing would train"
        raise InputError(message, hint="register them as buffers", key=KEY)
    logits = torch.zeros(2, num_classes, 8, 8, requires_grad=True)
    target = torch.arange(2 * 8 * 8).reshape(2, 8, 8) % num_classes
    target[:, 0] = ignore_index
    with faults_named(f"{config.factory}: the loss of a small batch", key=KEY):
        trial = OwnLoss(made, config)
        trial._is_used = True  # nobody is to hear of a try
        trial(logits, target).backward()
    return OwnLoss(make(), config)


def build_any_loss(
    config: LossConfig | FactoryLoss, *, num_classes: int, class_counts: Any, ignore_index: int
) -> SegmentationLoss | OwnLoss:
    """Build a loss of this package or of the user's.

    Raises:
        InputError: below the key `loss`, where classes or counts do not fit it, or a factory of
            the user's fails.
    """
    given = {
        "num_classes": num_classes,
        "class_counts": class_counts,
        "ignore_index": ignore_index,
    }
    try:
        return (
            own_loss(config, **given)
            if isinstance(config, FactoryLoss)
            else build_loss(config, **given)
        )
    except InputError as error:
        raise error.below("loss") from error
    except ValueError as error:
        raise InputError(str(error), key="loss") from error


def _accepted(factory: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that the factory's signature names, or all by **kwargs."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some builtins have none
        return {}
    if any(one.kind == one.VAR_KEYWORD for one in parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in parameters}
