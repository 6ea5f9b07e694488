"""Trials of different configs that report the same numbers to the last bit: trained alike?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from study.core.names import VAL, is_fraction
from study.ledger.state import State, Trial
from study.losses.config import FactoryLoss, LossConfig
from study.losses.digest import loss_digest

OF_PROBABILITIES = ("/nll", "/calibration_error")  # of the network's, not a training loss
MOST = 5  # pairs that are named
Numbers = tuple[tuple[str, float], ...]


def alike(state: State) -> list[str]:
    """Warn of pairs of trials with one seed and different configs whose val curves are equal, in a
    study whose training is the user's own."""
    if state.study is None or not state.study.has_own_training:
        return []
    found = list(_pairs(state))
    lines = [
        f"{one.id} ({one.label}) and {two.id} ({two.label}) report the same numbers to the last "
        f"bit at each of {epochs} epoch{'s' * (epochs > 1)}: does the training use what differs "
        "between them, the loss and the learning rate?"
        for one, two, epochs in found[:MOST]
    ]
    more = len(found) - MOST
    return [*lines, f"{more} more pairs of trials are equal like these"] if more > 0 else lines


def _pairs(state: State) -> Iterator[tuple[Trial, Trial, int]]:
    groups: dict[Any, list[Trial]] = {}
    for trial in state.trials.values():
        if trial.reports and (first := _on_val(trial.reports[min(trial.reports)])):
            groups.setdefault((trial.seed, trial.budget, first), []).append(trial)
    for group in groups.values():
        for one, two in itertools.combinations(group, 2):
            shared = one.reports.keys() & two.reports.keys()
            same = all(_on_val(one.reports[at]) == _on_val(two.reports[at]) for at in shared)
            if shared and same and _settings(one) != _settings(two):
                yield one, two, len(shared)


def _on_val(report: Mapping[str, float]) -> Numbers:
    """What the predictions are measured by; not a loss, which differs where it alone does."""
    on_val = [(k, v) for k, v in report.items() if k.startswith(f"{VAL}/")]
    measured = [one for one in on_val if is_fraction(one[0]) or one[0].endswith(OF_PROBABILITIES)]
    return tuple(sorted(measured or on_val))


def _settings(trial: Trial) -> tuple[str, float]:
    """What a trial is told beside its seed."""
    loss = trial.config["loss"]
    kind: type[FactoryLoss | LossConfig] = FactoryLoss if "factory" in loss else LossConfig
    return loss_digest(kind.model_validate(loss)), trial.config["optimizer"]["lr_scale"]
