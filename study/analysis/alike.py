"""Trials of different configs or seeds that report the same numbers to the last bit: alike?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from study.core.names import VAL, is_fraction
from study.ledger.state import State, Trial
from study.losses.config import FactoryLoss, LossConfig
from study.losses.digest import loss_digest

OF_PROBABILITIES = ("/nll", "/calibration_error")  # of the network's, not a training loss
MOST = 5  # pairs of a kind that are named
QUESTIONS = {  # of what differs: the config, the seed
    (True, False): "does the training use what differs between them, the loss and the learning "
    "rate?",
    (False, True): "does the training use the seed, which alone differs between them? If not, "
    "the intervals over seeds say nothing",
}
Numbers = tuple[tuple[str, float], ...]


def alike(state: State) -> list[str]:
    """Warn of pairs of trials whose val curves are equal, in a study whose training is the user's
    own: with one seed and different configs, and with one config and different seeds."""
    if state.study is None or not state.study.has_own_training:
        return []
    found = list(_pairs(state))
    lines = []
    for kind, question in QUESTIONS.items():
        pairs = [pair for pair in found if _differ(*pair[:2]) == kind]
        for one, two, epochs in pairs[:MOST]:
            lines.append(
                f"{one.id} ({one.label}) and {two.id} ({two.label}) report the same numbers to the "
                f"last bit at each of {epochs} epoch{'s' * (epochs > 1)}: {question}"
            )
        if (more := len(pairs) - MOST) > 0:
            lines.append(f"{more} more pairs of trials are equal like these")
    return lines


def _differ(one: Trial, two: Trial) -> tuple[bool, bool]:
    """Whether the configs differ, and the seeds."""
    return _settings(one) != _settings(two), one.seed != two.seed


def _pairs(state: State) -> Iterator[tuple[Trial, Trial, int]]:
    groups: dict[Any, list[Trial]] = {}
    for trial in state.trials.values():
        if trial.reports and (first := _on_val(trial.reports[min(trial.reports)])):
            groups.setdefault((trial.budget, first), []).append(trial)
    for group in groups.values():
        for one, two in itertools.combinations(group, 2):
            shared = one.reports.keys() & two.reports.keys()
            same = all(_on_val(one.reports[at]) == _on_val(two.reports[at]) for at in shared)
            if shared and same and _differ(one, two) in QUESTIONS:
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
