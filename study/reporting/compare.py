"""Studies side by side: one page and its tables as CSV, with what forbids a comparison on top."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis.answer import Answer, Confirmed, answer
from study.analysis.classes import Classes, ClassRow, classes
from study.analysis.comparable import Differences, differences
from study.analysis.rules import ARGMAX, TUNED, Rule
from study.core.files import write_text
from study.core.names import MACC, MIOU, TEST
from study.ledger.plan import Plan
from study.ledger.state import State
from study.reporting import headline, plots
from study.reporting.class_table import rarest_line, share
from study.reporting.page import document, drawing, escaped, facts, sentence, sentences, table
from study.reporting.table_files import confirmed_records, csv_text
from study.reporting.tables import (
    MISSING,
    conclusions,
    is_best,
    judgement,
    name,
    percent,
    points,
    precision,
    seeds,
    versus,
    with_sd,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Studies side by side"
OWN = (
    "Every difference and interval is between a loss and the reference of its own study; none is "
    "between losses of two studies."
)
CLASSES = (
    "IoU in % at the rule that configs are ranked by, the rarest class first: means over seeds on "
    "test, or of one seed on val where a study is not confirmed yet; gain: winner minus reference, "
    "in points."
)


@dataclass(frozen=True)
class Side:
    """A study beside others. name: what it is called here, which none of the others is."""

    name: str
    state: State
    answer: Answer
    classes: Classes


def sides(studies: Sequence[tuple[Path, State]]) -> list[Side]:
    """The studies in these folders; those of equal name are told apart by their folders."""
    found = [(folder, state, answer(state, folder)) for folder, state in studies]
    names = [one.study for _, _, one in found]
    return [
        Side(
            one.study if names.count(one.study) == 1 else str(folder),
            state,
            one,
            classes(state, folder, one),
        )
        for folder, state, one in found
    ]


def compare(sides: Sequence[Side]) -> Differences:
    """In what the studies differ but the loss."""
    return differences({side.name: (side.state, side.answer) for side in sides})


def write_comparison(
    path: Path, sides: Sequence[Side], unlike: Differences, price: float | None = None
) -> list[Path]:
    """Write the page, and beside it its tables as CSV: NAME.csv, and NAME_classes.csv where the
    classes are the same. Return their paths. price: of a GPU-hour."""
    tables = {path.with_suffix(".csv"): list(_records(sides))}
    if not other_classes(sides):
        tables[path.with_name(f"{path.stem}_classes.csv")] = list(_class_records(sides))
    for place, records in tables.items():
        write_text(place, csv_text(records))
    write_text(path, document(TITLE, _parts(sides, unlike, price)))
    return [path, *tables]


def _parts(sides: Sequence[Side], unlike: Differences, price: float | None) -> Iterator[str]:
    yield f"<h1>{TITLE}: {escaped(', '.join(side.name for side in sides))}</h1>"
    yield _beware(unlike)
    head = ("", *(side.name for side in sides))
    told = [_facts(side, price) for side in sides]
    yield facts(head, [(what, *(one[what] for one in told)) for what in told[0]])
    confirmed = [(side, config) for side in sides for config in side.answer.configs]
    if confirmed:
        rules = [rule for rule in (TUNED, ARGMAX) if any(rule in s.answer.rules for s in sides)]
        best = [is_best(config, side.answer) for side, config in confirmed]
        yield "<h2>Confirmed on fresh seeds</h2>"
        yield table(_columns(rules), [_row(*one, rules) for one in confirmed], best, pick=["study"])
        yield f"<p>Mean ± sd over seeds, in %, and differences in points. {OWN}</p>"
    if any(config.versus for _, config in confirmed):
        yield drawing("differences", _differences(sides))
    yield "<h2>Classes</h2>"
    if why := other_classes(sides):
        yield f"<p>{escaped(why)}</p>"
    else:
        yield f"<p>{CLASSES}</p>"
        yield table(_class_columns(sides), list(_class_rows(sides)))
    for side in sides:
        notes = [line for line in conclusions(side.answer) if line.startswith(("note", "warning"))]
        if notes:
            yield f"<h2>Notes of {escaped(side.name)}</h2>"
            yield from (f'<p class="note">{sentence(line)}</p>' for line in notes)


def _beware(unlike: Differences) -> str:
    """What forbids or limits a comparison."""
    if unlike.apart:
        told = (
            "<b>These studies are not comparable.</b> Their figures are of other data or other "
            "terms, so that a higher one is no better loss; differences within a study stand. "
            f"{OWN}"
        )
        return (
            f'<div class="beware note"><p>{told}</p>{_list([*unlike.apart, *unlike.limits])}</div>'
        )
    told = f"Equal terms: data, classes, size, network, schedule and metric are the same. {OWN}"
    if not unlike.limits:
        return f"<p>{told}</p>"
    return f'<div class="beware"><p>{told} They differ in:</p>{_list(unlike.limits)}</div>'


def _list(lines: Iterable[str]) -> str:
    return "".join(sentences(f"- {line}" for line in lines))


def _facts(side: Side, price: float | None) -> dict[str, str]:
    """What is said of a study, by what it is."""
    state, found = side.state, side.answer
    assert state.study is not None
    plan = Plan.from_dict(state.study.plan)
    data = state.study.judged_data
    images = ", ".join(f"{count} {split}" for split, count in data.get("num_images", {}).items())
    winner = found.config(found.best_miou) if found.confirmed else None
    return {
        "task": found.task + (f", searched on its proxy {found.proxy}" if found.proxy else ""),
        "data": f"{images or 'unknown'} images, {len(data.get('class_names', ()))} classes",
        "search space": found.space,
        "plan": (
            f"{len(plan.baselines)} baselines, {plan.num_trials} searched trials by "
            f"{plan.sampler}, {plan.reference_trials} of them cross entropy; top "
            f"{plan.confirm_top} on {plan.confirm_seeds} seeds; {found.epochs} epochs each"
        ),
        "state": _stage(side),
        "cost": headline.cost(state, price),
        "winner": _winner(side),
        "in full": "" if winner is None else headline.in_full(state, winner),
        **dict(_figures(found, winner)),
        "best by mean accuracy": _best_macc(found),
        "rarest classes": rarest_line(side.classes),
    }


def _stage(side: Side) -> str:
    if side.state.finished and side.answer.confirmed:
        return "finished"
    told = "confirmed" if side.answer.confirmed else "not confirmed yet"
    return "; ".join([told, *side.answer.missing])


def _winner(side: Side) -> str:
    found = side.answer
    if found.confirmed and (winner := found.config(found.best_miou)) is not None:
        return f"{winner.label} ({winner.source})"
    trial = side.state.trials.get(found.best_miou or "")
    if trial is None:
        return MISSING
    value = percent(trial.last.get(found.primary.val_miou, float("nan")))
    return f"none yet; best so far by one seed on val: {trial.label} ({trial.id}), mIoU {value} %"


def _best_macc(found: Answer) -> str:
    best = found.config(found.best_macc) if found.confirmed else None
    if best is None:
        return MISSING
    return "the winner" if best.source == found.best_miou else f"{best.label} ({best.source})"


def _figures(found: Answer, winner: Confirmed | None) -> Iterator[tuple[str, str]]:
    """The winner's figures and differences in both columns, and the reference's."""
    reference = found.reference
    for rule in (TUNED, ARGMAX):
        for metric, key in ((MIOU, rule.test_miou), (MACC, rule.test_macc)):
            what = f"{plots.METRICS[metric]}, {rule.name}"
            told = []
            if rule in found.rules and reference is not None:
                told.append(f"{found.reference_name} {with_sd(reference, key)} %")
            if rule in found.rules and winner is not None and winner is not reference:
                told += [f"winner {with_sd(winner, key)} %", f"{versus(winner, key)} points"]
                if images := winner.images.get(key):
                    told.append(f"over test images [{points(images.low)}, {points(images.high)}]")
            yield f"test {what}", "\n".join(told) or MISSING


def _columns(rules: Sequence[Rule]) -> tuple[str, ...]:
    judged = [f"test {metric}, {rule.name}" for metric in ("mIoU", "mAcc") for rule in rules]
    return ("config", "study", "trial", "seeds", "val mIoU", *judged, "test mPrec")


def _row(side: Side, config: Confirmed, rules: Sequence[Rule]) -> tuple[str, ...]:
    found = side.answer
    row = [name(config, found), side.name, config.source, seeds(config)]
    row.append(percent(config.mean(found.primary.val_miou)))
    for keys in ([rule.test_miou for rule in rules], [rule.test_macc for rule in rules]):
        for rule, key in zip(rules, keys, strict=True):
            row.append("\n".join(judgement(config, key)) if rule in found.rules else MISSING)
    row.append("\n".join(percent(config.mean(precision(rule))) for rule in found.rules))
    return tuple(row)


def _differences(sides: Sequence[Side]) -> Figure:
    """The differences of each study to its reference, over each other at one scale."""
    shown = [side for side in sides if any(config.versus for config in side.answer.configs)]
    counts = [sum(bool(config.versus) for config in side.answer.configs) for side in shown]
    made, axes = plots.figure(
        10, sum(1.2 + 0.7 * count for count in counts), len(shown), 1, heights=counts
    )
    for one, side in zip(axes.flat, shown, strict=True):
        plots.forest(one, side.answer, MIOU)
        one.set_title(plots.shorten(side.name), loc="left", pad=22)
    low, high = zip(*(one.get_xlim() for one in axes.flat), strict=True)
    for one in axes.flat:
        one.set_xlim(min(low), max(high))
    return made


def other_classes(sides: Sequence[Side]) -> str:
    """Why there is no table of classes side by side; empty where there is one."""
    if not all(side.classes.rows for side in sides):
        names = [side.name for side in sides if not side.classes.rows]
        return f"No table side by side: nothing is known yet of {', '.join(names)}."
    if len({frozenset(row.name for row in side.classes.rows) for side in sides}) > 1:
        return "No table side by side: the studies have other classes."
    return ""


def _class_columns(sides: Sequence[Side]) -> tuple[str, ...]:
    heads = [
        f"{side.name}{'' if side.classes.split == TEST else ' (val)'}: {what}"
        for side in sides
        for what in ("reference", "winner" if side.classes.split == TEST else "best", "gain")
    ]
    return ("class", *_shares(sides), *heads)


def _shares(sides: Sequence[Side]) -> dict[str, int]:
    """The columns of the classes' shares of the training pixels, and the study of each: one column
    where the shares are the same."""
    told = {tuple((row.name, row.share) for row in side.classes.rows) for side in sides}
    if len(told) == 1:
        return {"pixels": 0}
    return {f"{side.name}: pixels": at for at, side in enumerate(sides)}


def _class_rows(sides: Sequence[Side]) -> Iterator[tuple[str, ...]]:
    for rows in _by_class(sides):
        row = [rows[0].name, *(share(rows[at].share) for at in _shares(sides).values())]
        for one in rows:
            reference, winner = _iou(one.reference), _iou(one.winner)
            gain = winner - reference
            row += [percent(reference, 1), percent(winner, 1)]
            row.append(MISSING if math.isnan(gain) else points(gain))
        yield tuple(row)


def _by_class(sides: Sequence[Side]) -> Iterator[list[ClassRow]]:
    """The rows of each class in all studies, in the order of the first study."""
    others = [{row.name: row for row in side.classes.rows} for side in sides]
    for row in sides[0].classes.rows:
        yield [rows[row.name] for rows in others]


def _iou(of: Any) -> float:
    return float("nan") if of is None else float(of.iou)


def _records(sides: Sequence[Side]) -> Iterator[dict[str, Any]]:
    """A row for each confirmed config and rule, and one for a study that has none."""
    for side in sides:
        assert side.state.study is not None
        data = side.state.study.judged_data
        own = {
            "study": side.name,
            "task": side.answer.task,
            "data": str(data.get("fingerprint", ""))[:12],
            "confirmed": side.answer.confirmed,
        }
        rows = list(confirmed_records(side.answer))
        yield from ({**own, **row} for row in rows or [{}])


def _class_records(sides: Sequence[Side]) -> Iterator[dict[str, Any]]:
    for rows in _by_class(sides):
        for side, row in zip(sides, rows, strict=True):
            yield {
                "class": row.name,
                "study": side.name,
                "split": side.classes.split,
                "train_fraction": row.share,
                "reference_iou": _iou(row.reference),
                "winner_iou": _iou(row.winner),
            }
