"""How much of a gain over cross entropy remains at the best decision rules, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator

from study.analysis.answer import Answer, Confirmed
from study.analysis.rules import ARGMAX, TUNED
from study.analysis.statistics import Comparison
from study.core.names import CE


def remaining_gains(answer: Answer) -> Iterator[str]:
    """Yield a sentence for mIoU and one for mean accuracy, of the config that is best by each.

    None where the study has not measured the tuned rules or nothing is confirmed.
    """
    reference = answer.reference
    if not answer.confirmed or reference is None or answer.primary != TUNED:
        return
    for metric, source, tuned, argmax in (
        ("mIoU", answer.best_miou, TUNED.test_miou, ARGMAX.test_miou),
        ("mean accuracy", answer.best_macc, TUNED.test_macc, ARGMAX.test_macc),
    ):
        config = answer.config(source)
        if config is None:
            continue
        if config.family == CE:
            said = _own_rule(answer, config, metric, tuned, argmax)
        else:
            said = _remaining(answer, config, metric, config.versus[argmax], config.versus[tuned])
        yield f"{said} ({_conditions(answer, config, reference)})."


def with_longer_budgets(answer: Answer) -> Iterator[str]:
    """Yield a sentence for each longer budget: what it adds to the reference, and what the best
    other loss then gains."""
    if answer.reference is None:
        return
    rule = "at their best decision rule" if answer.primary == TUNED else "at argmax"
    for one in answer.longer:
        seeds = f"{one.seeds} seed{'s' * (one.seeds != 1)}"
        yield (
            f"{one.budget} times the budget adds {_points(one.added)} points of test mIoU to "
            f"{answer.reference_name}; `{answer.ablation_of}` with as much training differs from "
            f"it by {_points(one.gain)}, both {rule}{_judged(one.gain)} "
            f"({answer.task}, {seeds}, {one.budget * answer.epochs} epochs)."
        )


def _remaining(
    answer: Answer, config: Confirmed, metric: str, argmax: Comparison, tuned: Comparison
) -> str:
    over, what = answer.reference_name, f"points of test {metric}"
    gains = "seems to gain" if argmax.interval and argmax.interval.low <= 0 else "gains"
    both = "when both are measured at their best decision rule"
    if argmax.difference <= 0:
        said = (
            f"At argmax `{config.label}` gains nothing over {over}, {_points(argmax)} {what}; "
            f"{both}, the difference is {_points(tuned)}"
        )
    elif tuned.difference <= 0:
        said = (
            f"Of the {_points(argmax)} {what} that `{config.label}` {gains} over {over} at argmax, "
            f"none remain {both}: the difference is {_points(tuned)}"
        )
    elif tuned.difference > argmax.difference:
        said = (
            f"`{config.label}` {gains} {_points(argmax)} {what} over {over} at argmax, and "
            f"{_points(tuned)} {both}"
        )
    else:
        said = (
            f"Of the {_points(argmax)} {what} that `{config.label}` {gains} over {over} at argmax, "
            f"{_points(tuned)} remain {both}"
        )
    return said + _judged(tuned)


def _judged(tuned: Comparison) -> str:
    if tuned.interval is None:
        return f", {tuned.note}"
    if tuned.interval.low > 0:
        return ""
    if tuned.interval.high < 0:
        return ", worse beyond the spread of seeds"
    return ", not told apart from 0"


def _own_rule(answer: Answer, config: Confirmed, metric: str, tuned: str, argmax: str) -> str:
    """The sentence where a cross entropy is the best."""
    name = answer.reference_name if config.is_reference else "default cross entropy"
    others = sum(item.family != CE and not item.failed for item in answer.configs)
    kept = " and kept mIoU" if tuned == TUNED.test_macc else ""
    first = (
        f"None of {others} confirmed losses was better than {name} on val{kept} when each is "
        "measured at its best decision rule"
        if others
        else f"No loss but cross entropy is confirmed: {name} is compared with none"
    )
    own = _number(config.mean(tuned) - config.mean(argmax))
    return f"{first}; its own rule moves its test {metric} by {own} points from argmax"


def _points(against: Comparison) -> str:
    found = _number(against.difference)
    if against.interval is None:
        return found
    return f"{found} [{_number(against.interval.low)}, {_number(against.interval.high)}]"


def _number(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _conditions(answer: Answer, config: Confirmed, reference: Confirmed) -> str:
    """Task, seeds and length: such a figure holds for these alone."""
    counts = sorted({len(config.seeds), len(reference.seeds)})
    seeds = " and ".join(map(str, counts)) + f" seed{'s' * (counts != [1])}"
    return f"{answer.task}, {seeds}, {answer.epochs} epoch{'s' * (answer.epochs != 1)}"
