"""Which trials a study confirms with fresh seeds once its search is over.

It uses only the validation metrics of a trial's last epoch. The test metrics are kept for judging.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from study.analysis.rules import ARGMAX, TUNED, rules_of
from study.config.task import TrialOptimizer
from study.core.names import (
    BASELINE,
    CE,
    REFERENCE,
    SEARCH,
)
from study.ledger.records import SelectRecord
from study.ledger.state import State, Trial

MIOU_TOLERANCE = 0.005


def value(trial: Trial, key: str) -> float:
    """The metric at the trial's last epoch; NaN where it is missing."""
    return trial.last.get(key, math.nan)


def ranked(trials: Sequence[Trial], key: str) -> list[Trial]:
    """Best first by the last epoch's metric, earlier first on a tie; those without it left out."""
    rated = [trial for trial in trials if not math.isnan(value(trial, key))]
    return sorted(rated, key=lambda trial: (-value(trial, key), trial.number))


def without_seed(config: dict[str, Any]) -> str:
    """A config without its seed and task, as text to compare: equal for repeats of one config."""
    kept = {key: item for key, item in config.items() if key not in ("seed", "task")}
    return json.dumps(kept, sort_keys=True)


def keeps_miou(miou: float, reference_miou: float | None) -> bool:
    """Whether a config's val mIoU is at most half a point below tuned cross entropy's.

    Only such a config may be the best by mean accuracy: accuracy that costs mIoU does not count.
    Without a reference every config meets the condition.
    """
    return reference_miou is None or miou >= reference_miou - MIOU_TOLERANCE


def neutral_trials(state: State) -> list[Trial]:
    """The completed cross entropies, at whatever settings, confirmations left out."""
    return [t for t in state.completed(BASELINE, REFERENCE, SEARCH) if t.family == CE]


def is_tuned(state: State) -> bool:
    """Whether cross entropy was trained at settings of the optimiser other than the task's own."""
    own = TrialOptimizer().model_dump()
    return any(trial.config.get("optimizer", own) != own for trial in neutral_trials(state))


def best_neutral_trials(state: State) -> list[Trial]:
    """The completed cross entropies of different settings, best by val mIoU first, at the primary
    rule."""
    best = ranked(neutral_trials(state), rules_of(state)[0].val_miou)
    first = {without_seed(trial.config): trial for trial in reversed(best)}
    return [trial for trial in best if first[without_seed(trial.config)] is trial]


def reference_trial(state: State) -> Trial | None:
    """Tuned cross entropy before its confirmation: the best by val."""
    return next(iter(best_neutral_trials(state)), None)


def default_ce_trial(state: State) -> Trial | None:
    """Cross entropy at the task's own optimiser settings: the completed neutral baseline."""
    return next((t for t in state.completed(BASELINE) if t.family == CE), None)


def select(state: State, *, top: int) -> SelectRecord:
    """The trials to confirm: `top` of the completed ones, and the cross entropies: the two best by
    val, of which the confirmation chooses the reference, and the default one.

    Candidates are the completed baseline and search trials whose loss is not cross entropy. The
    objectives take turns: each takes its best candidate that is not taken yet. Objectives other
    than val mIoU choose among candidates that keep mIoU (`keeps_miou`) at the study's primary rule;
    where none is left, the turn goes to that mIoU. A config is confirmed once, however many trials
    had it.

    Fewer than `top` are chosen where there are fewer; `reference`, `runner_up` and `default_ce` are
    None where no such trial completed.
    """
    reference, runner_up = (*best_neutral_trials(state)[:2], None, None)[:2]
    default = default_ce_trial(state)
    rule = rules_of(state)[0]
    floor = value(reference, rule.val_miou) if reference else None
    plan = state.study.plan if state.study else {}
    objectives = list(plan.get("objectives", (rule.val_miou, rule.val_macc)))
    candidates = [t for t in state.completed(BASELINE, SEARCH) if t.family != CE]
    by_miou = ranked(candidates, rule.val_miou)
    lines = {
        key: [
            trial
            for trial in ranked(candidates, key)
            if key in (ARGMAX.val_miou, TUNED.val_miou)
            or keeps_miou(value(trial, rule.val_miou), floor)
        ]
        for key in objectives
    }
    chosen: list[Trial] = []
    seen: list[str] = []
    for turn in range(top):
        line = lines[objectives[turn % len(objectives)]]
        for trial in (*line, *by_miou):
            if without_seed(trial.config) not in seen:
                chosen.append(trial)
                seen.append(without_seed(trial.config))
                break
    return SelectRecord(
        confirmed=[trial.id for trial in chosen],
        reference=reference.id if reference else None,
        default_ce=default.id if default else None,
        runner_up=runner_up.id if runner_up else None,
        searched=len(state.of_stage(REFERENCE, SEARCH)),
    )
