"""The family of a loss: the names of its active axes."""

from __future__ import annotations

from study.core.names import CE
from study.losses.axis import Axis
from study.losses.config import AXES, FactoryLoss, LossConfig


def active(config: LossConfig) -> tuple[Axis, ...]:
    """The axes that are not neutral, in the order of the formula.

    An axis that is set but changes nothing is neutral: inverse frequency with exponent 0, loss
    max-pooling with p = inf or ratio = 1, OHEM that keeps all. The normaliser is not an axis.
    """
    return tuple(axis for axis in AXES.values() if axis.is_on(config))


def family(config: LossConfig | FactoryLoss) -> str:
    """Join the names of the active axes with "+"; "ce" if none. A loss of the user's own is the
    family "factory"."""
    if isinstance(config, FactoryLoss):
        return "factory"
    return "+".join(axis.name for axis in active(config)) or CE
