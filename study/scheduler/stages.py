"""The stages of a study, and its next action: a pure function of its plan and its ledger's state.

A study works in this order:

1. trials that an earlier session left unfinished;
2. the baselines;
3. the searched trials, with those that tune cross entropy (the reference) spread evenly among them;
4. the selection, once no trial of the search is live;
5. the confirmation of the selected configs, seed by seed.

Default cross entropy is confirmed in any case, so its seeds fill the slots that would wait for the
last searched trials. If a budget has ended the search, a session with a larger budget continues it
and then makes a new selection. If the machine loses a confirmation, it is tried again after the
others, because the interval needs its seed.

If the budget is too small, these are skipped in turn: searched trials, then baselines (except the
first), then the last seeds of the confirmation. A session that skips seeds or unfinished trials
stops, and the study is not done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from study.analysis.selection import default_ce_trial
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH
from study.ledger.plan import Plan
from study.ledger.records import SelectRecord
from study.ledger.state import State

CONFIRM_TRIES = 3


@dataclass(frozen=True)
class Resume:
    """Continue a trial that an earlier session left unfinished."""

    trial: str


@dataclass(frozen=True)
class RunBaseline:
    """Train a preset at the task's own settings."""

    name: str


@dataclass(frozen=True)
class RunReference:
    """Train cross entropy at point `index` of the optimiser's leaves."""

    index: int


@dataclass(frozen=True)
class RunSearch:
    """Train the sampler's next proposal; `number` counts its proposals from 0."""

    number: int


@dataclass(frozen=True)
class Select:
    """Choose the configs to confirm."""


@dataclass(frozen=True)
class RunConfirm:
    """Train the config of trial `source` again, with a fresh seed."""

    source: str
    seed: int


@dataclass(frozen=True)
class Wait:
    """Wait for a trial that is live: its result decides what comes next."""


@dataclass(frozen=True)
class Stop:
    """End this session: it has no budget for the rest of the study."""


@dataclass(frozen=True)
class Done:
    """The study is complete."""


Action = Resume | RunBaseline | RunReference | RunSearch | Select | RunConfirm | Wait | Stop | Done
Admits = Callable[[str, int], bool]


def always(stage: str, epochs: int) -> bool:
    """Admit every trial: there is no budget."""
    return True


def confirm_seeds(plan: Plan) -> tuple[int, ...]:
    """The seeds of the confirmation, which no searched trial has used."""
    return tuple(range(plan.seed + 1, plan.seed + 1 + plan.confirm_seeds))


def next_action(
    plan: Plan, state: State, live: Collection[str], *, admits: Admits = always
) -> Action:
    """The next action of the study.

    Args:
        plan: the study's numbers.
        state: the fold of its ledger.
        live: ids of the trials that are being trained now.
        admits: whether a trial of this stage with so many epochs to go fits into the budget.
    """
    unfinished = [trial for trial in state.unfinished() if trial.id not in live]
    for trial in unfinished:
        if admits(trial.stage, plan.epochs - trial.epochs):
            return Resume(trial.id)
    action = _search(plan, state, admits)
    if action is not None:
        return action
    if any(state.trials[trial].stage != CONFIRM for trial in live):
        return _confirm(plan, state, _default_ce(state), admits) or Wait()
    selection = selection_in_force(state)
    if selection is None:
        if not state.completed(BASELINE, REFERENCE, SEARCH) and _num_to_come(plan, state):
            return Stop()
        return Select()
    action = _confirm(plan, state, selection.sources, admits)
    if action is not None:
        return action
    if live:
        return Wait()
    return Stop() if unfinished or _confirm(plan, state, selection.sources, always) else Done()


def _search(plan: Plan, state: State, admits: Admits) -> Action | None:
    baselines = state.count(BASELINE)
    if baselines < len(plan.baselines):
        fits = admits(BASELINE, plan.epochs)
        return RunBaseline(plan.baselines[baselines]) if fits else None
    index = state.count(SEARCH, REFERENCE)
    if index < plan.num_trials and admits(SEARCH, plan.epochs):
        if plan.is_reference(index):
            return RunReference(index)
        return RunSearch(plan.sampled_before(index))
    return None


def _num_to_come(plan: Plan, state: State) -> int:
    """How many baselines and searched trials are not begun."""
    begun = state.count(BASELINE, REFERENCE, SEARCH)
    return len(plan.baselines) + plan.num_trials - begun


def selection_in_force(state: State) -> SelectRecord | None:
    """The latest selection; None before the first, or if the search has continued since."""
    return state.selection if state.selection_holds else None


def _default_ce(state: State) -> list[str]:
    trial = default_ce_trial(state)
    return [] if trial is None else [trial.id]


def _confirm(
    plan: Plan, state: State, sources: Collection[str], admits: Admits
) -> RunConfirm | None:
    tries = Counter((trial.source, trial.seed) for trial in state.of_stage(CONFIRM))
    done = settled(state)
    seeds = confirm_seeds(plan)
    pairs = [(source, seed) for seed in seeds for source in dict.fromkeys(sources)]
    left = [pair for pair in pairs if pair not in done]
    if not left or not admits(CONFIRM, plan.epochs):
        return None
    return RunConfirm(*min(left, key=lambda pair: tries[pair]))


def left_out(plan: Plan, state: State) -> list[str]:
    """What a stopped study has left to do, one line for each kind of trial."""
    pairs = confirmations(plan, state) if selection_in_force(state) else set()
    unfinished = len(state.unfinished())
    counts = (
        (len(plan.baselines) - state.count(BASELINE), len(plan.baselines), "baselines"),
        (plan.num_trials - state.count(SEARCH, REFERENCE), plan.num_trials, "searched"),
        (len(pairs - settled(state)), len(pairs), "confirmations"),
    )
    lines = [f"{count} of {total} {what}" for count, total, what in counts if count > 0]
    return [*lines, *([f"{unfinished} unfinished"] if unfinished else [])]


def confirmations(plan: Plan, state: State) -> set[tuple[str, int]]:
    """Source and seed of each confirmation that is known so far."""
    selection = selection_in_force(state)
    sources = selection.sources if selection else _default_ce(state)
    return {(source, seed) for source in sources for seed in confirm_seeds(plan)}


def settled(state: State) -> set[tuple[str | None, int]]:
    """Source and seed of each confirmation that runs or is over.

    One that failed by its own fault is over, and so is one that the machine has lost CONFIRM_TRIES
    times.
    """
    tries = Counter((trial.source, trial.seed) for trial in state.of_stage(CONFIRM))
    return {
        (trial.source, trial.seed)
        for trial in state.of_stage(CONFIRM)
        if trial.end is None
        or not trial.end.by_machine
        or tries[trial.source, trial.seed] >= CONFIRM_TRIES
    }
