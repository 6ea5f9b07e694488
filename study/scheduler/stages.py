"""The stages of a study, and its next action: a pure function of its plan and its ledger's state.

A study works in this order:

1. trials that an earlier session left unfinished, and before all others the teachers, where losses
   are distilled from tasks, with the baselines that need none of them beside them;
2. the baselines;
3. the searched trials, with those that tune cross entropy (the reference) spread evenly among
   them; where the plan ends a search that promises no more, the rest of the latter;
4. the selection, once no trial of the search is live;
5. the confirmation of the selected configs, seed by seed; where the plan asks for a half-width, as
   many seeds more, of all of them, as the first ones show to be needed;
6. where the plan has longer budgets: the reference and the best other loss with these, on the same
   seeds, once every confirmation is over;
7. where the plan has an ablation: the best other loss with each of its axes switched off, on the
   same seeds.

Default cross entropy is confirmed in any case, so its seeds fill the slots that would wait for the
last searched trials. If a budget has ended the search, a session with a larger budget continues it
and then makes a new selection. If the machine loses a confirmation, it is tried again after the
others, because the interval needs its seed. Where confirmations train another task, the target,
a session with a budget begins the first seed of default cross entropy as soon as it can: it shows
how long an epoch of the target takes, and so how much the confirmation needs.

If the budget is too small, these are skipped in turn: the ablation, trainings with a longer budget,
searched trials, baselines (except the first), the last seeds of the confirmation. A session that
skips seeds or unfinished trials stops, and the study is not done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from study.analysis.ablation import axes
from study.analysis.answer import best_other, rivals
from study.analysis.selection import default_ce_trial
from study.core.names import BASELINE, CONFIRM, REFERENCE, SEARCH, TEACHER
from study.ledger.plan import Plan
from study.ledger.records import SelectRecord
from study.ledger.state import State, Trial

CONFIRM_TRIES = 3


@dataclass(frozen=True)
class Resume:
    """Continue a trial that an earlier session left unfinished."""

    trial: str


@dataclass(frozen=True)
class RunTeacher:
    """Train a task once, as a teacher."""

    task: str


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
    """Train the config of trial `source` again, with a fresh seed and so many times the budget;
    `ablated`: the axis that is switched off."""

    source: str
    seed: int
    budget: int = 1
    ablated: str = ""


@dataclass(frozen=True)
class ChooseSeeds:
    """Choose how many seeds the selected configs are confirmed with."""


@dataclass(frozen=True)
class Wait:
    """Wait for a trial that is live: its result decides what comes next."""


@dataclass(frozen=True)
class Stop:
    """End this session: it has no budget for the rest of the study."""


@dataclass(frozen=True)
class Done:
    """The study is complete."""


Action = (
    Resume | RunTeacher | RunBaseline | RunReference | RunSearch | Select | RunConfirm
    | ChooseSeeds | Wait | Stop | Done
)  # fmt: skip
Admits = Callable[[str, int], bool]


def always(stage: str, epochs: int) -> bool:
    """Admit every trial: there is no budget."""
    return True


def next_action(
    plan: Plan,
    state: State,
    live: Collection[str],
    *,
    admits: Admits = always,
    times_target: bool = False,
) -> Action:
    """The next action of the study.

    Args:
        plan: the study's numbers.
        state: the fold of its ledger.
        live: ids of the trials that are being trained now.
        admits: whether a trial of this stage with so many epochs to go fits into the budget.
        times_target: whether a budget has to know how long an epoch of the target takes.
    """
    unfinished = [trial for trial in state.unfinished() if trial.id not in live]
    for trial in unfinished:
        whole = plan.epochs_of(trial.stage, trial.budget, trial.label)
        if admits(trial.stage, whole - trial.epochs):
            return Resume(trial.id)
    if (teachers := _teachers(plan, state, live, admits)) is not None:
        beside = _baseline(plan, state, admits, taught=False) if teachers == Wait() else None
        return beside or teachers
    first = _ordinary(plan, _default_ce(state))[:1] if times_target else []
    action = _confirm(plan, state, first, admits) or _search(plan, state, admits)
    if action is not None:
        return action
    if any(state.trials[trial].stage != CONFIRM for trial in live):
        ordinary = _ordinary(plan, _default_ce(state))
        return _confirm(plan, state, ordinary, admits) or Wait()
    selection = selection_in_force(state)
    if selection is None:
        if not state.completed(BASELINE, REFERENCE, SEARCH) and _num_to_come(plan, state):
            return Stop()
        return Select()
    if plan.confirm_half_width and state.seeds is None and _are_over(plan, state):
        return ChooseSeeds()
    wanted = _ordinary(plan, selection.sources, state)
    wanted += longer_confirmations(plan, state) or []
    wanted += ablations(plan, state) or []
    action = _confirm(plan, state, wanted, admits)
    if action is not None:
        return action
    if live:
        return Wait()
    return Stop() if unfinished or _confirm(plan, state, wanted, always) else Done()


def _teachers(
    plan: Plan, state: State, live: Collection[str], admits: Admits
) -> RunTeacher | Wait | Stop | None:
    """The next teacher; None once all are over."""
    begun = {trial.label for trial in state.of_stage(TEACHER)}
    for task in plan.teachers:
        if task not in begun and admits(TEACHER, plan.epochs_of(TEACHER, label=task)):
            return RunTeacher(task)
    if begun >= {*plan.teachers} and all(t.end for t in state.of_stage(TEACHER)):
        return None
    return Wait() if live else Stop()


def _search(plan: Plan, state: State, admits: Admits) -> Action | None:
    if state.count(BASELINE) < len(plan.baselines):
        return _baseline(plan, state, admits)
    begun, ended_after = state.count(SEARCH, REFERENCE), state.search_ended_after
    if begun < plan.search_size(ended_after) and admits(SEARCH, plan.epochs):
        index = plan.search_index(begun, ended_after)
        if plan.is_reference(index):
            return RunReference(index)
        return RunSearch(plan.sampled_before(index))
    return None


def _baseline(
    plan: Plan, state: State, admits: Admits, *, taught: bool = True
) -> RunBaseline | None:
    """The next baseline, if the budget holds it; with `taught` False, one without a teacher."""
    begun = {trial.label for trial in state.of_stage(BASELINE)}
    for name in plan.baselines:
        if name not in begun and (taught or name not in plan.taught):
            return RunBaseline(name) if admits(BASELINE, plan.epochs) else None
    return None


def _num_to_come(plan: Plan, state: State) -> int:
    """How many baselines and searched trials are not begun."""
    begun = state.count(BASELINE, REFERENCE, SEARCH)
    return len(plan.baselines) + plan.search_size(state.search_ended_after) - begun


def selection_in_force(state: State) -> SelectRecord | None:
    """The latest selection; None before the first, or if the search has continued since."""
    return state.selection if state.selection_holds else None


def _default_ce(state: State) -> list[str]:
    trial = default_ce_trial(state)
    return [] if trial is None else [trial.id]


def _ordinary(plan: Plan, sources: Collection[str], state: State | None = None) -> list[RunConfirm]:
    """The confirmations of these sources with the plan's own budget, seed by seed, with the seeds
    that the state adds."""
    first, distinct = plan.first_seeds, dict.fromkeys(sources)
    added = state.seeds.seeds - len(first) if state is not None and state.seeds else 0
    seeds = (*first, *range(first.stop, first.stop + added))
    return [RunConfirm(source, seed) for seed in seeds for source in distinct]


def _confirm(
    plan: Plan, state: State, wanted: Collection[RunConfirm], admits: Admits
) -> RunConfirm | None:
    tries = _tries(state)
    done = settled(state)
    left = [
        one
        for one in wanted
        if one not in done and admits(CONFIRM, plan.epochs_of(CONFIRM, one.budget))
    ]
    return min(left, key=lambda one: tries[one], default=None)


def _which(trial: Trial) -> RunConfirm:
    return RunConfirm(trial.source or "", trial.seed, trial.budget, trial.ablated)


def _tries(state: State) -> Counter[RunConfirm]:
    return Counter(map(_which, state.of_stage(CONFIRM)))


def left_out(plan: Plan, state: State) -> list[str]:
    """What a stopped study has left to do, one line for each kind of trial."""
    chosen = selection_in_force(state) is not None
    pairs = confirmations(plan, state) if chosen else set()
    done, unfinished = settled(state), len(state.unfinished())
    longer, parts = longer_confirmations(plan, state), ablations(plan, state)
    num_longer = plan.longer_trials * chosen if longer is None else len(longer)
    num_parts = plan.ablation_trials * chosen if parts is None else len(parts)
    searched = plan.search_size(state.search_ended_after)
    counts = (
        (len(plan.teachers) - state.count(TEACHER), len(plan.teachers), "teachers"),
        (len(plan.baselines) - state.count(BASELINE), len(plan.baselines), "baselines"),
        (searched - state.count(SEARCH, REFERENCE), searched, "searched"),
        (len(pairs - done), len(pairs), "confirmations"),
        (num_longer - len(done.intersection(longer or ())), num_longer, "longer trainings"),
        (num_parts - len(done.intersection(parts or ())), num_parts, "ablation trainings"),
    )
    lines = [f"{count} of {total} {what}" for count, total, what in counts if count > 0]
    return [*lines, *([f"{unfinished} unfinished"] if unfinished else [])]


def confirmations(plan: Plan, state: State) -> set[RunConfirm]:
    """Each confirmation with the plan's own budget that is known so far."""
    selection = selection_in_force(state)
    if selection is None:
        return set(_ordinary(plan, _default_ce(state)))
    return set(_ordinary(plan, selection.sources, state))


def longer_confirmations(plan: Plan, state: State) -> list[RunConfirm] | None:
    """Each training with a longer budget, the shorter first; None while it is not known which loss
    they are of, because a confirmation is not over."""
    longer = plan.confirm_budgets[1:]
    if not longer:
        return []
    if not _are_over(plan, state):
        return None
    pairs = _ordinary(plan, [trial.id for trial in rivals(state)])
    return [replace(one, budget=budget) for budget in longer for one in pairs]


def ablations(plan: Plan, state: State) -> list[RunConfirm] | None:
    """Each training with an axis switched off, seed by seed; None while it is not known of which
    loss they are, because a confirmation is not over."""
    if not plan.confirm_ablations:
        return []
    if not _are_over(plan, state):
        return None
    winner = best_other(state)
    parts = axes(winner.config) if winner else ()
    pairs = _ordinary(plan, [winner.id] if winner else [])
    return [replace(one, ablated=axis) for one in pairs for axis in parts]


def _are_over(plan: Plan, state: State) -> bool:
    """Whether every confirmation with the plan's own budget is over."""
    if selection_in_force(state) is None or confirmations(plan, state) - settled(state):
        return False
    return not any(
        trial.stage == CONFIRM and trial.budget == 1 and not trial.ablated
        for trial in state.unfinished()
    )


def settled(state: State) -> set[RunConfirm]:
    """Each confirmation that runs or is over.

    One that failed by its own fault is over, and so is one that the machine has lost CONFIRM_TRIES
    times.
    """
    tries = _tries(state)
    return {
        _which(trial)
        for trial in state.of_stage(CONFIRM)
        if trial.end is None or not trial.end.by_machine or tries[_which(trial)] >= CONFIRM_TRIES
    }
