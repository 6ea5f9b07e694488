"""Makes the plan of a study: from the settings of its space and the budgets of its tasks."""

from __future__ import annotations

from dataclasses import replace

from study.analysis.ablation import most_axes
from study.config.task import Task, TrialOptimizer
from study.core.errors import InputError
from study.core.names import GRID
from study.ledger.plan import Plan
from study.search.asha import rung_epochs
from study.space.search_space import SearchSpace
from study.space.settings import MIN_SEEDS

MOST_CONFIRMATIONS = 10**6
SEEDS = 3  # of each confirmed config, unless they are given


def make_plan(
    space: SearchSpace,
    task: Task,
    *,
    target: Task | None = None,
    num_trials: int | None,
    seed: int,
    confirm_seeds: int | None = None,
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
    )
    if plan.confirm_trials > MOST_CONFIRMATIONS:
        raise InputError(
            f"at most {MOST_CONFIRMATIONS:,} trials may confirm, got {plan.confirm_trials:,} (the "
            f"best of {plan.num_trials:,} with {plan.confirm_seeds:,} seeds each)",
            hint="lower num_seeds or top",
            key="study/confirm",
        ).of_file(space.file, space.lines)
    return plan


def _most_ablations(space: SearchSpace) -> int:
    """Most parts of a config that can be switched off: of the space's, or of a baseline's."""
    corners = space.corners
    tuned = any(corner.optimizer != TrialOptimizer() for corner in corners)
    searched = most_axes([corner.loss for corner in corners]) + tuned
    settings = space.settings
    baselines = [settings.baseline_loss(name) for name in settings.baseline_names]
    return max([searched, *(most_axes([loss]) for loss in baselines)])
