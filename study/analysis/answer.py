"""The answer of a study: which loss is best, by how much, and how sure that is.

Its columns are decision rules (`rules`): the rules that each training tuned on its own val, the
primary column, and the argmax. A loss that only moves the operating point gains at the argmax and
not in the tuned column, where every config, the reference too, is measured at its best rule. A
study that an earlier version recorded has the argmax alone.

No metric is used both to select and to report. Configs are ranked, and the best ones chosen, by
their mean validation metrics over the confirmation seeds; the answer reports their test metrics. So
`best_miou` is the confirmed config with the highest mean val mIoU in the primary column. Its test
mIoU is measured on images that did not choose it, but with the trainings that did: if a lucky seed
does well on both, the best of several looks slightly better than it is, and the simultaneous
intervals allow for that. `best_macc` is the same for mean accuracy, among configs whose val mIoU is
at most half a point below the reference's. Cross entropy takes part: if no loss beats it, it is the
answer. A config with a failed seed (a diverged one, for instance) is the best only if every config
has one.

Intervals over seeds hold together, in 95 %, for all configs and both metrics of the primary column,
which the verdicts rest on. At the argmax they describe, and hold together for the configs within
one metric; those of the ladder's steps and of the ablation hold each by itself.

The reference is tuned cross entropy: of the two that were best by val and the default one, the best
by mean confirmed val mIoU, at the tuned rule where there is one. In a study that has not tuned it,
the reference is default cross entropy, and is called so.

Where confirmations train another task, the target, all figures but those of the tuning are the
target's, the front too, and `foretold` compares its ranking with that of the search's task, its
proxy.

An unfinished study has an answer too. Until its selection is confirmed, the best are chosen by val
among the full-budget trials and marked as unconfirmed; `missing` lists what is not there yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.analysis import evidence
from study.analysis.ablation import Ablated, axes, axis_effect, in_words
from study.analysis.alike import alike
from study.analysis.bootstrap import difference_interval
from study.analysis.longer import LadderEntry, Longer, ladder, longer, rising_note
from study.analysis.pareto import front, pareto_trials
from study.analysis.proxy import Foretold, foretold
from study.analysis.rules import ARGMAX, TUNED, Rule, rules_of
from study.analysis.selection import (
    default_ce_trial,
    is_tuned,
    keeps_miou,
    ranked,
    reference_trial,
    value,
)
from study.analysis.statistics import (
    CONFIDENCE,
    JOINT,
    Comparison,
    Interval,
    compare,
    mean,
    sd,
    stein_seeds,
)
from study.analysis.tuning import Tuning, tuning
from study.core.names import (
    BASELINE,
    COMPLETED,
    CONFIRM,
    DEFAULT_CE,
    MACC,
    MIOU,
    REFERENCE,
    SEARCH,
    TAU_MACC,
    TAU_MIOU,
    TEST,
    TUNED_CE,
    VAL,
)
from study.ledger.plan import Plan
from study.ledger.records import SearchEndRecord, SeedsRecord
from study.ledger.state import State, Trial
from study.metrics.counts import counts_of_confusion, metrics_from_counts
from study.metrics.decision import TAUS
from study.metrics.evidence import SplitEvidence

JUDGED = tuple(key for rule in (ARGMAX, TUNED) for key in (rule.test_miou, rule.test_macc))

Curve = tuple[tuple[float, float], ...]
"""Mean accuracy and mIoU at each of `study.metrics.TAUS`."""


@dataclass(frozen=True)
class Gain:
    """A difference of means: in the metric's own unit (0..1), and relative to the other mean."""

    absolute: float
    relative: float


@dataclass(frozen=True)
class Confirmed:
    """A config that was trained again on fresh seeds. All sequences are in the same order of seeds.

    versus and images: comparisons with the reference, by test metric; empty for the reference.
    versus covers the spread over seeds (Dunnett), images the draw of test images (bootstrap).
    failed: the seeds with which it failed by its own fault. curves: of test, one for each seed;
    empty where a trial's evidence has none.
    """

    source: str
    label: str
    family: str
    is_reference: bool
    is_default_ce: bool
    trials: tuple[str, ...]
    seeds: tuple[int, ...]
    metrics: Mapping[str, tuple[float, ...]]
    versus: Mapping[str, Comparison]
    images: Mapping[str, Interval]
    failed: tuple[int, ...] = ()
    curves: tuple[Curve, ...] = ()

    def mean(self, key: str) -> float:
        """The mean of a metric over seeds; NaN where a seed lacks it."""
        return mean(self.metrics.get(key, ()))

    def sd(self, key: str) -> float:
        """The standard deviation of a metric over seeds; NaN for fewer than two."""
        return sd(self.metrics.get(key, ()))


@dataclass(frozen=True)
class Answer:
    """The answer of a study.

    rules: its columns, the primary one first. configs: the confirmed ones, best mean val mIoU of
    that column first. best_* and pareto: ids of source trials; these are confirmed if `confirmed`
    is true, else the best so far. tuned: whether the reference is the best of cross entropies at
    several settings. tuning: the settings at which cross entropy was tried. ladder: from default
    cross entropy to the best other loss, if that is confirmed. longer: what a longer budget does to
    both, where the study has trained them for it. ablation: what each part of that loss adds,
    where the study has trained it without; ablation_of: its label. missing: what the
    answer lacks, notes: what limits it, warnings: what its data's limits are, in words. task: that
    was confirmed on. proxy: that was searched on, if it is another one; foretold: how far its
    ranking is that of `task`, if that is confirmed.
    """

    study: str
    task: str
    space: str
    configs: tuple[Confirmed, ...]
    best_miou: str | None
    best_macc: str | None
    confirmed: bool
    tuned: bool
    pareto: tuple[str, ...]
    missing: tuple[str, ...]
    tuning: Tuning | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = (ARGMAX,)
    epochs: int = 0
    ladder: tuple[LadderEntry, ...] = ()
    longer: tuple[Longer, ...] = ()
    ablation: tuple[Ablated, ...] = ()
    ablation_of: str = ""
    proxy: str = ""
    foretold: Foretold | None = None

    @property
    def primary(self) -> Rule:
        """The column that configs are ranked by."""
        return self.rules[0]

    def config(self, source: str | None) -> Confirmed | None:
        """The confirmed config of a source trial."""
        return next((item for item in self.configs if item.source == source), None)

    @property
    def reference(self) -> Confirmed | None:
        """The config that every gain is measured against."""
        return next((item for item in self.configs if item.is_reference), None)

    @property
    def reference_name(self) -> str:
        """The reference in words."""
        return TUNED_CE if self.tuned else DEFAULT_CE

    @property
    def default_ce(self) -> Confirmed | None:
        """Cross entropy at the task's own optimiser settings."""
        return next((item for item in self.configs if item.is_default_ce), None)

    def gain(self, source: str | None, over: Confirmed | None, key: str) -> Gain | None:
        """The mean of a confirmed config minus that of another; None where one is missing."""
        config = self.config(source)
        if config is None or over is None:
            return None
        base = over.mean(key)
        absolute = config.mean(key) - base
        return Gain(absolute, absolute / base if base else math.nan)


def answer(state: State, folder: Path) -> Answer:
    """The answer so far, from the ledger's state and the evidence in the study's folder."""
    study = state.study
    distinct, failed, configs = _of_selection(state, folder)
    rules = rules_of(state)
    tuned = is_tuned(state)
    settled = bool(configs) and _settled(state, {item.source for item in configs}, failed)
    best = _best_confirmed(configs, rules[0]) if settled else _best_so_far(state, rules[0])
    default_objectives = (rules[0].val_miou, rules[0].val_macc)
    objectives = study.plan.get("objectives", default_objectives) if study else ()
    proxy = study.task_name if study and study.confirm_task_name is not None else ""
    return Answer(
        study=study.name if study else "",
        task=study.judged_task_name if study else "",
        space=study.space_name if study else "",
        configs=tuple(configs),
        best_miou=best[0],
        best_macc=best[1],
        confirmed=settled,
        tuned=tuned,
        pareto=_front(state, configs if settled and proxy else (), objectives),
        missing=tuple(_missing(state, configs, distinct, failed, tuned)),
        tuning=tuning(state),
        notes=(
            *_ended_note(state),
            *_added_note(state),
            *_at_the_edge(configs),
            *_still_rising(state, configs, rules[0]),
            *_not_reported(state, rules[0]),
        ),
        warnings=(*alike(state), *(study.warnings if study else ())),
        rules=rules,
        epochs=_epochs(study.plan) if study else 0,
        ladder=_ladder(state, configs, rules) if settled else (),
        longer=_longer(state, rules) if settled else (),
        ablation=_ablation(state, rules) if settled else (),
        ablation_of=winner.label if (winner := best_other(state)) else "",
        proxy=proxy,
        foretold=_foretold(state, distinct, best[0], objectives, rules)
        if settled and proxy
        else None,
    )


def _epochs(plan: Mapping[str, Any]) -> int:
    """The epochs of a confirmation."""
    return int(plan.get("confirm_epochs") or plan.get("epochs", 0))


def _front(
    state: State, configs: Sequence[Confirmed], objectives: Sequence[str]
) -> tuple[str, ...]:
    """The front of the given configs by their means over seeds, those with a failed seed left out
    as far as others have none; without configs, of the searched trials."""
    if not configs:
        return tuple(trial.id for trial in pareto_trials(state, objectives))
    sound = [config for config in configs if not config.failed] or configs
    return tuple(front({one.source: [one.mean(key) for key in objectives] for one in sound}))


def _foretold(
    state: State,
    sources: Sequence[Trial],
    best: str | None,
    objectives: Sequence[str],
    rules: Sequence[Rule],
) -> Foretold | None:
    if best is None:
        return None
    keys = _judged_keys(rules)
    return foretold(
        sources,
        {source.id: _judged(state, source, keys) for source in sources},
        state.trials[best],
        objectives=objectives,
        val=rules[0].val_miou,
        test=rules[0].test_miou,
    )


def _of_selection(
    state: State, folder: Path | None
) -> tuple[list[Trial], dict[str, tuple[int, ...]], list[Confirmed]]:
    """The sources of the selection, the seeds with which each failed, and the configs with a judged
    seed, best mean val mIoU first; without a folder these have no comparisons."""
    selection = state.selection
    default_ce = (
        state.trials.get(selection.default_ce or "") if selection else default_ce_trial(state)
    )
    sources = [state.trials[trial] for trial in selection.sources] if selection else []
    if selection is None and default_ce is not None:
        sources = [default_ce]
    distinct = list({trial.id: trial for trial in sources}.values())
    keys = _judged_keys(rules_of(state))
    failed = {source.id: _failed(state, source, keys) for source in distinct}
    reference = confirmed_reference(state)
    return distinct, failed, _confirmed(state, folder, distinct, reference, default_ce, failed)


@dataclass(frozen=True)
class Leaders:
    """Who is ahead by mIoU and by mean accuracy, and the reference: what an answer would call best
    now. Before it is `confirmed`, trials of the search at full budget, by val of one seed; then
    configs, by mean val over the seeds that they have so far."""

    miou: Trial | Confirmed | None
    macc: Trial | Confirmed | None
    reference: Trial | Confirmed | None
    confirmed: bool


def leaders(state: State) -> Leaders:
    """Who is ahead, from the state alone and at little cost."""
    _, failed, configs = _of_selection(state, None)
    rule = rules_of(state)[0]
    if configs and _settled(state, {item.source for item in configs}, failed):
        of = {config.source: config for config in configs}
        miou, macc = (of.get(name or "") for name in _best_confirmed(configs, rule))
        reference = next((item for item in configs if item.is_reference), None)
        return Leaders(miou, macc, reference, confirmed=True)
    by_miou, by_macc = (state.trials.get(name or "") for name in _best_so_far(state, rule))
    return Leaders(by_miou, by_macc, reference_trial(state), confirmed=False)


def confirmed_reference(state: State) -> Trial | None:
    """The best of the selection's cross entropies by mean confirmed val, over the seeds that all
    of them have.

    One with a failed seed counts only if each has one. Until the selection's own reference is
    judged, or has failed with every seed, it remains the reference.
    """
    selection = state.selection
    if selection is None or selection.reference is None:
        return None
    first = state.trials[selection.reference]
    keys = _judged_keys(rules_of(state))
    if not _judged(state, first, keys) and len(_failed(state, first, keys)) < _seeds(state):
        return first
    return _best_by_val(state, selection.cross_entropies) or first


def rivals(state: State) -> list[Trial]:
    """What is trained for longer once the selection is confirmed: the reference, and the best
    other loss by mean confirmed val, at the tuned rule where there is one. Those without a judged
    seed are left out."""
    selection = state.selection
    if selection is None:
        return []
    keys = _judged_keys(rules_of(state))
    found = (confirmed_reference(state), _best_by_val(state, selection.confirmed))
    return [trial for trial in found if trial is not None and _judged(state, trial, keys)]


def best_other(state: State) -> Trial | None:
    """Of `rivals`, the loss that is not the reference."""
    reference = confirmed_reference(state)
    return next((trial for trial in rivals(state) if trial is not reference), None)


def choose_seeds(state: State, plan: Plan) -> SeedsRecord:
    """How many seeds the selected configs get, by the interval of the best other loss over those of
    the plan (Stein's procedure); no more where it has none."""
    winner, reference = best_other(state), confirmed_reference(state)
    if winner is None or reference is None or state.selection is None:
        return SeedsRecord(plan.confirm_seeds)
    rules = rules_of(state)
    values = {
        source: {
            trial.seed: value(trial, rules[0].test_miou)
            for trial in _judged(state, state.trials[source], _judged_keys(rules))
            if trial.seed in plan.first_seeds
        }
        for source in dict.fromkeys(state.selection.sources)
    }
    control = values.pop(reference.id)
    values = {source: of for source, of in values.items() if of}
    against = compare(values, control, confidence=JOINT).get(winner.id)
    if against is None or against.interval is None:
        return SeedsRecord(plan.confirm_seeds)
    half_width = 100 * (against.interval.high - against.interval.low) / 2
    seeds = stein_seeds(
        half_width,
        plan.confirm_seeds,
        wanted=plan.confirm_half_width,
        most=plan.confirm_max_seeds,
    )
    return SeedsRecord(seeds, half_width)


def _first_seeds(state: State) -> range | None:
    """The seeds whose spread decided how many there are; None where nothing did."""
    if state.study is None or state.seeds is None:
        return None
    return Plan.from_dict(state.study.plan).first_seeds


def ended_line(plan: Plan, record: SearchEndRecord) -> str:
    """Why a search has ended before its number of trials, and what it may have missed, in words."""
    gains = " and ".join(
        f"{expected:.1f} points of {key} (with a chance of 5 %, over {record.likely[key]:.1f})"
        for key, expected in record.expected.items()
    )
    return (
        f"the search ended after {record.searched} of {plan.num_trials} trials: the best of going "
        f"on for ever was expected to gain {gains}, less than the {plan.stop_gain:g} of `stop_when`"
    )


def _ended_note(state: State) -> list[str]:
    if state.study is None or state.search_end is None:
        return []
    return [ended_line(Plan.from_dict(state.study.plan), state.search_end)]


def _added_note(state: State) -> list[str]:
    first = _first_seeds(state)
    if first is None or state.seeds is None or state.seeds.half_width is None:
        return []
    assert state.study is not None
    plan = state.study.plan
    return [
        f"after {len(first)} seeds the interval of the best loss was {state.seeds.half_width:.2f} "
        f"points to either side; for {plan['confirm_half_width']:g} there are "
        f"{state.seeds.seeds} (at most {plan['confirm_max_seeds']}): intervals over seeds take "
        "their spread from the first ones alone (Stein's two-stage procedure)"
    ]


def _best_by_val(state: State, sources: Sequence[str]) -> Trial | None:
    """The best config by mean confirmed val over the seeds that all have; one with a failed seed
    counts only if each has one. None without a shared seed."""
    rules = rules_of(state)
    keys = _judged_keys(rules)
    candidates = [state.trials[source] for source in sources]
    repeats = {one.id: _judged(state, one, keys) for one in candidates}
    judged = {source: trials for source, trials in repeats.items() if trials}
    failed = {one.id: _failed(state, one, keys) for one in candidates}
    sound = {s: trials for s, trials in judged.items() if not failed[s]} or judged
    seeds = [{trial.seed for trial in trials} for trials in sound.values()]
    shared = set.intersection(*seeds) if seeds else set()
    if not shared:
        return None
    means = {
        source: mean([value(trial, rules[0].val_miou) for trial in trials if trial.seed in shared])
        for source, trials in sound.items()
    }
    return state.trials[max(means, key=lambda source: _or_worst(means[source]))]


def _still_rising(state: State, configs: Sequence[Confirmed], rule: Rule) -> list[str]:
    reference = next((config for config in configs if config.is_reference), None)
    if reference is None:
        return []
    trials = [state.trials[trial] for trial in reference.trials]
    return rising_note(trials, rule.val_miou, measured=bool(_longer_budgets(state)))


def _not_reported(state: State, rule: Rule) -> list[str]:
    """What the answer lacks because a training of the user's own has not reported it."""
    if state.study is None or not state.study.has_own_training:
        return []
    said = [] if rule is TUNED else ["nothing is said of what decision rules do"]
    said += [] if rule.has_macc else ["nothing is best by mean accuracy"]
    return [f"{one}: the training does not report it" for one in said]


def _longer_budgets(state: State) -> list[int]:
    return list(state.study.plan.get("confirm_budgets", (1,)))[1:] if state.study else []


def _ladder(
    state: State, configs: Sequence[Confirmed], rules: Sequence[Rule]
) -> tuple[LadderEntry, ...]:
    """The ladder; empty without a reference. From the third entry on every config is at the rule
    that its own val chose, in a study whose trials report it."""
    reference = confirmed_reference(state)
    if reference is None:
        return ()
    winner = best_other(state)
    is_tuned, key, argmax = rules[0] is TUNED, rules[0].test_miou, ARGMAX.test_miou
    at = "at its rule" if is_tuned else "at the argmax"
    default = [config.source for config in configs if config.is_default_ce]
    entries = [(f"{DEFAULT_CE} at the argmax", source, 1, argmax) for source in default]
    if reference.id not in default:
        entries += [("tuned learning rate at the argmax", reference.id, 1, argmax)]
    entries += [("tuned decision rule", reference.id, 1, key)] if is_tuned else []
    budgets = _longer_budgets(state)
    entries += [(f"{n} times the budget", reference.id, n, key) for n in budgets]
    if winner is not None:
        entries += [(f"{winner.label} {at}", winner.id, 1, key)]
        entries += [
            (f"{winner.label} {at}, {n} times the budget", winner.id, n, key) for n in budgets
        ]
    keys = _judged_keys(rules)
    return ladder(
        [
            (name, _judged(state, state.trials[source], keys, n), of)
            for name, source, n, of in entries
        ]
    )


def _longer(state: State, rules: Sequence[Rule]) -> tuple[Longer, ...]:
    """What each longer budget does to the reference and to the best other loss."""
    reference, other = confirmed_reference(state), best_other(state)
    if reference is None or other is None:
        return ()
    keys, key = _judged_keys(rules), rules[0].test_miou
    found = (
        longer(
            n,
            _judged(state, reference, keys),
            _judged(state, reference, keys, n),
            _judged(state, other, keys, n),
            key,
        )
        for n in _longer_budgets(state)
    )
    return tuple(one for one in found if one is not None)


def _ablation(state: State, rules: Sequence[Rule]) -> tuple[Ablated, ...]:
    """What each axis of the best other loss adds, where the study has trained it without."""
    winner, keys = best_other(state), _judged_keys(rules)
    if winner is None:
        return ()
    whole = _judged(state, winner, keys)
    parts = {axis: _judged(state, winner, keys, ablated=axis) for axis in _ablated(state, winner)}
    return tuple(axis_effect(axis, whole, parts[axis], rules[0]) for axis in parts if parts[axis])


def _ablated(state: State, winner: Trial) -> tuple[str, ...]:
    """The axes that the study switches off in turn."""
    asked = state.study.plan.get("confirm_ablations", 0) if state.study else 0
    return axes(winner.config) if asked else ()


def _settled(state: State, judged: set[str], failed: Mapping[str, Sequence[int]]) -> bool:
    """Whether the two best cross entropies and a chosen loss are judged, or have failed with every
    seed."""
    selection = state.selection
    if selection is None:
        return False
    over = judged | {source for source, seeds in failed.items() if len(seeds) >= _seeds(state)}
    chosen = set(selection.confirmed)
    of_chosen = not chosen or not chosen.isdisjoint(judged) or chosen <= over
    return of_chosen and {selection.reference, selection.runner_up} <= {None, *over}


def _seeds(state: State) -> int:
    return state.seeds.seeds if state.seeds else _planned_seeds(state)


def _planned_seeds(state: State) -> int:
    plan = state.study.plan if state.study else {}
    return int(plan.get("confirm_seeds", 0))


def _confirmed(
    state: State,
    folder: Path | None,
    sources: Sequence[Trial],
    reference: Trial | None,
    default_ce: Trial | None,
    failed: Mapping[str, tuple[int, ...]],
) -> list[Confirmed]:
    rules = rules_of(state)
    keys = _judged_keys(rules)
    repeats = {source.id: _judged(state, source, keys) for source in sources}
    repeats = {source: trials for source, trials in repeats.items() if trials}
    control = repeats.get(reference.id, []) if reference else []
    others = {s: trials for s, trials in repeats.items() if reference and s != reference.id}
    tested = {
        source: [] if folder is None else _tested(folder, trials)
        for source, trials in repeats.items()
    }
    versus: dict[str, dict[str, Comparison]] = {source: {} for source in repeats}
    images: dict[str, dict[str, Interval]] = {source: {} for source in repeats}
    judged = tested[reference.id] if reference and control else []
    for key in keys if control and folder is not None else ():
        confidence = JOINT if key in (rules[0].test_miou, rules[0].test_macc) else CONFIDENCE
        values = {s: _by_seed(t, key) for s, t in others.items()}
        compared = compare(
            values, _by_seed(control, key), confidence=confidence, first=_first_seeds(state)
        )
        for source, comparison in compared.items():
            versus[source][key] = comparison
            interval = _image_interval(tested[source], judged, rules, key)
            if interval is not None:
                images[source][key] = interval
    configs = []
    for source, trials in repeats.items():
        of = state.trials[source]
        common = [key for key in trials[0].last if all(key in trial.last for trial in trials)]
        configs.append(
            Confirmed(
                source=source,
                label=of.label,
                family=of.family,
                is_reference=reference is not None and source == reference.id,
                is_default_ce=default_ce is not None and source == default_ce.id,
                trials=tuple(trial.id for trial in trials),
                seeds=tuple(trial.seed for trial in trials),
                metrics={key: tuple(_values(trials, key)) for key in common},
                versus=versus[source],
                images=images[source],
                failed=failed[source],
                curves=_curves(tested[source]),
            )
        )
    return sorted(configs, key=lambda c: (-_or_worst(c.mean(rules[0].val_miou)), c.source))


def _judged_keys(rules: Sequence[Rule]) -> list[str]:
    return [key for rule in rules for key in rule.judged]


def _judged(
    state: State, source: Trial, keys: Sequence[str], budget: int = 1, ablated: str = ""
) -> list[Trial]:
    """The completed confirmation trials whose every judged metric is a number."""
    trials = state.confirmations(source.id, budget, ablated)
    return [trial for trial in trials if _is_judged(trial, keys)]


def _is_judged(trial: Trial, keys: Sequence[str]) -> bool:
    numbers = [value(trial, key) for key in keys]
    return trial.status == COMPLETED and all(map(math.isfinite, numbers))


def _failed(state: State, source: Trial, keys: Sequence[str], ablated: str = "") -> tuple[int, ...]:
    """The seeds that gave no numbers by their own fault."""
    return tuple(
        trial.seed
        for trial in state.of_stage(CONFIRM)
        if (trial.source, trial.budget, trial.ablated) == (source.id, 1, ablated)
        and trial.end is not None
        and not trial.end.by_machine
        and not _is_judged(trial, keys)
    )


def _values(trials: Sequence[Trial], key: str) -> list[float]:
    return [value(trial, key) for trial in trials]


def _by_seed(trials: Sequence[Trial], key: str) -> dict[int, float]:
    return {trial.seed: value(trial, key) for trial in trials}


def _or_worst(number: float) -> float:
    return -math.inf if math.isnan(number) else number


def _tested(folder: Path, trials: Sequence[Trial]) -> list[SplitEvidence]:
    """The evidence of test of each trial; none at all where a trial has left none."""
    found = [evidence.read(evidence.path_of(folder, trial.id)) for trial in trials]
    splits = [item.splits[TEST] for item in found if item is not None and TEST in item.splits]
    return splits if len(splits) == len(trials) else []


def _curves(splits: Sequence[SplitEvidence]) -> tuple[Curve, ...]:
    found = []
    for split in splits:
        if split.curve is None:
            return ()
        values = metrics_from_counts(counts_of_confusion(split.curve))
        found.append(tuple(zip(values[MACC].tolist(), values[MIOU].tolist(), strict=True)))
    return tuple(found)


def _image_interval(
    candidate: Sequence[SplitEvidence],
    control: Sequence[SplitEvidence],
    rules: Sequence[Rule],
    key: str,
) -> Interval | None:
    """The bootstrap interval; None without the counts of every trial."""
    metric = key.rpartition("/")[2]
    fields = {rule.test_miou: rule.counts_miou for rule in rules}
    fields |= {rule.test_macc: rule.counts_macc for rule in rules}
    ours, theirs = (
        [getattr(split, fields[key]) for split in side] for side in (candidate, control)
    )
    if not ours or not theirs or any(counts is None for counts in (*ours, *theirs)):
        return None
    return difference_interval(ours, theirs, candidate[0].groups, metric=metric)


def _best_confirmed(configs: Sequence[Confirmed], rule: Rule) -> tuple[str | None, str | None]:
    floor = next((c.mean(rule.val_miou) for c in configs if c.is_reference), None)
    sound = [c for c in configs if not c.failed] or configs
    kept = [c for c in sound if keeps_miou(c.mean(rule.val_miou), floor)]
    if not rule.has_macc:
        return sound[0].source, None
    by_macc = sorted(kept, key=lambda c: -_or_worst(c.mean(rule.val_macc)))
    return sound[0].source, by_macc[0].source if by_macc else None


def _best_so_far(state: State, rule: Rule) -> tuple[str | None, str | None]:
    full = state.completed(BASELINE, REFERENCE, SEARCH)
    reference = reference_trial(state)
    floor = value(reference, rule.val_miou) if reference else None
    by_miou = ranked(full, rule.val_miou)
    by_macc = [
        trial
        for trial in (ranked(full, rule.val_macc) if rule.has_macc else ())
        if keeps_miou(value(trial, rule.val_miou), floor)
    ]
    return by_miou[0].id if by_miou else None, by_macc[0].id if by_macc else None


def _at_the_edge(configs: Sequence[Confirmed]) -> Iterator[str]:
    """Name the configs whose best tau is the smallest or largest that is tried."""
    for config in configs:
        for name in (TAU_MIOU, TAU_MACC):
            taus = config.metrics.get(f"{VAL}/{name}", ())
            for edge in (TAUS[0], TAUS[-1]):
                if count := taus.count(edge):
                    yield (
                        f"{config.label} ({config.source}): {name} is {edge:g}, the end of what is "
                        f"tried, with {count} of {len(taus)} seeds: a better rule may lie beyond"
                    )


def _missing(
    state: State,
    configs: Sequence[Confirmed],
    sources: Sequence[Trial],
    failed: Mapping[str, Sequence[int]],
    tuned: bool,
) -> list[str]:
    """What the answer lacks, in words."""
    if not state.completed(BASELINE, REFERENCE, SEARCH):
        return ["no trial has reached the full budget yet"]
    plan = state.study.plan if state.study else {}
    num_seeds = _seeds(state)
    if state.selection is None:
        return ["the search is not over: nothing is confirmed yet"]
    lines = []
    if not state.selection_holds:
        lines.append("the search has gone on since: what is confirmed will be chosen anew")
    for what, planned, stages in (
        ("baselines", len(plan.get("baselines", ())), (BASELINE,)),
        ("searched trials", _searched(state), (REFERENCE, SEARCH)),
    ):
        begun = state.count(*stages)
        if begun < planned:
            lines.append(f"{planned - begun} of {planned} {what} were left out")
    if not num_seeds or not plan.get("confirm_top", 0):
        return [
            "the search space asks for no confirmation: every figure is of one seed, on val",
            *lines,
        ]
    if state.selection.reference is None:
        lines.append("no cross entropy trial reached the full budget: there is no reference")
    elif not tuned:
        lines.append(f"cross entropy was not tuned: the reference is {DEFAULT_CE}")
    if not state.selection.confirmed:
        lines.append("no loss but cross entropy reached the full budget: none is compared with it")
    by_source = {config.source: config for config in configs}
    for source in sources:
        done = len(by_source[source.id].seeds) if source.id in by_source else 0
        lost = len(failed[source.id])
        if done < num_seeds:
            failures = f" and {lost} failed" if lost else ""
            line = f"{done} of {num_seeds} seeds are confirmed{failures}"
            lines.append(f"{source.label} ({source.id}): {line}")
    keys = _judged_keys(rules_of(state))
    num_seeds = _planned_seeds(state)
    for source in rivals(state):
        for budget in _longer_budgets(state):
            done = len(_judged(state, source, keys, budget))
            if done < num_seeds:
                line = f"{done} of {num_seeds} seeds are trained for {budget} times the budget"
                lines.append(f"{source.label} ({source.id}): {line}")
    winner = best_other(state)
    return [*lines, *(_without_axes(state, winner, keys) if winner else ())]


def _searched(state: State) -> int:
    """The trials of the search, as far as nothing but a budget leaves any out."""
    plan = state.study.plan if state.study else {}
    if state.search_ended_after is None:
        return int(plan.get("num_trials", 0))
    return Plan.from_dict(plan).search_size(state.search_ended_after)


def _without_axes(state: State, winner: Trial, keys: Sequence[str]) -> Iterator[str]:
    num_seeds = _planned_seeds(state)
    for axis in _ablated(state, winner):
        done = len(_judged(state, winner, keys, ablated=axis))
        lost = len(_failed(state, winner, keys, axis))
        if done < num_seeds:
            failures = f" and {lost} failed" if lost else ""
            line = f"{done} of {num_seeds} seeds are trained without {in_words(axis)}{failures}"
            yield f"{winner.label} ({winner.id}): {line}"
