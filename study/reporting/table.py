"""The end of a study in the terminal: the ranked table and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from study.analysis.answer import Answer, Confirmed
from study.names import TEST_MACC, TEST_MIOU, VAL_MIOU

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

COLUMNS = (
    "config",
    "trial",
    "seeds",
    "val mIoU",
    "test mIoU",
    "vs tuned CE (95 %)",
    "p",
    "test mAcc",
    "vs tuned CE (95 %)",
    "p",
)
MISSING = "-"


def percent(number: float, digits: int = 2) -> str:
    """A share in percent, without the sign: 0.4321 is 43.21."""
    return MISSING if math.isnan(number) else f"{100 * number:.{digits}f}"


def points(number: float) -> str:
    """A difference in percentage points, with its sign."""
    return f"{100 * number:+.2f}"


def p_value(p: float | None) -> str:
    """Three digits, or that it is smaller than they can say."""
    if p is None:
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def with_sd(config: Confirmed, key: str) -> str:
    """Mean and standard deviation over seeds."""
    spread = config.sd(key)
    text = percent(config.mean(key))
    return text if math.isnan(spread) else f"{text} ± {percent(spread)}"


def versus(config: Confirmed, key: str) -> str:
    """The difference to tuned cross entropy, and Dunnett's interval where there is one."""
    if config.is_reference:
        return "reference"
    against = config.versus.get(key)
    if against is None:
        return MISSING
    if against.interval is None:
        return points(against.difference)
    low, high = points(against.interval.low), points(against.interval.high)
    return f"{points(against.difference)} [{low}, {high}]"


def name(config: Confirmed, answer: Answer) -> str:
    """The label, and what the config is in this study."""
    roles = [
        ("best mIoU", config.source == answer.best_miou),
        ("best mAcc", config.source == answer.best_macc),
        ("tuned CE", config.is_reference),
        ("CE as the task states it", config.is_stated),
    ]
    notes = [role for role, holds in roles if holds]
    return f"{config.label} ({', '.join(notes)})" if notes else config.label


def rows(answer: Answer) -> list[tuple[str, ...]]:
    """The confirmed configs as text, best mean val mIoU first."""
    return [
        (
            name(config, answer),
            config.source,
            str(len(config.seeds)),
            percent(config.mean(VAL_MIOU)),
            with_sd(config, TEST_MIOU),
            versus(config, TEST_MIOU),
            _p(config, TEST_MIOU),
            with_sd(config, TEST_MACC),
            versus(config, TEST_MACC),
            _p(config, TEST_MACC),
        )
        for config in answer.configs
    ]


def _p(config: Confirmed, key: str) -> str:
    against = config.versus.get(key)
    return p_value(against.p) if against else ""


def conclusions(answer: Answer) -> Iterator[str]:
    """One line each: what the study comes to, and what it lacks."""
    if answer.confirmed:
        yield from _gain_lines(answer)
    elif answer.best_miou is not None:
        yield f"best so far, one seed, on val, unconfirmed: {answer.best_miou} (mIoU), " + (
            f"{answer.best_macc} (mAcc)"
        )
    notes = {against.note for item in answer.configs for against in item.versus.values()}
    yield from sorted(f"note: {note}" for note in notes if note)
    for line in answer.missing:
        yield f"missing: {line}"


def _gain_lines(answer: Answer) -> Iterator[str]:
    for what, source, key in (
        ("best_miou", answer.best_miou, TEST_MIOU),
        ("best_macc", answer.best_macc, TEST_MACC),
    ):
        config = answer.config(source)
        if config is None:
            continue
        gains = [
            f"{points(gain.absolute)} points ({100 * gain.relative:+.1f} %) over {over}"
            for over, other in (
                ("tuned cross entropy", answer.reference),
                ("cross entropy as the task states it", answer.stated),
            )
            if other is not config and (gain := answer.gain(source, other, key)) is not None
        ]
        verdict = _verdict(config, key)
        metric = "mIoU" if key == TEST_MIOU else "mean accuracy"
        head = f"{what}: {config.label}, test {metric} {with_sd(config, key)}"
        yield f"{head}: {', '.join([*gains, *verdict])}"


def _verdict(config: Confirmed, key: str) -> list[str]:
    if config.is_reference:
        others = "no other loss" if key == TEST_MIOU else "no other loss that keeps mIoU"
        return [f"{others} was better on val: it is tuned cross entropy"]
    against = config.versus.get(key)
    if against is None or against.interval is None:
        return []
    if against.interval.low > 0:
        return ["better than tuned cross entropy beyond the spread of seeds"]
    if against.interval.high < 0:
        return ["worse than tuned cross entropy on test"]
    return ["not told apart from tuned cross entropy"]


EXPLANATION = (
    "Ranked by val, judged on test; mean ± sd over seeds, in %. Differences in points, with "
    "Dunnett's 95 % intervals, simultaneous within each metric."
)


def table(answer: Answer) -> Table:
    """For a terminal, also one of 80 columns: what belongs to a figure stands below it."""
    from rich.table import Table

    shown = Table(
        title=f"{answer.study}: {answer.space} on {answer.task}",
        caption=EXPLANATION,
        show_lines=True,
    )
    for column in ("config", "val mIoU", "test mIoU", "test mAcc"):
        words = column == "config"
        shown.add_column(column, justify="left" if words else "right", no_wrap=not words)
    for config in answer.configs:
        count = len(config.seeds)
        cells = [
            f"{name(config, answer)}\n{config.source}, {count} seed{'s' * (count > 1)}",
            percent(config.mean(VAL_MIOU)),
            _judgement(config, TEST_MIOU),
            _judgement(config, TEST_MACC),
        ]
        best = config.source in (answer.best_miou, answer.best_macc)
        shown.add_row(*map(_literal, cells), style="bold" if best else "")
    return shown


def _judgement(config: Confirmed, key: str) -> str:
    p = _p(config, key)
    lines = [with_sd(config, key), versus(config, key), f"p {p}" if p else ""]
    return "\n".join(line for line in lines if line)


def _literal(cell: str) -> Text:
    """Brackets are no markup here."""
    from rich.text import Text

    return Text(cell)


def plain_table(answer: Answer) -> str:
    """For a pipe or a log: aligned columns, no colours."""
    lines = [COLUMNS, *rows(answer)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def print_answer(answer: Answer, file: TextIO | None = None) -> None:
    """The table, then one line for each thing that it comes to."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file)
    if answer.configs and console.is_terminal:
        console.print(table(answer))
    elif answer.configs:
        console.print(Text(plain_table(answer)), soft_wrap=True)
        console.print(Text(EXPLANATION), soft_wrap=True)
    for line in conclusions(answer):
        console.print(Text(line), soft_wrap=True)
