"""What a study does next: a pure function of its plan and the state of its ledger.

Order: trials that an earlier session left unfinished; the baselines; the searched trials, tuned
cross entropy (the reference) spread evenly among them; then, when nothing of the search is live,
the selection; then the confirmation of what was selected, seed by seed. Cross entropy as the task
states it is confirmed in any case, so its seeds fill slots that wait for the last searched trials.
A search that a budget ended goes on in a session with a larger one, and what is confirmed is then
chosen anew. A confirmation that the machine loses is tried again, after the others: an interval
needs its seed.

What does not fit into a budget is left out, in this order: searched trials, baselines (but the
first), the last seeds of the confirmation. A session that leaves out seeds or unfinished trials
stops without being done.
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
    """Go on with a trial that an earlier session left unfinished."""

    trial: str


@dataclass(frozen=True)
class RunBaseline:
    """Train a preset at the task's own settings."""

    name: str


@dataclass(frozen=True)
class RunReference:
    """Train cross entropy at another point of the optimiser's leaves."""

    index: int


@dataclass(frozen=True)
class RunSearch:
    """Train what the sampler proposes; `number` counts its proposals."""

    number: int


@dataclass(frozen=True)
class Select:
    """Choose what is confirmed."""


@dataclass(frozen=True)
class RunConfirm:
    """Train the config of trial `source` again, with a fresh seed."""

    source: str
    seed: int


@dataclass(frozen=True)
class Wait:
    """Something that is live decides what comes next."""


@dataclass(frozen=True)
class Stop:
    """Something is left to do, but not for this session."""


@dataclass(frozen=True)
class Done:
    """Nothing is left to do."""


Action = Resume | RunBaseline | RunReference | RunSearch | Select | RunConfirm | Wait | Stop | Done
Admits = Callable[[str, int], bool]


def always(stage: str, epochs: int) -> bool:
    """No budget: whatever is next fits."""
    return True


def confirm_seeds(plan: Plan) -> tuple[int, ...]:
    """Seeds that no searched trial has seen."""
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
        return _confirm(plan, state, _stated(state), admits) or Wait()
    selection = selection_in_force(state)
    if selection is None:
        if not state.completed(BASELINE, REFERENCE, SEARCH) and _num_to_come(plan, state):
            return Stop()
        return Select()
    chosen = [selection.reference, selection.default_ce, *selection.confirmed]
    sources = [source for source in chosen if source is not None]
    action = _confirm(plan, state, sources, admits)
    if action is not None:
        return action
    if live:
        return Wait()
    return Stop() if unfinished or _confirm(plan, state, sources, always) else Done()


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
    """Baselines and searched trials that nobody has begun."""
    begun = state.count(BASELINE, REFERENCE, SEARCH)
    return len(plan.baselines) + plan.num_trials - begun


def selection_in_force(state: State) -> SelectRecord | None:
    """What is confirmed; None before a selection, and where the search has gone on since."""
    return state.selection if state.selection_holds else None


def _stated(state: State) -> list[str]:
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
    """What a study that has stopped has still to do, in words."""
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
    """Source and seed of what is to be confirmed, as far as it is known by now."""
    selection = selection_in_force(state)
    chosen = (
        [selection.reference, selection.default_ce, *selection.confirmed]
        if selection
        else _stated(state)
    )
    return {
        (source, seed) for source in chosen if source is not None for seed in confirm_seeds(plan)
    }


def settled(state: State) -> set[tuple[str | None, int]]:
    """Source and seed of each confirmation that is under way or over. Over is also one that failed
    by its own fault, or that the machine has lost CONFIRM_TRIES times."""
    tries = Counter((trial.source, trial.seed) for trial in state.of_stage(CONFIRM))
    return {
        (trial.source, trial.seed)
        for trial in state.of_stage(CONFIRM)
        if trial.end is None
        or not trial.end.by_machine
        or tries[trial.source, trial.seed] >= CONFIRM_TRIES
    }
