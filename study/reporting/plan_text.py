"""The plan of a study in words, printed before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study.analysis.statistics import MIN_SEEDS, resolvable
from study.config.own_training import OwnTrainingTask
from study.config.task import NamedTask
from study.core.names import CE, CONFIRM, DEFAULT_CE, GRID, RANDOM, TUNED_CE
from study.ledger.plan import Plan
from study.ledger.records import AmendRecord, StudyRecord
from study.search.warm_start import STUDIES
from study.space.search_space import SearchSpace
from study.space.settings import FEWEST_TO_STOP


def plan_text(
    plan: Plan,
    space: SearchSpace,
    task: NamedTask,
    *,
    name: str,
    takes_over: int | None,
    target: NamedTask | None = None,
    teachers: Sequence[str] = (),
) -> str:
    """Describe in a few lines what is trained, for how long at most, how trials are stopped, and
    how they are judged.

    `takes_over` is the searched trial from which a model proposes; None if none ever does.
    `target` is the task that confirmations train, if it is not `task`. `teachers`: a line for each
    task that is trained first.
    """
    searched = plan.num_trials - plan.reference_trials
    lines = [
        f"study {name}: {space.name} on {task.name}, {plan.epochs} epochs a trial, "
        f"seed {plan.seed}",
        *_own_training(task, target),
        *_target(plan, task, target),
        *teachers,
        f"objectives: {', '.join(plan.objectives)}",
        f"baselines, never stopped ({len(plan.baselines)}): {', '.join(plan.baselines) or 'none'}",
        f"search ({plan.num_trials}): {plan.reference_trials} tune cross entropy, "
        f"{searched} by the sampler{_sampler(plan, takes_over) if searched else ''}",
        *(_choices(space) if searched else []),
        *_ending(plan),
        *_equal(space, searched),
        f"rungs: {_rungs(plan)}",
        f"confirm: {_confirm(plan)}",
        *_added(plan),
        *_longer(plan),
        *_ablation(plan),
        f"worst case: {_most_trials(plan)} trials, "
        f"{epochs_text(plan, plan.worst_case_epochs, plan.worst_case_target_epochs)} if nobody is "
        f"stopped{_of_teachers(plan)}",
    ]
    return "\n".join(lines)


def epochs_text(plan: Plan, epochs: int, of_target: int) -> str:
    """A number of epochs; with a target, those of the search's task, its proxy, and of the target
    apart, as they are different things."""
    own = f"{epochs} epoch{'s' * (epochs != 1)}"
    return f"{own} of the proxy, {of_target} of the target" if plan.has_target else own


def _of_teachers(plan: Plan) -> str:
    epochs = sum(plan.teacher_epochs)
    return f", and {epochs} of the teacher{'s' * (len(plan.teachers) > 1)}" if epochs else ""


def data_lines(study: StudyRecord) -> list[str]:
    """Describe how the splits of a study's data were made, and list the warnings."""
    of_target = study.confirm_data or {}
    found = {"data": study.data, f"data of the target {study.confirm_task_name}": of_target}
    rules = [
        f"{head}: {data['split_rule']}" for head, data in found.items() if data.get("split_rule")
    ]
    return [*rules, *warning_lines(study)]


def warm_lines(study: StudyRecord) -> list[str]:
    """A line for each earlier study of a warm start: what is taken over, and what is not."""
    return [_warm_line(one) for one in (study.prior or {}).get(STUDIES, ())]


def _warm_line(one: Mapping[str, Any]) -> str:
    taken, left_out = len(one["points"]), one["left_out"]
    text = f"warm start from {one['name']}: {taken} of its {one['trials']} trials"
    if left_out:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        text += f"; left out: {why}"
    if one["lacks"]:
        text += f"; it has no {' and no '.join(one['lacks'])}, so the mean of what it has stands in"
    return text


def warning_lines(study: StudyRecord) -> list[str]:
    """Warn of classes of a study's data that cannot be learned, selected by or judged on."""
    return [f"warning: {line}" for line in study.warnings]


def _own_training(*tasks: NamedTask | None) -> list[str]:
    """Whose training trials are, where it is not this package's."""
    return list(
        dict.fromkeys(
            f"{task.name} trains by {task.config.trained_by}; {task.config.if_interrupted}"
            for task in tasks
            if task is not None and isinstance(task.config, OwnTrainingTask)
        )
    )


def _target(plan: Plan, task: NamedTask, target: NamedTask | None) -> list[str]:
    if target is None:
        return []
    epochs = plan.epochs_of(CONFIRM)
    return [
        f"confirmed on the target {target.name}, {epochs} epoch{'s' * (epochs != 1)} a trial: "
        f"{task.name} is its proxy"
    ]


def amended_lines(before: Plan, record: AmendRecord) -> list[str]:
    """What a resume has changed, in lines."""
    plan = Plan.from_dict(record.plan)
    lines = []
    if record.space is not None or plan.num_trials != before.num_trials:
        lines.append(f"{plan.num_trials} searched trials from now on")
    if record.space is not None:
        kept = f"{record.kept} of the {record.searched} earlier trials lie in it and still count"
        lines[0] += f"; the search space has changed: {kept}"
    added = _longer(plan) if plan.confirm_budgets != before.confirm_budgets else []
    added += _ablation(plan) if plan.confirm_ablations != before.confirm_ablations else []
    return [*lines, *(f"added: {line.removeprefix('then ')}" for line in added)]


def _choices(space: SearchSpace) -> list[str]:
    if not space.choices:
        return []
    counts = ", ".join(f"{path} {len(options)}" for path, options in space.choices.items())
    return [f"options: {counts}; the random part takes those that the fewest trials had"]


def _sampler(plan: Plan, takes_over: int | None) -> str:
    if plan.sampler == GRID:
        return "; every point of the grid"
    if plan.sampler == RANDOM:
        return "; at random"
    if takes_over is None or takes_over > plan.num_trials:
        return "; stratified random (too few trials for the model to take over)"
    return (
        f"; stratified random, from searched trial {takes_over} at the earliest a model, but for "
        "a part that stays random"
    )


def _ending(plan: Plan) -> list[str]:
    if not plan.stop_gain:
        return []
    return [
        "the search ends before that once the best of going on for ever is expected to gain less "
        f"than {plan.stop_gain:g} points of each objective, after {FEWEST_TO_STOP} judged trials "
        "at the earliest; cross entropy's trials all run"
    ]


def _equal(space: SearchSpace, searched: int) -> list[str]:
    if searched < 2 or space.num_points != 1:
        return []
    return [f"warning: the space leaves nothing open, so these {searched} trials are equal"]


def _rungs(plan: Plan) -> str:
    if not plan.rungs:
        return "none, nobody is stopped"
    at = ", ".join(f"epoch {epoch}" for epoch in plan.rungs)
    split = f", one bracket for each {plan.split_by}" if plan.split_by else ""
    return (
        f"{at}: the top 1/{plan.reduction_factor} by any objective goes on, as soon as there are "
        f"{2 * plan.reduction_factor} values{split}; cross entropy is judged among itself"
    )


def _added(plan: Plan) -> list[str]:
    if not plan.confirm_half_width:
        return []
    return [
        f"then up to {plan.confirm_max_seeds} seeds each, as many as the first ones show to be "
        f"needed for {plan.confirm_half_width:g} points of mIoU to either side"
    ]


def _longer(plan: Plan) -> list[str]:
    factors = " and ".join(str(factor) for factor in plan.confirm_budgets[1:])
    if not factors:
        return []
    return [
        f"then the reference and the best other loss for {factors} times the epochs, on the same "
        f"seeds ({plan.longer_epochs} epochs at most)"
    ]


def _ablation(plan: Plan) -> list[str]:
    if not plan.confirm_ablations:
        return []
    return [
        "then the best other loss with each of its parts switched off, one at a time, on the same "
        f"seeds ({plan.ablation_epochs} epochs at most)"
    ]


def _most_trials(plan: Plan) -> int:
    confirmed = plan.confirm_trials + plan.added_trials + plan.longer_trials
    confirmed += plan.ablation_trials
    return len(plan.teachers) + len(plan.baselines) + plan.num_trials + confirmed


def _confirm(plan: Plan) -> str:
    what = [f"the top {plan.confirm_top}"]
    tuned = TUNED_CE if plan.reference_trials == 1 else "the two best of tuned cross entropy"
    what += [tuned] if plan.reference_trials else []
    what += [DEFAULT_CE] if CE in plan.baselines else []
    listed = " and ".join(filter(None, (", ".join(what[:-1]), what[-1])))
    seeds = f"{plan.confirm_seeds} fresh seed{'s' * (plan.confirm_seeds > 1)} each"
    return f"{listed}, {seeds}, judged on test{_resolves(plan)}"


def _resolves(plan: Plan) -> str:
    """What these seeds can tell; nothing is compared with fewer than three."""
    candidates = plan.confirm_trials // max(plan.confirm_seeds, 1) - 1
    if candidates < 1:
        return ""
    if plan.confirm_seeds < MIN_SEEDS:
        return f"; fewer than {MIN_SEEDS} seeds give no intervals"
    told = resolvable(candidates, plan.confirm_seeds)
    return f"; no difference below {told:.1f} sd over seeds is told from none"
