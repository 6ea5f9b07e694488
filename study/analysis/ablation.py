"""Ablation: which parts of the best loss earn their place, by training it without each

An axis is a part of a config that is not neutral: a name of its loss's family, or `lr_scale` where
the learning rate is not the task's own. Each is switched off by itself, all else equal, on the
seeds of the confirmation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from study.analysis.longer import paired
from study.analysis.rules import Rule
from study.analysis.selection import value
from study.analysis.statistics import Comparison, mean
from study.config.task import TrialOptimizer
from study.core.names import CE
from study.ledger.state import Trial
from study.losses import family
from study.losses.config import AXES, AnyLoss, FactoryLoss, Jaccard, LossConfig

LR_SCALE = "lr_scale"
NEUTRAL: Mapping[str, Mapping[str, Any]] = {name: axis.off for name, axis in AXES.items()}
"""For each name in a family: the field that makes it active, and its neutral value."""
_LOSS: TypeAdapter[LossConfig | FactoryLoss] = TypeAdapter(AnyLoss)


def loss_axes(loss: LossConfig | FactoryLoss) -> tuple[str, ...]:
    """The axes of a loss, in the order of the formula; none of a loss of the user's own."""
    name = family(loss)
    return () if isinstance(loss, FactoryLoss) or name == CE else tuple(name.split("+"))


def axes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The axes of a trial's config, the learning rate last."""
    loss, optimizer = _parts(config)
    tuned = optimizer != TrialOptimizer()
    return (*loss_axes(loss), *([LR_SCALE] if tuned else []))


def without(
    config: Mapping[str, Any], axis: str
) -> tuple[LossConfig | FactoryLoss, TrialOptimizer]:
    """Loss and optimiser of a trial's config with one of its axes switched off."""
    loss, optimizer = _parts(config)
    if axis == LR_SCALE:
        return loss, TrialOptimizer()
    return loss.model_copy(update=dict(NEUTRAL[axis])), optimizer


def most_axes(losses: Sequence[LossConfig | FactoryLoss]) -> int:
    """Most axes that a loss has whose every part is as in one of these."""
    plain = [
        loss if isinstance(loss, FactoryLoss) else loss.model_copy(update={"jaccard": Jaccard()})
        for loss in losses  # whose pixel term has no weight at mix 1
    ]
    return len({key for loss in (*losses, *plain) for a in loss_axes(loss) for key in NEUTRAL[a]})


def _parts(config: Mapping[str, Any]) -> tuple[LossConfig | FactoryLoss, TrialOptimizer]:
    optimizer = TrialOptimizer.model_validate(config.get("optimizer", {}))
    return _LOSS.validate_python(config.get("loss", {})), optimizer


def in_words(axis: str) -> str:
    """The name of an axis for people."""
    return "tuned learning rate" if axis == LR_SCALE else axis.replace("_", " ")


@dataclass(frozen=True)
class Effect:
    """A test metric without an axis, and what the axis adds to it: the differences of equal seeds;
    None where no seed is in both."""

    mean: float
    gain: Comparison | None

    @property
    def verdict(self) -> str:
        """In words; empty without an interval."""
        if self.gain is None or self.gain.interval is None:
            return ""
        if self.gain.interval.low > 0:
            return "earns its place"
        return "does harm" if self.gain.interval.high < 0 else "not told apart from none"


@dataclass(frozen=True)
class Ablated:
    """The best loss without one axis, over `seeds` seeds."""

    axis: str
    seeds: int
    miou: Effect
    macc: Effect


def axis_effect(axis: str, winner: Sequence[Trial], trials: Sequence[Trial], rule: Rule) -> Ablated:
    """What an axis adds.

    Args:
        axis: that is switched off in `trials`.
        winner: the judged confirmations of the best loss.
        trials: those of the best loss without the axis; at least one.
        rule: at which both are judged.
    """

    def effect(key: str) -> Effect:
        whole = {trial.seed: value(trial, key) for trial in winner}
        parts = {trial.seed: value(trial, key) for trial in trials}
        gains = [whole[seed] - parts[seed] for seed in parts if seed in whole]
        return Effect(mean(list(parts.values())), paired(gains))

    return Ablated(in_words(axis), len(trials), effect(rule.test_miou), effect(rule.test_macc))
