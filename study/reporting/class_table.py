"""The classes one by one as text: how often each occurs, and who finds it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from study.analysis.classes import Classes, Figures
from study.core.errors import printable
from study.core.names import TEST
from study.reporting.tables import MISSING, aligned, percent, points

MOST_CLASSES = 12  # of a terminal; the rarest come first
RAREST = 3  # classes that a line sums up
MOST_LETTERS = 24  # of a name


def class_columns(found: Classes, reference: str) -> tuple[str, ...]:
    """The column heads of `class_rows`."""
    winner = "winner" if found.split == TEST else "best"
    short = reference.replace("cross entropy", "CE")
    figures = "IoU / R / P"
    images = "images train / val / test"
    return (
        "class",
        "pixels",
        images,
        f"{short}: {figures}",
        f"{winner}: {figures}",
        "best val IoU",
    )


def class_rows(found: Classes) -> list[tuple[str, ...]]:
    """A row of text for each class, the rarest first; figures in %."""
    return [
        (
            _short(row.name),
            share(row.share),
            " / ".join(str(count) for count in row.images.values()) or MISSING,
            _figures(row.reference),
            _figures(row.winner),
            MISSING if row.best is None else f"{percent(row.best[2], 1)} ({row.best[0]})",
        )
        for row in found.rows
    ]


def class_notes(found: Classes, reference: str) -> Iterator[str]:
    """A line for each class that the reference misses."""
    for row in found.rows:
        if row.missed:
            yield f"class {row.name}: {reference} at its argmax: {row.missed}"


def rarest_line(found: Classes) -> str:
    """What the reference and the winner make of the rarest classes together; empty without a figure
    of them."""
    known = [
        (row.name, row.reference.iou, row.winner.iou)
        for row in found.rows
        if row.reference is not None and row.winner is not None
    ]
    rows = [one for one in known if math.isfinite(one[1]) and math.isfinite(one[2])][:RAREST]
    if not rows:
        return ""
    base = sum(one[1] for one in rows) / len(rows)
    best = sum(one[2] for one in rows) / len(rows)
    who = "the winner's" if found.split == TEST else "that of the best so far, by one seed on val,"
    return (
        f"Mean IoU of the rarest ({', '.join(_short(row[0]) for row in rows)}): {who} "
        f"{percent(best, 1)} %, the reference's {percent(base, 1)} % "
        f"({points(best - base)} points)."
    )


def class_explanation(found: Classes) -> str:
    """Where the figures of the table are measured."""
    means = "means over seeds on test" if found.split == TEST else "of one seed on val"
    means += f" of the proxy {found.proxy}" if found.proxy else ""
    return (
        "Classes, the rarest first: share of the training pixels, images that hold it, IoU, recall "
        f"and precision in %, {means}, at the rule that configs are ranked by."
    )


def class_lines(found: Classes, reference: str) -> list[str]:
    """The table of the rarest classes for a terminal or a log, and its notes; empty without
    classes. reference: its name."""
    if not found.rows:
        return []
    rows = class_rows(found)
    left = len(rows) - MOST_CLASSES
    more = [f"... and {left} more frequent classes, in the report"] if left > 0 else []
    table = aligned([class_columns(found, reference), *rows[:MOST_CLASSES]], left=1)
    return ["", class_explanation(found), *table, *more, *class_notes(found, reference)]


def _short(name: str) -> str:
    told = printable(name)
    return told if len(told) <= MOST_LETTERS else f"{told[: MOST_LETTERS - 1]}…"


def share(part: float) -> str:
    """A share of the pixels, in percent."""
    return MISSING if math.isnan(part) else f"{100 * part:.2g} %"


def _figures(of: Figures | None) -> str:
    if of is None:
        return MISSING
    return " / ".join(percent(one, 1) for one in (of.iou, of.recall, of.precision))
