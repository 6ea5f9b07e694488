"""Makes the plan of a study: from the settings of its space and the budgets of its tasks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from study.analysis.ablation import most_axes
from study.config.task import Task, TrialOptimizer
from study.core.errors import InputError
from study.core.names import BASELINE, GRID, REFERENCE, SEARCH
from study.ledger.plan import Plan
from study.ledger.records import AmendRecord
from study.ledger.state import State
from study.losses.config import LossConfig
from study.scheduler.teachers import NO_TEACHERS, Teachers
from study.search.asha import rung_epochs
from study.search.history import key_of
from study.search.memory import params_in
from study.space.search_space import SearchSpace, load_space
from study.space.settings import MIN_SEEDS, StudySettings

MOST_CONFIRMATIONS = MOST_TRIALS = 10**6
ADDED_BY = {
    "num_trials": "--more-trials N adds trials",
    "confirm": "--longer N and --ablate add trainings to it",
}
SEEDS = 3  # of each confirmed config, unless they are given


def make_plan(
    space: SearchSpace,
    task: Task,
    *,
    target: Task | None = None,
    num_trials: int | None,
    seed: int,
    confirm_seeds: int | None = None,
    longer: int | None = None,
    ablate: bool = False,
    teachers: Teachers = NO_TEACHERS,
) -> Plan:
    """Make the plan of a study from the settings of its space and the budgets of its task and of
    its target, the task that confirmations train."""
    if num_trials is not None:
        asked = space.settings.model_copy(update={"num_trials": num_trials})
        space = replace(space, settings=asked)
    settings, references = space.settings, space.num_reference_trials
    grid = space.grid if settings.sampler == GRID else None
    if grid is not None and settings.num_trials - references > len(grid):
        raise InputError(
            f"num_trials must be at most {len(grid) + references} (a grid of {len(grid)} points "
            f"and {references} reference trials), got {settings.num_trials}",
            key="--num-trials",
        )
    rungs, confirm = settings.rungs, settings.confirm
    allowed = range(MIN_SEEDS, confirm.max_seeds + 1)
    if confirm_seeds and confirm.half_width and confirm_seeds not in allowed:
        raise InputError(
            f"confirm_seeds must be from {MIN_SEEDS} to max_seeds ({confirm.max_seeds}) where "
            f"the space has a half_width, got {confirm_seeds}",
            key="--confirm-seeds",
        )
    plan = Plan(
        seed=seed,
        epochs=task.num_epochs,
        objectives=settings.objectives,
        sampler=settings.sampler,
        num_trials=settings.num_trials,
        reference_trials=references,
        baselines=settings.baseline_names,
        rungs=(
            tuple(rung_epochs(rungs.first, rungs.reduction_factor, task.num_epochs))
            if rungs
            else ()
        ),
        reduction_factor=rungs.reduction_factor if rungs else 0,
        split_by=rungs.by if rungs else None,
        confirm_top=settings.confirm.top,
        confirm_seeds=confirm_seeds or settings.confirm.num_seeds or SEEDS,
        confirm_budgets=settings.confirm.budgets,
        confirm_half_width=confirm.half_width or 0.0,
        confirm_max_seeds=confirm.max_seeds if confirm.half_width is not None else 0,
        confirm_ablations=_most_ablations(space) if settings.confirm.ablate else 0,
        confirm_epochs=target.num_epochs if target is not None else 0,
        teachers=tuple(teachers.tasks),
        teacher_epochs=teachers.epochs,
        taught=tuple(filter(partial(_is_distilled, settings), settings.baseline_names)),
        stop_gain=settings.stop_when.gain_below if settings.stop_when else 0.0,
    )
    plan = with_comparisons(plan, space, longer, ablate=ablate)
    if plan.confirm_trials > MOST_CONFIRMATIONS:
        raise InputError(
            f"at most {MOST_CONFIRMATIONS:,} trials may confirm, got {plan.confirm_trials:,} (the "
            f"best of {plan.num_trials:,} with {plan.confirm_seeds:,} seeds each)",
            hint="lower num_seeds or top",
            key="study/confirm",
        ).of_file(space.file, space.lines)
    return plan


def with_comparisons(plan: Plan, space: SearchSpace, longer: int | None, *, ablate: bool) -> Plan:
    """The plan with a longer budget of the reference and the best other loss, and an ablation of
    the latter, as far as it lacks them."""
    budgets = {*plan.confirm_budgets} | ({longer} if longer is not None else set())
    ablations = plan.confirm_ablations or (_most_ablations(space) if ablate else 0)
    return replace(plan, confirm_budgets=tuple(sorted(budgets)), confirm_ablations=ablations)


def _is_distilled(settings: StudySettings, baseline: str) -> bool:
    """Whether a baseline learns from a teacher; a loss of the user's own does not."""
    loss = settings.baseline_loss(baseline)
    return isinstance(loss, LossConfig) and loss.distillation is not None


def _most_ablations(space: SearchSpace) -> int:
    """Most parts of a config that can be switched off: of the space's, or of a baseline's."""
    corners = space.corners
    tuned = any(corner.optimizer != TrialOptimizer() for corner in corners)
    searched = most_axes([corner.loss for corner in corners]) + tuned
    settings = space.settings
    baselines = [settings.baseline_loss(name) for name in settings.baseline_names]
    return max([searched, *(most_axes([loss]) for loss in baselines)])


def amended(
    plan: Plan,
    space: SearchSpace,
    state: State,
    more_trials: int,
    changed: Any = None,
    *,
    longer: int | None = None,
    ablate: bool = False,
) -> tuple[Plan, SearchSpace, AmendRecord]:
    """The plan and the space of a study from here on, and the ledger's line that says so.

    Of the added trials a quarter tunes cross entropy, as of all, unless the space states a number.

    Args:
        plan: of the study so far, as its space.
        state: of its ledger.
        more_trials: searched trials that are added.
        changed: the new space, as for `load_space`; None where it stays.
        longer: for how many times the budget the reference and the best other loss are trained,
            too; None for none but those that the plan has.
        ablate: whether the best other loss is trained without each of its parts, too.

    Raises:
        InputError: the new space has other settings than the study, or its grid has too few points.
    """
    if changed is not None:
        new = load_space(changed)
        for key in type(space.settings).model_fields:
            if key != "objectives" and getattr(new.settings, key) != getattr(space.settings, key):
                message = f"a study keeps its {key}; only what is searched may change"
                hint = ADDED_BY.get(key, "")
                error = InputError(message, hint=hint, key=f"study/{key}")
                raise error.of_file(new.file, new.lines)
        space = replace(new, settings=space.settings)
    if more_trials:
        so_far = plan.search_size(state.search_ended_after)
        total = so_far + more_trials
        if total > MOST_TRIALS:
            raise InputError(
                f"a study has at most {MOST_TRIALS:,} searched trials, got {total:,}",
                key="--more-trials",
            )
        references = plan.reference_trials
        if space.settings.reference_trials is None:
            changes = {"num_trials": total}
            wider = replace(space, settings=space.settings.model_copy(update=changes))
            references = max(references, wider.num_reference_trials)
            references = min(references, plan.reference_trials + more_trials)
        earlier = (so_far, plan.reference_trials)
        plan = replace(
            plan,
            num_trials=total,
            reference_trials=references,
            extended=(*plan.extended, earlier),
        )
    plan = with_comparisons(plan, space, longer, ablate=ablate)
    grid = space.grid if plan.sampler == GRID else None
    if grid is not None:
        taken = {key_of(trial.params) for trial in state.of_stage(SEARCH) if trial.params}
        left = sum(key_of(point) not in taken for point in grid)
        to_come = plan.num_trials - plan.reference_trials - state.count(SEARCH)
        if to_come > left:
            raise InputError(
                f"the grid has {left} points left, for {to_come} trials to come",
                key="--more-trials",
            )
    searched = state.of_stage(BASELINE, REFERENCE, SEARCH)
    kept = sum(params_in(space, trial) is not None for trial in searched)
    tree = None if changed is None else dict(space.data)
    return plan, space, AmendRecord(plan.as_dict(), tree, kept, len(searched))
