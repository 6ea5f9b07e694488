"""The report of a study: a self-contained HTML page, a CSV of its numbers, its plots."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis import evidence
from study.analysis.answer import Answer
from study.analysis.classes import Classes, classes
from study.analysis.importance import Importances, importances, rated_trials
from study.analysis.option_epochs import OptionEpochs, option_epochs
from study.analysis.rules import TUNED, rules_of
from study.core.files import write_bytes, write_text
from study.core.names import BASELINE, CONFIRM, MACC, MIOU, REFERENCE, SEARCH, TEST
from study.core.yaml_text import as_yaml
from study.ledger.state import State, Trial
from study.metrics.decision import TAUS
from study.reporting import headline, pictures, plots
from study.reporting.class_table import (
    class_columns,
    class_explanation,
    class_notes,
    class_rows,
    rarest_line,
)
from study.reporting.exports import export
from study.reporting.page import document, drawing, escaped, image, png, sentence, sentences, table
from study.reporting.pictures import Pictures
from study.reporting.plan_text import warm_lines
from study.reporting.table_files import csv_cell, write_tables
from study.reporting.tables import (
    conclusions,
    explanation,
    is_best,
    percent,
    title,
    wide_columns,
    wide_rows,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REPORT, RESULTS, PLOTS = "report.html", "results.csv", "plots"
PICTURES, PREDICTIONS = "pictures", "predictions"
FIGURES = ("curves", "rules", "pareto", "differences", "per_class", "parallel", "importance")
PER_ROW = 3
MISSES = "missing: "  # begins a conclusion
FAIRNESS = (
    "The first proposals take each option equally often, and a part of the later ones takes those "
    "that the fewest trials had; the others go to what has done well. Trials that tune cross "
    "entropy count for the options that leave it as it is; beside it stands the share of what the "
    "sampler proposed."
)
CURVES = (
    "Each line is a confirmed config at the decision rules argmax(z - tau log pi), tau from "
    f"{TAUS[0]:g} on the left to {TAUS[-1]:g}, pi the fractions of the training pixels: mean over "
    "seeds, ± sd of mIoU. A loss is better where its curve lies outside; where two curves "
    "coincide, a decision rule does what the loss does."
)
PARALLEL = (
    "Each line is a trial, from parameter to parameter, to its val mIoU at the right, where all "
    "are equally long trained; the darker, the better. Names and ends stand beside each axis; "
    '"absent": a trial lacks the parameter, as its loss lacks the part. What is under the pointer '
    "says which trial it is."
)


def write_report(
    folder: Path, state: State, answer: Answer, *, trust: bool = False, price: float | None = None
) -> Path:
    """Write report.html, results.csv, answer.json, tables/ and plots/ into the study's folder;
    return the page's path.

    plots/<trial>/ of a confirmation trial holds its per-class metrics and its confusion matrix,
    plots/pictures/ the pictures of the page, plots/<trial>/predictions/ what the trial of the
    reference or of the winner predicts of the same images. `trust`: the factories that the study's
    tasks name may be imported for these. price: of a GPU-hour.
    """
    mattered = _importances(state)
    figures = dict(_figures(state, answer, mattered))
    for name, made in figures.items():
        write_bytes(folder / PLOTS / f"{name}.png", png(made))
    for name in {*FIGURES} - {*figures}:
        (folder / PLOTS / f"{name}.png").unlink(missing_ok=True)
    drawn = pictures.pictures(folder, state, answer, trust=trust)
    _write_pictures(folder / PLOTS, drawn)
    for trial in state.completed(CONFIRM):
        for name, one in _trial_figures(folder, state, trial):
            write_bytes(folder / PLOTS / trial.id / f"{name}.png", png(one))
    write_text(folder / RESULTS, results_csv(state))
    found = classes(state, folder, answer)
    write_tables(folder, answer, found)
    write_text(
        folder / REPORT, _page(folder, state, answer, found, figures, mattered, drawn, price)
    )
    return folder / REPORT


def write_page(folder: Path, state: State, answer: Answer, drawn: Pictures | str) -> Path:
    """Write report.html alone, with pictures that are drawn already, or why there are none; return
    its path."""
    mattered = _importances(state)
    figures = dict(_figures(state, answer, mattered))
    found = classes(state, folder, answer)
    page = _page(folder, state, answer, found, figures, mattered, drawn, None)
    write_text(folder / REPORT, page)
    return folder / REPORT


def _write_pictures(folder: Path, drawn: Pictures | str) -> None:
    written = {}
    if isinstance(drawn, Pictures):
        written = {folder / PICTURES / name: png for name, png in pictures.files(drawn.rows)}
        for side, trial in drawn.trials.items():
            for name, png in pictures.files_of_trial(drawn, side):
                written[folder / trial / PREDICTIONS / name] = png
    for path, png in written.items():
        write_bytes(path, png)
    for path in (*folder.glob(f"{PICTURES}/*.png"), *folder.glob(f"*/{PREDICTIONS}/*.png")):
        if path not in written:
            path.unlink()


def in_short(state: State, answer: Answer) -> str:
    """The sentences, table and first plots of a report, as part of another page."""
    parts = [*sentences(conclusions(answer))]
    if answer.configs:
        best = [is_best(config, answer) for config in answer.configs]
        parts.append(table(wide_columns(answer), wide_rows(answer), best))
    for name, one in _figures(state, answer):
        if name in ("curves", "rules"):
            parts.append(image(name, png(one)))
    return "\n".join(parts)


def study_picture(state: State, answer: Answer, path: Path) -> bool:
    """Write one PNG of a study: curves, trials, differences, classes, as far as there are any;
    return whether there are."""
    draws: list[Callable[[Axes], None]] = [
        partial(plots.curves, state=state, answer=answer, key=key)
        for key in _curve_keys(state, answer)[:1]
    ]
    if _has_curves(answer):
        draws.append(partial(plots.rule_curves, answer=answer))
    elif _has_front(state, answer):
        draws.append(partial(plots.pareto, state=state, answer=answer))
    if any(config.versus for config in answer.configs):
        draws.append(partial(plots.forest, answer=answer))
    best, reference = answer.config(answer.best_miou), answer.reference
    if best is not None and reference is not None and best is not reference:
        order = _by_frequency(state)
        draws.append(partial(plots.per_class, answer=answer, config=best, order=order))
    if not draws:
        return False
    across = min(2, len(draws))
    down = math.ceil(len(draws) / across)
    made, axes = plots.figure(6.5 * across, 4.25 * down, down, across)
    for one in axes.flat[len(draws) :]:
        one.set_axis_off()
    for one, draw in zip(axes.flat, draws, strict=False):
        draw(one)
    write_bytes(path, png(made))
    return True


def _figures(
    state: State, answer: Answer, mattered: Mapping[str, Importances] | None = None
) -> Iterator[tuple[str, Figure]]:
    """The figures of a report by name, each only where there is something in every axes."""
    if keys := _curve_keys(state, answer):
        made, axes = plots.figure(5.5 * len(keys), 4.2, 1, len(keys))
        for one, key in zip(axes.flat, keys, strict=True):
            plots.curves(one, state, answer, key, legend=False)
        plots.legend_below(made, axes[0, 0])
        yield "curves", made
    lines = [plots.config_name(config).count("\n") + 1 for config in answer.configs]
    if _has_curves(answer):
        made, axes = plots.figure(8, 5.6 + 0.085 * sum(lines))
        plots.rule_curves(axes[0, 0], answer)
        yield "rules", made
    elif _has_front(state, answer):
        made, axes = plots.figure(6.5, 4.8)
        plots.pareto(axes[0, 0], state, answer)
        yield "pareto", made
    if any(config.versus for config in answer.configs):
        room = 0.1 + 0.15 * len(answer.rules)
        metrics = (MIOU, MACC)[: len(answer.primary.judged)]
        height = 1.2 + sum(room + 0.17 * count for count in lines)
        made, axes = plots.figure(10, height * len(metrics), len(metrics), 1)
        for one, metric in zip(axes.flat, metrics, strict=True):
            plots.forest(one, answer, metric)
        yield "differences", made
    reference = answer.reference
    others = [config for config in answer.configs if config is not reference]
    order = _by_frequency(state)
    if reference is not None and others and order:
        across = min(PER_ROW, len(others))
        down = math.ceil(len(others) / across)
        made, axes = plots.figure(4.2 * across, (1.5 + 0.28 * len(order)) * down, down, across)
        for one in axes.flat[len(others) :]:
            one.set_axis_off()
        for one, config in zip(axes.flat, others, strict=False):
            plots.per_class(one, answer, config, order)
        yield "per_class", made
    yield from _search_figures(state, answer, mattered or {})


def _search_figures(
    state: State, answer: Answer, mattered: Mapping[str, Importances]
) -> Iterator[tuple[str, Figure]]:
    key = answer.primary.val_miou
    rated = rated_trials(state, key)
    trials = {trial.id: trial for trial, _ in rated}
    searched = sum(trial.stage == SEARCH for trial in trials.values())
    if searched > 1 and (paths := plots.varied(trials.values())):
        made, axes = plots.figure(max(8, 2 + 1.15 * len(paths)), 4.6)
        values = {trial.id: number for trial, number in rated}
        plots.parallel(axes[0, 0], trials, values, _at_rung(state, "val mIoU"), answer.best_miou)
        axes[0, 0].set_title("What was tried" + (f" on {answer.proxy}" * bool(answer.proxy)))
        yield "parallel", made
    found = {key: item for key, item in mattered.items() if item.items}
    if found:
        across = min(2, len(found))
        down = math.ceil(len(found) / across)
        made, axes = plots.figure(5.5 * across, 3.6 * down, down, across)
        for one in axes.flat[len(found) :]:
            one.set_axis_off()
        for one, (objective, item) in zip(axes.flat, found.items(), strict=False):
            plots.importance(one, item, objective, answer.proxy)
        yield "importance", made


def _at_rung(state: State, what: str) -> str:
    rungs = state.study.plan.get("rungs", ()) if state.study else ()
    return f"{what} (%)\nat epoch {rungs[0]}" if rungs else f"{what} (%)"


def _importances(state: State) -> dict[str, Importances]:
    objectives = state.study.plan["objectives"] if state.study else ()
    return {key: item for key in objectives if (item := importances(state, key)) is not None}


def _curve_keys(state: State, answer: Answer) -> list[str]:
    """The metrics whose learning curves there are."""
    trials = state.of_stage(BASELINE, REFERENCE, SEARCH)
    keys = (answer.primary.val_miou, answer.primary.val_macc)
    return [key for key in keys if any(plots.has_curve(trial, key) for trial in trials)]


def _has_front(state: State, answer: Answer) -> bool:
    return answer.primary.has_macc and bool(state.completed(BASELINE, REFERENCE, SEARCH))


def _has_curves(answer: Answer) -> bool:
    return any(config.curves for config in answer.configs)


def _trial_figures(folder: Path, state: State, trial: Trial) -> Iterator[tuple[str, Figure]]:
    order = _by_frequency(state)
    made, axes = plots.figure(5.5, 1.2 + 0.3 * len(order))
    plots.trial_classes(axes[0, 0], trial, order)
    yield "per_class", made
    found = evidence.read(evidence.path_of(folder, trial.id))
    if found is not None and TEST in found.splits:
        size = 2.5 + 0.35 * len(found.class_names)
        made, axes = plots.figure(size, size)
        plots.confusion(axes[0, 0], found.splits[TEST].confusion, found.class_names)
        axes[0, 0].set_title(f"{trial.id}: test at argmax, % of the target's pixels")
        yield "confusion", made


def _by_frequency(state: State) -> list[str]:
    """Class names, the most frequent first."""
    data = state.study.judged_data if state.study else {}
    names, fractions = data.get("class_names", []), data.get("class_fraction", [])
    if len(fractions) < len(names):
        return list(names)
    return [name for _, name in sorted(zip(fractions, names, strict=True), key=lambda x: -x[0])]


def _leaves(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, item in tree.items():
        path = f"{prefix}/{key}"
        if isinstance(item, dict):
            yield from _leaves(item, path)
        else:
            yield path, item


def _task_of(state: State, trial: Trial) -> str:
    assert state.study is not None
    return state.study.judged_task_name if trial.on_target else state.study.task_name


def results_csv(state: State) -> str:
    """One row per trial: its origin, outcome, loss and last epoch's metrics."""
    rows = []
    for trial in state.trials.values():
        row: dict[str, Any] = {
            "trial": trial.id, "stage": trial.stage, "label": trial.label,
            "family": trial.family, "status": trial.status or "unfinished",
            "reason": trial.end.reason if trial.end else "", "epochs": trial.epochs,
            "seed": trial.seed, "source": trial.source or "", "budget": trial.budget,
            "ablated": trial.ablated, "task": _task_of(state, trial),
        }  # fmt: skip
        for part in ("optimizer", "loss"):
            row |= dict(_leaves(trial.config.get(part, {}), part))
        rows.append({key: csv_cell(value) for key, value in {**row, **trial.last}.items()})
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _page(
    folder: Path,
    state: State,
    answer: Answer,
    found_classes: Classes,
    figures: Mapping[str, Figure],
    mattered: Mapping[str, Importances],
    drawn: Pictures | str,
    price: float | None,
) -> str:
    assert state.study is not None
    plot = {name: drawing(name, made) for name, made in figures.items()}
    parts = [*_top(folder, state, answer, found_classes, price)]
    notes = ("note", "warning")
    lines = [*conclusions(answer)]
    parts += [f'<p class="note">{sentence(line)}</p>' for line in lines if line.startswith(notes)]
    if lacking := [f"- {line.removeprefix(MISSES)}" for line in lines if line.startswith(MISSES)]:
        told = "".join(sentences(["What is missing:", *lacking]))
        parts.append(f'<div class="note">{told}</div>')
    if answer.configs:
        best = [is_best(config, answer) for config in answer.configs]
        shown = table(wide_columns(answer), wide_rows(answer), best)
        parts += ["<h2>Confirmed on fresh seeds</h2>", shown]
        parts += [f"<p>{escaped(explanation(answer))}</p>"]
    parts += sentences(line for line in lines if not line.startswith((*notes, MISSES)))
    if "rules" in plot:
        parts += [plot.pop("rules"), f"<p>{CURVES}</p>"]
    parts += [plot.pop(name) for name in ("pareto", "differences") if name in plot]
    if found_classes.rows:
        reference = answer.reference_name
        shown = table(class_columns(found_classes, reference), class_rows(found_classes))
        heads = [rarest_line(found_classes), class_explanation(found_classes)]
        parts += ["<h2>Classes</h2>", *(f"<p>{escaped(head)}</p>" for head in heads if head), shown]
        parts += [f"<p>{escaped(note)}</p>" for note in class_notes(found_classes, reference)]
    parts += [plot.pop("per_class")] if "per_class" in plot else []
    parts += _pictures_part(drawn)
    parts += _search_part(state, answer, plot, mattered)
    roles: dict[str, list[str]] = {}
    for role, source in (("best_miou", answer.best_miou), ("best_macc", answer.best_macc)):
        if source is not None:
            roles.setdefault(source, []).append(role)
    for source, names in roles.items():
        tree = export(state, answer, source)
        shown = as_yaml({key: tree[key] for key in ("loss", "optimizer", "seed")})
        parts.append(f"<h2>{', '.join(names)}: {source}</h2><pre>{escaped(shown)}</pre>")
    found = option_epochs(state)
    if any(item.epochs for item in found):
        parts += ["<h2>Epochs of the search</h2>", f"<p>{FAIRNESS}</p>", _shares_table(found)]
    at = f", at the {TUNED.name}" if answer.primary == TUNED else ""
    if answer.proxy:
        at += f"; those of stage confirm on {answer.task}, all others on its proxy {answer.proxy}"
    parts += [
        f"<h2>All trials{escaped(at)}</h2>",
        _trials_table(state),
        "<h2>How it was done</h2>",
        f"<pre>{escaped(chr(10).join(headline.reproduce(folder, state)))}</pre>",
    ]
    record = {
        "plan": state.study.plan,
        "data": state.study.data,
        **({"data_of_target": state.study.confirm_data} if answer.proxy else {}),
        "environment": state.study.environment,
    }
    parts.append(f"<pre>{escaped(as_yaml(record))}</pre>")
    return document(f"Study {answer.study}", parts)


def _search_part(
    state: State, answer: Answer, plot: Mapping[str, str], mattered: Mapping[str, Importances]
) -> Iterator[str]:
    """The section of the search: its plots, each with a sentence; nothing where there is none."""
    told = [
        plots.no_pattern(item, key, answer.proxy)
        for key, item in mattered.items()
        if not item.items
    ]
    assert state.study is not None
    warm = warm_lines(state.study)
    if not (plot or told or warm):
        return
    yield "<h2>The search</h2>"
    yield from sentences(warm)
    for name, words in (("curves", ""), ("parallel", PARALLEL), ("importance", "")):
        if name in plot:
            yield plot[name]
            yield f"<p>{words}</p>" if words else ""
    yield from (f"<p>{escaped(line)}</p>" for line in told)


def _pictures_part(drawn: Pictures | str) -> Iterator[str]:
    """The section of the pictures: rule, colours, a row for each image; or why there is none."""
    yield "<h2>Pictures</h2>"
    if isinstance(drawn, str):
        yield f"<p>No pictures of what is predicted: {escaped(drawn)}.</p>"
        return
    yield f"<p>{escaped(drawn.rule)}</p>"
    for what, colours in (("Difference", drawn.differences), ("Classes", drawn.classes)):
        told = "".join(
            f'<span><i style="background: rgb{colour}"></i>{escaped(name)}</span>'
            for name, colour in colours
        )
        yield f'<p class="key">{what}: {told}</p>'
    yield "<p>Ignored pixels are hatched.</p>"
    for row in drawn.rows:
        shown = "".join(
            f"<figure>{image(f'{name} of {row.name}', pictures.png(panel))}"
            f"<figcaption>{name}</figcaption></figure>"
            for name, panel in row.panels.items()
        )
        told = f"<b>{escaped(row.name)}</b>: {escaped(row.why)}"
        yield f'<section class="row"><p>{told}</p><div>{shown}</div></section>'


def _top(
    folder: Path, state: State, answer: Answer, found: Classes, price: float | None
) -> Iterator[str]:
    """The question, the answer in three sentences, its use, and what it cost."""
    yield f"<h1>{escaped(title(answer))}</h1>"
    yield f"<p>{sentence(headline.question(state, answer))}</p>"
    told = "".join(f"<p>{sentence(one)}</p>" for one in headline.sentences(state, answer, found))
    yield f'<div class="answer">{told}</div>'
    yield f"<p>{escaped(headline.cost(state, price))}</p>"
    if commands := headline.use(folder, state):
        yield f"<h2>How to use it</h2><pre>{escaped(chr(10).join(commands))}</pre>"


def _shares_table(found: Sequence[OptionEpochs]) -> str:
    columns = ("choice", "option", "trials", "epochs", "share", "of the sampler's", "equal share")
    lines = [
        (
            item.path,
            item.option,
            str(item.trials),
            str(item.epochs),
            f"{item.fraction:.1%}",
            f"{item.sampled:.1%}",
            f"{item.equal:.1%}",
        )
        for item in found
    ]
    return table(columns, lines)


def _trials_table(state: State) -> str:
    rule = rules_of(state)[0]
    columns = ("label", "trial", "stage", "status", "epochs", "val mIoU", "val mAcc", "reason")
    lines = [
        (
            trial.label,
            trial.id,
            trial.stage,
            trial.status or "unfinished",
            str(trial.epochs),
            percent(trial.last.get(rule.val_miou, float("nan"))),
            percent(trial.last.get(rule.val_macc, float("nan"))),
            trial.end.reason if trial.end else "",
        )
        for trial in state.trials.values()
    ]
    return table(columns, lines, pick=("stage", "status"))
