"""The result of a study in the terminal: the ranked table and the conclusions."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn, TextIO

from study.analysis.ablation import Ablated, Effect
from study.analysis.answer import Answer, Confirmed
from study.analysis.longer import LadderEntry
from study.analysis.proxy import FEWEST, Foretold
from study.analysis.rules import ARGMAX, TUNED, Rule, prefix_of
from study.analysis.statistics import Comparison
from study.analysis.tuning import INSIDE, LR_SCALE, RANGE_EDGE, Tried, Tuning
from study.core.errors import printable, printable_lines
from study.core.names import CE, DEFAULT_CE, TEST_CALIBRATION, TEST_NLL
from study.reporting.remains import remaining_gains, with_longer_budgets

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

MISSING = "-"


def percent(number: float, digits: int = 2) -> str:
    """Format a fraction in percent, without the sign: 0.4321 is 43.21."""
    return MISSING if math.isnan(number) else f"{100 * number:.{digits}f}"


def points(number: float) -> str:
    """Format a difference in percentage points, with its sign."""
    return f"{100 * number:+.2f}"


def p_value(p: float | None) -> str:
    """Format a p-value with three digits, or as smaller than they can show."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def with_sd(config: Confirmed, key: str) -> str:
    """Format mean and standard deviation over seeds."""
    spread = config.sd(key)
    text = percent(config.mean(key))
    return text if math.isnan(spread) else f"{text} ± {percent(spread)}"


def versus(config: Confirmed, key: str) -> str:
    """Format the difference to the reference, and Dunnett's interval if there is one."""
    if config.is_reference:
        return "reference"
    against = config.versus.get(key)
    if against is None:
        return MISSING
    return difference(against)


def difference(against: Comparison) -> str:
    """Format a difference, and its interval if there is one."""
    if against.interval is None:
        return points(against.difference)
    low, high = points(against.interval.low), points(against.interval.high)
    return f"{points(against.difference)} [{low}, {high}]"


def name(config: Confirmed, answer: Answer) -> str:
    """The label of a config, and its role in this study."""
    roles = [
        ("best mIoU", answer.confirmed and config.source == answer.best_miou),
        ("best mAcc", answer.confirmed and config.source == answer.best_macc),
        ("tuned CE", answer.tuned and config.is_reference),
        ("default CE", config.is_default_ce),
    ]
    notes = [role for role, holds in roles if holds]
    return f"{config.label} ({', '.join(notes)})" if notes else config.label


def is_best(config: Confirmed, answer: Answer) -> bool:
    """Whether the config is confirmed as one of the best."""
    return answer.confirmed and config.source in (answer.best_miou, answer.best_macc)


def seeds(config: Confirmed) -> str:
    """The number of seeds behind the figures, and of those that failed."""
    count = len(config.seeds)
    return f"{count}, {len(config.failed)} failed" if config.failed else str(count)


def columns(answer: Answer) -> tuple[str, ...]:
    """The column heads of `rows`."""
    against = f"vs {'tuned CE' if answer.tuned else 'CE'}"
    judged = [part for metric in _metrics(answer) for part in (f"test {metric}", against, "p")]
    rule = ("rule",) if TUNED in answer.rules else ()
    calibration = ("test nll", "test cal. error") if _is_calibrated(answer) else ()
    return ("config", "trial", "seeds", *rule, "val mIoU", *judged, "test mPrec", *calibration)


def rows(answer: Answer) -> list[tuple[str, ...]]:
    """The confirmed configs as text, best mean val mIoU first: a row for each rule, the primary
    one first. What does not depend on the rule stands in the first row alone, but for the trial."""
    found = []
    for config in answer.configs:
        for rule in answer.rules:
            first = rule == answer.primary
            row = [name(config, answer) if first else "", config.source]
            row += [seeds(config) if first else ""]
            row += [rule.name] if TUNED in answer.rules else []
            row += [percent(config.mean(rule.val_miou))]
            for key in rule.judged:
                row += [with_sd(config, key), versus(config, key), _p(config, key)]
            row += [percent(config.mean(precision(rule)))]
            if _is_calibrated(answer):
                row += [nll(config), percent(config.mean(TEST_CALIBRATION))] if first else ["", ""]
            found.append(tuple(row))
    return found


def _metrics(answer: Answer) -> tuple[str, ...]:
    return ("mIoU", "mAcc") if answer.primary.has_macc else ("mIoU",)


def wide_columns(answer: Answer) -> tuple[str, ...]:
    """The column heads of `wide_rows`."""
    rules = [f", {rule.name}" if TUNED in answer.rules else "" for rule in answer.rules]
    judged = [f"test {metric}{rule}" for metric in _metrics(answer) for rule in rules]
    calibration = ("test nll, cal. error",) if _is_calibrated(answer) else ()
    return ("config", "trial", "seeds", "val mIoU", *judged, "test mPrec", *calibration)


def wide_rows(answer: Answer) -> list[tuple[str, ...]]:
    """A row for each confirmed config, the rules side by side: below each figure its difference to
    the reference and p."""
    found = []
    for config in answer.configs:
        row = [name(config, answer), config.source, seeds(config)]
        row += [percent(config.mean(answer.primary.val_miou))]
        for keys in zip(*(rule.judged for rule in answer.rules), strict=True):
            row += ["\n".join(judgement(config, key)) for key in keys]
        row += ["\n".join(percent(config.mean(precision(rule))) for rule in answer.rules)]
        if _is_calibrated(answer):
            row += [f"{nll(config)}\n{percent(config.mean(TEST_CALIBRATION))}"]
        found.append(tuple(row))
    return found


def precision(rule: Rule) -> str:
    """Mean precision on test: what a gain of recall costs in false positives."""
    return f"{prefix_of(rule.test_miou)}mprec"


def nll(config: Confirmed) -> str:
    """Format the mean negative log-likelihood of test, in nats."""
    number = config.mean(TEST_NLL)
    return MISSING if math.isnan(number) else f"{number:.3f}"


def _is_calibrated(answer: Answer) -> bool:
    return any(TEST_NLL in config.metrics for config in answer.configs)


def _p(config: Confirmed, key: str) -> str:
    against = config.versus.get(key)
    return p_value(against.p) if against else ""


def conclusions(answer: Answer) -> Iterator[str]:
    """Yield one line per conclusion of the study, and per limitation."""
    yield from remaining_gains(answer)
    yield from with_longer_budgets(answer)
    if answer.confirmed:
        yield from _gain_lines(answer)
    elif answer.best_miou is not None:
        on = f"val of the proxy {answer.proxy}" if answer.proxy else "val"
        by_macc = "" if answer.best_macc is None else f", {answer.best_macc} (mAcc)"
        yield f"best so far, one seed, on {on}, unconfirmed: {answer.best_miou} (mIoU){by_macc}"
    if answer.tuned and answer.tuning is not None:
        yield tuning_line(answer.tuning) + (f" (val of {answer.proxy})" if answer.proxy else "")
    if answer.foretold is not None:
        yield from _foretold_lines(answer, answer.foretold)
    if len(answer.ladder) > 1:
        yield "ladder, mean test mIoU and step (95 % interval of each by itself, paired by seed):"
        yield from map(_ladder_line, answer.ladder)
    if answer.ablation:
        yield (
            f"{answer.ablation_of}, each of its parts switched off by itself: test means without it"
            f"{_at(answer.primary, answer)}, and what it adds (95 % interval of each by itself, "
            "paired by seed; it describes):"
        )
        yield from map(_ablation_line, answer.ablation)
    yield from _resolution(answer)
    yield from _notes_of_comparisons(answer)
    for line in answer.notes:
        yield f"note: {line}"
    for line in answer.missing:
        yield f"missing: {line}"
    for line in answer.warnings:
        yield f"warning: {line}"


def tuning_line(tuning: Tuning) -> str:
    """The learning rates at which cross entropy was tried, with val mIoU, and where its best
    lies."""
    of = f" of {tuning.planned}" if tuning.completed < tuning.planned else ""
    count = tuning.planned if of else tuning.completed
    tried = ", ".join(f"{_settings(one)} {_outcome(one)}" for one in tuning.tried)
    beyond = "a wider one" if tuning.best == RANGE_EDGE else "one beyond"
    warned = f"; best at the {tuning.best}: {beyond} may make it better, and every gain smaller"
    inside = "" if tuning.best in (INSIDE, None) else warned
    rates = f"learning rate{'s' * (count > 1)}"
    return f"cross entropy tuned over {tuning.completed}{of} {rates}: {tried}{inside}"


def _settings(one: Tried) -> str:
    return " ".join(
        f"x{item:.3g}" if path == LR_SCALE else str(item) for path, item in one.settings.items()
    )


def _outcome(one: Tried) -> str:
    if one.value is None:
        return "unfinished"
    return percent(one.value, 1) if math.isfinite(one.value) else "failed or stopped"


def _foretold_lines(answer: Answer, found: Foretold) -> Iterator[str]:
    """How the proxy's ranking compares with the target's, and what taking its best costs."""
    head = f"proxy {answer.proxy}, target {answer.task}"
    count = f"{found.configs or 'no'} confirmed config{'s' * (found.configs != 1)}"
    rhos = ", ".join(f"{rho:+.2f} by {key}" for key, rho in found.correlations.items())
    if rhos:
        yield (
            f"{head}: Spearman's rank correlation of the proxy's val (one seed) with the target's "
            f"mean val over {count} is {rhos}; these are the proxy's best and cross entropies, so "
            "it says little of the whole space"
        )
    elif found.configs < FEWEST:
        yield f"{head}: {count}, too few for a rank correlation of the two tasks' val"
    else:
        yield f"{head}: val does not rank the {count} on both tasks, so there is no correlation"
    pick = f"the proxy's best by val, {found.pick.label} ({found.pick.id}),"
    if found.pick is found.best:
        yield f"{head}: {pick} is the target's best by val, too: no regret"
    elif found.regret is None:
        yield f"{head}: {pick} shares no seed with the target's best by val: no regret is known"
    else:
        interval = ", 95 % interval by itself, paired by seed" if found.regret.interval else ""
        yield (
            f"{head}: {pick} has a regret of {difference(found.regret)} points: test mIoU on the "
            f"target{_at(answer.primary, answer)} of its best by val, {found.best.label} "
            f"({found.best.id}), minus that of the pick{interval}"
        )


def _ladder_line(entry: LadderEntry) -> str:
    line = f"- {entry.name}: {percent(entry.mean)}, {entry.seeds} seed{'s' * (entry.seeds > 1)}"
    return line if entry.step is None else f"{line}, step {difference(entry.step)}"


def _ablation_line(part: Ablated) -> str:
    seeds = f"{part.seeds} seed{'s' * (part.seeds > 1)}"
    figures = (("mIoU", part.miou), ("mean accuracy", part.macc))
    told = "; ".join(f"{metric} {_effect(effect)}" for metric, effect in figures)
    return f"- without {part.axis}: {told}; {seeds}"


def _effect(effect: Effect) -> str:
    if effect.gain is None:
        return percent(effect.mean)
    verdict = f": {effect.verdict}" if effect.verdict else ""
    return f"{percent(effect.mean)}, it adds {difference(effect.gain)}{verdict}"


def _notes_of_comparisons(answer: Answer) -> Iterator[str]:
    """What is said beside the comparisons, once, with the metrics that it is said of."""
    places: dict[str, list[str]] = {}
    for rule in answer.rules:
        for metric, key in zip(("mIoU", "mean accuracy"), rule.judged, strict=False):
            said = {item.versus[key].note for item in answer.configs if key in item.versus}
            for note in sorted(said - {""}):
                places.setdefault(note, []).append(f"{metric}{_at(rule, answer)}")
    for note, of in places.items():
        everywhere = len(of) == sum(len(rule.judged) for rule in answer.rules)
        where = "" if everywhere else f"{', '.join(of)}: "
        yield f"note: {where}{note}"


def _resolution(answer: Answer) -> Iterator[str]:
    """The smallest differences that these seeds tell from none."""
    keys = {"mIoU": answer.primary.test_miou, "mean accuracy": answer.primary.test_macc}
    said = []
    for metric, key in keys.items():
        halves = sorted(
            100 * (against.interval.high - against.interval.low) / 2
            for config in answer.configs
            if (against := config.versus.get(key)) is not None and against.interval is not None
        )
        if halves:
            upto = f" to {halves[-1]:.1f}" if halves[-1] - halves[0] >= 0.05 else ""
            said.append(f"{halves[0]:.1f}{upto} points of {metric}")
    if said:
        rule = _at(answer.primary, answer).replace(" its", " the")
        yield f"smallest difference that these seeds tell from none{rule}: {', '.join(said)}"


def _gain_lines(answer: Answer) -> Iterator[str]:
    for what, source, metric in (
        ("best_miou", answer.best_miou, "mIoU"),
        ("best_macc", answer.best_macc, "mean accuracy"),
    ):
        config = answer.config(source)
        if config is None:
            continue
        for rule in answer.rules:
            key = rule.test_miou if metric == "mIoU" else rule.test_macc
            gains = [
                f"{points(gain.absolute)} points ({100 * gain.relative:+.1f} %) over {over}"
                for over, other in _references(answer).items()
                if other is not config and (gain := answer.gain(source, other, key)) is not None
            ]
            told = ", ".join([*gains, *_verdict(config, answer, rule, key)])
            measured = f"test {metric}{_at(rule, answer)} {with_sd(config, key)}"
            head = f"{what}: {config.label} ({source}), {measured}"
            yield f"{head}: {told}" if told else head


def _at(rule: Rule, answer: Answer) -> str:
    """The rule in words, where there are two."""
    if TUNED not in answer.rules:
        return ""
    return " at argmax" if rule == ARGMAX else " at its tuned rule"


def _references(answer: Answer) -> dict[str, Confirmed | None]:
    found = {answer.reference_name: answer.reference}
    return {**found, DEFAULT_CE: answer.default_ce} if answer.tuned else found


def _verdict(config: Confirmed, answer: Answer, rule: Rule, key: str) -> list[str]:
    reference = answer.reference_name
    if config.is_reference and rule != answer.primary:
        return []
    if config.is_reference:
        others = sum(item.family != CE and not item.failed for item in answer.configs)
        if not others:
            return [f"it is {reference}, and no other loss is confirmed"]
        kept = "" if key == rule.test_miou else " and kept mIoU"
        return [f"it is {reference}: none of {others} confirmed losses was better on val{kept}"]
    against = config.versus.get(key)
    if against is None or against.interval is None:
        return []
    if against.is_gain:
        return [f"better than {reference} beyond the spread of seeds"]
    if against.interval.high < 0:
        return [f"worse than {reference} on test"]
    return [f"not told apart from {reference}"]


def explanation(answer: Answer) -> str:
    """What the figures of the table are."""
    said = (
        "Ranked by val, judged on test; mean ± sd over seeds, in %. Differences to "
        f"{answer.reference_name} in points, with Dunnett's intervals over seeds: those of all "
        "configs and both metrics hold together in 95 %"
    )
    if TUNED in answer.rules:
        said += f" at the {TUNED.name}; at the argmax, which describes, those of one metric do"
    said += "."
    if TUNED in answer.rules:
        said += (
            " tuned rule: every training at the decision rule that its own val chose for the "
            "metric, which configs are ranked by; argmax: the largest logit, as papers report."
        )
    said += " mPrec, mean precision, falls with false positives" + (
        "; at the tuned rule, then at argmax." if TUNED in answer.rules else "."
    )
    if _is_calibrated(answer):
        said += (
            " nll (negative log-likelihood, not in %) and class-wise calibration error judge the "
            "probabilities, which weights for rare classes may distort; lower is better."
        )
    return said


FIGURES = ("val mIoU", "test mIoU", "test mAcc")
NARROWEST = 12  # characters that the config's column needs to be readable
FRAME = 13  # characters of borders and spaces around the table's four columns


def table(answer: Answer) -> Table:
    """The table for a terminal of 80 columns or more; details are below each figure."""
    from rich.table import Table

    shown = Table(title=_literal(title(answer)), caption=explanation(answer), show_lines=True)
    for column in ("config", *FIGURES):
        words = column == "config"
        shown.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for config in answer.configs:
        cells = ["\n".join(_head(config, answer)), *map("\n".join, _figures(config, answer))]
        style = "bold" if is_best(config, answer) else ""
        shown.add_row(*map(_literal, cells), style=style)
    return shown


def listing(answer: Answer) -> Text:
    """A block of lines for each config, for a terminal too narrow for the table."""
    blocks = [title(answer)]
    width = max(map(len, FIGURES))
    for config in answer.configs:
        label, *origin = _head(config, answer)
        block = [label, *(f"  {line}" for line in origin)]
        for rule in answer.rules:
            for figure, lines in zip(FIGURES, _figures_at(config, answer, rule), strict=True):
                heads = [figure, *[""] * (len(lines) - 1)]
                block += [
                    f"  {head:{width}}  {line}" for head, line in zip(heads, lines, strict=True)
                ]
        blocks.append("\n".join(block))
    return _literal("\n\n".join([*blocks, explanation(answer)]))


def fitting(answer: Answer, width: int) -> Table | Text:
    """The table if its figures and readable config names fit into `width` columns, else the
    list."""
    found = [_figures(config, answer) for config in answer.configs]
    needed = sum(
        max(len(head), *(len(line) for lines in column for line in lines))
        for head, column in zip(FIGURES, zip(*found, strict=True), strict=True)
    )
    return table(answer) if width >= FRAME + NARROWEST + needed else listing(answer)


def title(answer: Answer) -> str:
    """The name of the study, its space, and the tasks that it was confirmed and searched on."""
    searched = f", searched on its proxy {answer.proxy}" if answer.proxy else ""
    return f"{answer.study}: {answer.space} on {answer.task}{searched}"


def _head(config: Confirmed, answer: Answer) -> list[str]:
    count = len(config.seeds)
    failed = f", {len(config.failed)} failed" if config.failed else ""
    lines = [name(config, answer), f"{config.source}, {count} seed{'s' * (count > 1)}{failed}"]
    precisions = " / ".join(percent(config.mean(precision(rule))) for rule in answer.rules)
    lines.append(f"mean precision {precisions}")
    if _is_calibrated(answer):
        lines.append(f"nll {nll(config)}, cal. error {percent(config.mean(TEST_CALIBRATION))}")
    return lines


def _figures(config: Confirmed, answer: Answer) -> list[list[str]]:
    """The lines below each of FIGURES: those of the primary rule, then of the other beside it."""
    found: list[list[str]] = [[] for _ in FIGURES]
    for rule in answer.rules:
        height = max(map(len, found))
        for lines, more in zip(found, _figures_at(config, answer, rule), strict=True):
            lines.extend([""] * (height - len(lines)) + more)
    return found


def _figures_at(config: Confirmed, answer: Answer, rule: Rule) -> list[list[str]]:
    named = [rule.name] if TUNED in answer.rules else []
    val = [*named, percent(config.mean(rule.val_miou))]
    return [val, judgement(config, rule.test_miou), judgement(config, rule.test_macc)]


def judgement(config: Confirmed, key: str) -> list[str]:
    """The lines of a metric: mean and spread, the difference to the reference, p."""
    p = _p(config, key)
    lines = [with_sd(config, key), versus(config, key), f"p {p}" if p else ""]
    return [line for line in lines if line]


def _literal(cell: str) -> Text:
    """Text in which brackets are not markup."""
    from rich.text import Text

    return Text(printable_lines(cell))


def plain_table(answer: Answer) -> str:
    """The table for a pipe or a log: aligned columns, no colours."""
    return "\n".join(aligned([columns(answer), *rows(answer)]))


def aligned(lines: Sequence[Sequence[str]], left: int = 2) -> list[str]:
    """Rows of equal length as lines with columns; the first `left` ones begin at their left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def print_answer(answer: Answer, file: TextIO | None = None) -> None:
    """Print the table, then one line per conclusion."""
    from rich.console import Console
    from rich.text import Text

    class Printed(Console):
        def on_broken_pipe(self) -> NoReturn:
            """Raise, as `print` does; rich would end the process with exit code 1."""
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    console = Printed(file=file)
    if answer.configs and console.is_terminal:
        console.print(fitting(answer, console.width))
    elif answer.configs:
        console.print(_literal(plain_table(answer)), soft_wrap=True)
        console.print(Text(explanation(answer)), soft_wrap=True)
    for line in conclusions(answer):
        console.print(Text(printable(line)), soft_wrap=True)
