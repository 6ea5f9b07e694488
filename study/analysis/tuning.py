"""How cross entropy was tuned: what was tried, and whether its best is known from both sides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study.analysis.rules import rules_of
from study.analysis.selection import value
from study.config.task import TrialOptimizer
from study.core.names import BASELINE, CE, COMPLETED, REFERENCE, SEARCH
from study.ledger.state import State, Trial
from study.space.axis import axis_of
from study.space.grammar import Leaf, searched
from study.space.search_space import load_space

OPTIMIZER, LR_SCALE = "optimizer", "optimizer/lr_scale"
INSIDE, RANGE_EDGE, TRIED_EDGE = "inside", "edge of the range", "edge of what was tried"


@dataclass(frozen=True)
class Tried:
    """Settings of the optimiser at which cross entropy is trained, by path.

    value: val mIoU at the last epoch (at the tuned rule where all report it); None while it is
    being trained, -inf where it failed or was stopped.
    """

    settings: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True)
class Tuning:
    """What was tried, in ascending order of settings; `planned`: how many settings.

    best: INSIDE what was tried; on the range's own edge; or on the edge of what was tried, which
    leaves open what lies beyond. None where nothing has a value.
    """

    tried: tuple[Tried, ...]
    planned: int
    best: str | None

    @property
    def completed(self) -> int:
        """How many of the settings have a value."""
        return sum(one.value is not None and math.isfinite(one.value) for one in self.tried)


def tried(state: State) -> list[Tried]:
    """Every cross entropy that was started, confirmations left out, in the order of starting."""
    key = rules_of(state)[0].val_miou
    neutral = [t for t in state.of_stage(BASELINE, REFERENCE, SEARCH) if t.family == CE]
    return [Tried(_settings(trial), _value(trial, key)) for trial in neutral]


def tuning(state: State) -> Tuning | None:
    """How cross entropy was tuned so far; None where no plan asks for it."""
    plan = state.study.plan if state.study else {}
    if state.study is None or not plan.get("reference_trials"):
        return None
    found = tried(state)
    planned = plan["reference_trials"] + (CE in plan.get("baselines", ()))
    nodes = searched(load_space(state.study.space).reference.tree)
    leaves = [node for node in nodes if isinstance(node, Leaf)]
    best = _where_best_lies(leaves, found)
    return Tuning(tuple(sorted(found, key=_order)), max(planned, len(found)), best)


def _where_best_lies(leaves: Sequence[Leaf], found: Sequence[Tried]) -> str | None:
    rated = [one for one in found if one.value is not None and math.isfinite(one.value)]
    if not rated:
        return None
    best = max(rated, key=lambda one: one.value or 0.0)
    lies = INSIDE
    for axis in filter(None, map(axis_of, leaves)):
        path = axis.leaf.path
        places = [axis.position(one.settings[path]) for one in found if path in one.settings]
        if path in best.settings and axis.low < axis.high:
            place = axis.position(best.settings[path])
            if place in (min(places), max(places)):
                if 0 < place < 1:
                    return TRIED_EDGE
                lies = RANGE_EDGE
    return lies


def _settings(trial: Trial) -> dict[str, Any]:
    """The optimiser's settings of a trial, and the options that it took among them, by path."""
    config = trial.config.get(OPTIMIZER) or TrialOptimizer().model_dump()
    named = {
        path: item for path, item in (trial.params or {}).items() if path.startswith(OPTIMIZER)
    }
    return {**named, **{f"{OPTIMIZER}/{key}": item for key, item in config.items()}}


def _value(trial: Trial, key: str) -> float | None:
    if trial.end is None:
        return None
    number = value(trial, key)
    return number if trial.status == COMPLETED and math.isfinite(number) else -math.inf


def _order(one: Tried) -> list[tuple[str, float, str]]:
    return [
        (path, item if isinstance(item, (int, float)) else math.inf, str(item))
        for path, item in sorted(one.settings.items())
    ]
