"""The report of a study: a self-contained HTML page, a CSV of its numbers, its plots."""

from __future__ import annotations

import base64
import csv
import html
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis import evidence
from study.analysis.answer import Answer
from study.analysis.classes import Classes, classes
from study.analysis.importance import importances
from study.analysis.option_epochs import OptionEpochs, option_epochs
from study.analysis.rules import TUNED, rules_of
from study.core.errors import printable_lines
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
)
from study.reporting.exports import export
from study.reporting.pictures import Pictures
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
    from matplotlib.figure import Figure

REPORT, RESULTS, PLOTS = "report.html", "results.csv", "plots"
PICTURES, PREDICTIONS = "pictures", "predictions"
DPI = 110
PER_ROW = 3
FAIRNESS = (
    "However many of its trials are stopped, an option of a choice gets at least half of an equal "
    "share, short of one trial at most, which shows in a search of a few trials. Trials that tune "
    "cross entropy count for the options that leave it as it is; beside it stands the share of "
    "what the sampler proposed."
)
CURVES = (
    "Each line is a confirmed config at the decision rules argmax(z - tau log pi), tau from "
    f"{TAUS[0]:g} on the left to {TAUS[-1]:g}, pi the fractions of the training pixels: mean over "
    "seeds, ± sd of mIoU. A loss is better where its curve lies outside; where two curves "
    "coincide, a decision rule does what the loss does."
)
STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --line: #ddd; --block: #f6f6f6;
        --best: #eefaf2; --note: #a15c00; --answer: #12a150; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e4e4; --page: #17191c; --line: #44474c; --block: #24272b; --best: #173a26;
          --note: #e9a84c; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em;
       color: var(--text); background: var(--page); }
h1, h2, p { overflow-wrap: anywhere; }
.answer { border-left: 4px solid var(--answer); padding-left: 1em; font-size: 17px; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
td:not(:first-child):not(:last-child) { white-space: pre; }
tr.best { font-weight: 600; background: var(--best); }
img { max-width: 100%; display: block; }
.plot img { min-width: 600px; margin: 1em 0; background: #fff; border-radius: 6px; }
pre { background: var(--block); padding: 1em; overflow-x: auto; font-size: 12px; }
.scroll { overflow-x: auto; }
.note { color: var(--note); }
.key i { display: inline-block; width: .9em; height: .9em; margin: 0 .4em 0 1em; }
.key span { white-space: nowrap; }
.row div { display: grid; grid-template-columns: repeat(5, 1fr); gap: 8px; }
.row figure { margin: 0; }
.row img { width: 100%; image-rendering: pixelated; }
.row figcaption { font-size: 12px; }
@media (max-width: 600px) {
  .row div { grid-template-columns: repeat(2, 1fr); }
  h1 { font-size: 1.4em; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  :root { color-scheme: light; --text: #000; --page: #fff; --line: #bbb; --block: #f6f6f6;
          --best: #eefaf2; --note: #a15c00; }
  body { max-width: none; margin: 0; padding: 0; print-color-adjust: exact; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  table { font-size: 9px; width: 100%; }
  th, td { padding: 2px 4px; }
  td:first-child, td:last-child { overflow-wrap: anywhere; }
  td:not(:first-child):not(:last-child) { white-space: pre-line; }
  thead { display: table-header-group; }
  tr, img, .row, .answer { break-inside: avoid; }
  h2 { break-after: avoid; }
  .plot img { min-width: 0; max-height: 170mm; }
}
"""


def write_report(folder: Path, state: State, answer: Answer, *, trust: bool = False) -> Path:
    """Write report.html, results.csv, answer.json, tables/ and plots/ into the study's folder;
    return the page's path.

    plots/<trial>/ of a confirmation trial holds its per-class metrics and its confusion matrix,
    plots/pictures/ the pictures of the page, plots/<trial>/predictions/ what the trial of the
    reference or of the winner predicts of the same images. `trust`: the factories that the study's
    tasks name may be imported for these.
    """
    figures = {name: _png(one) for name, one in _figures(state, answer)}
    for name, picture in figures.items():
        write_bytes(folder / PLOTS / f"{name}.png", picture)
    drawn = pictures.pictures(folder, state, answer, trust=trust)
    _write_pictures(folder / PLOTS, drawn)
    for trial in state.completed(CONFIRM):
        for name, one in _trial_figures(folder, state, trial):
            write_bytes(folder / PLOTS / trial.id / f"{name}.png", _png(one))
    write_text(folder / RESULTS, results_csv(state))
    found = classes(state, folder, answer)
    write_tables(folder, answer, found)
    write_text(folder / REPORT, _page(folder, state, answer, found, figures, drawn))
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
    parts = [f"<p>{told}</p>" for told in map(_sentence, conclusions(answer))]
    if answer.configs:
        best = [is_best(config, answer) for config in answer.configs]
        parts.append(_table(wide_columns(answer), wide_rows(answer), best))
    for name, one in _figures(state, answer):
        if name in ("curves", "rules"):
            parts.append(_image(name, _png(one)))
    return "\n".join(parts)


def study_picture(state: State, answer: Answer, path: Path) -> None:
    """Write one PNG of a finished study: curves, trials, differences, classes."""
    made, axes = plots.figure(13, 8.5, 2, 2)
    plots.curves(axes[0, 0], state, answer, answer.primary.val_miou)
    if _has_curves(answer):
        plots.rule_curves(axes[0, 1], answer)
    elif answer.primary.has_macc:
        plots.pareto(axes[0, 1], state, answer)
    else:
        axes[0, 1].set_axis_off()
    plots.forest(axes[1, 0], answer)
    best, reference = answer.config(answer.best_miou), answer.reference
    if best is not None and reference is not None and best is not reference:
        plots.per_class(axes[1, 1], answer, best, _by_frequency(state))
    else:
        axes[1, 1].set_axis_off()
    write_bytes(path, _png(made))


def _figures(state: State, answer: Answer) -> Iterator[tuple[str, Figure]]:
    if any(trial.reports for trial in state.of_stage(BASELINE, REFERENCE, SEARCH)):
        keys = [answer.primary.val_miou, answer.primary.val_macc][: len(answer.primary.judged)]
        made, axes = plots.figure(5.5 * len(keys), 4.2, 1, len(keys))
        for one, key in zip(axes.flat, keys, strict=True):
            plots.curves(one, state, answer, key)
        yield "curves", made
    lines = [plots.config_name(config).count("\n") + 1 for config in answer.configs]
    if _has_curves(answer):
        made, axes = plots.figure(8, 5.6 + 0.085 * sum(lines))
        plots.rule_curves(axes[0, 0], answer)
        yield "rules", made
    elif state.completed(BASELINE, REFERENCE, SEARCH) and answer.primary.has_macc:
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
    objectives = state.study.plan["objectives"] if state.study else ()
    found = {key: item for key in objectives if (item := importances(state, key)) is not None}
    if found:
        down = math.ceil(len(found) / 2)
        made, axes = plots.figure(11, 3.6 * down, down, 2)
        for one in axes.flat[len(found) :]:
            one.set_axis_off()
        for one, (key, item) in zip(axes.flat, found.items(), strict=False):
            plots.importance(one, item, key, answer.proxy)
        yield "importance", made


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


def _png(made: Figure) -> bytes:
    buffer = io.BytesIO()
    with plots.literal(made):
        made.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _escaped(text: str) -> str:
    return html.escape(printable_lines(text))


def _sentence(line: str) -> str:
    return re.sub("`([^`]*)`", r"<code>\1</code>", _escaped(line))


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
    table = []
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
        table.append({key: csv_cell(value) for key, value in {**row, **trial.last}.items()})
    columns = list(dict.fromkeys(key for row in table for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue()


def _page(
    folder: Path,
    state: State,
    answer: Answer,
    found_classes: Classes,
    figures: dict[str, bytes],
    drawn: Pictures | str,
) -> str:
    assert state.study is not None
    plot = {
        name: f'<div class="scroll plot">{_image(name, picture)}</div>'
        for name, picture in figures.items()
    }
    parts = [*_top(folder, state, answer, found_classes)]
    notes = ("missing", "note", "warning")
    lines = [*conclusions(answer)]
    parts += [f'<p class="note">{_sentence(line)}</p>' for line in lines if line.startswith(notes)]
    if answer.configs:
        best = [is_best(config, answer) for config in answer.configs]
        shown = _table(wide_columns(answer), wide_rows(answer), best)
        parts += ["<h2>Confirmed on fresh seeds</h2>", shown]
        parts += [f"<p>{_escaped(explanation(answer))}</p>"]
    parts += [f"<p>{_sentence(line)}</p>" for line in lines if not line.startswith(notes)]
    if "rules" in plot:
        parts += [plot.pop("rules"), f"<p>{CURVES}</p>"]
    parts += [plot.pop(name) for name in ("pareto", "differences") if name in plot]
    if found_classes.rows:
        reference = answer.reference_name
        shown = _table(class_columns(found_classes, reference), class_rows(found_classes))
        parts += ["<h2>Classes</h2>", f"<p>{_escaped(class_explanation(found_classes))}</p>", shown]
        parts += [f"<p>{_escaped(note)}</p>" for note in class_notes(found_classes, reference)]
    parts += [plot.pop("per_class")] if "per_class" in plot else []
    parts += _pictures_part(drawn)
    parts += ["<h2>The search</h2>", *plot.values()] if plot else []
    roles: dict[str, list[str]] = {}
    for role, source in (("best_miou", answer.best_miou), ("best_macc", answer.best_macc)):
        if source is not None:
            roles.setdefault(source, []).append(role)
    for source, names in roles.items():
        tree = export(state, answer, source)
        shown = as_yaml({key: tree[key] for key in ("loss", "optimizer", "seed")})
        parts.append(f"<h2>{', '.join(names)}: {source}</h2><pre>{_escaped(shown)}</pre>")
    if found := option_epochs(state):
        parts += ["<h2>Epochs of the search</h2>", f"<p>{FAIRNESS}</p>", _shares_table(found)]
    at = f", at the {TUNED.name}" if answer.primary == TUNED else ""
    if answer.proxy:
        at += f"; those of stage confirm on {answer.task}, all others on its proxy {answer.proxy}"
    parts += [
        f"<h2>All trials{_escaped(at)}</h2>",
        _trials_table(state),
        "<h2>How it was done</h2>",
        f"<pre>{_escaped(chr(10).join(headline.reproduce(folder, state)))}</pre>",
    ]
    record = {
        "plan": state.study.plan,
        "data": state.study.data,
        **({"data_of_target": state.study.confirm_data} if answer.proxy else {}),
        "environment": state.study.environment,
    }
    parts.append(f"<pre>{_escaped(as_yaml(record))}</pre>")
    page_title = _escaped(f"Study {answer.study}")
    view = '<meta name="viewport" content="width=device-width">'
    head = f'<meta charset="utf-8">{view}<title>{page_title}</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _image(alt: str, content: bytes) -> str:
    code = base64.b64encode(content).decode()
    return f'<img alt="{_escaped(alt)}" src="data:image/png;base64,{code}">'


def _pictures_part(drawn: Pictures | str) -> Iterator[str]:
    """The section of the pictures: rule, colours, a row for each image; or why there is none."""
    yield "<h2>Pictures</h2>"
    if isinstance(drawn, str):
        yield f"<p>No pictures of what is predicted: {_escaped(drawn)}.</p>"
        return
    yield f"<p>{_escaped(drawn.rule)}</p>"
    for what, colours in (("Difference", drawn.differences), ("Classes", drawn.classes)):
        told = "".join(
            f'<span><i style="background: rgb{colour}"></i>{_escaped(name)}</span>'
            for name, colour in colours
        )
        yield f'<p class="key">{what}: {told}</p>'
    yield "<p>Ignored pixels are hatched.</p>"
    for row in drawn.rows:
        shown = "".join(
            f"<figure>{_image(f'{name} of {row.name}', pictures.png(panel))}"
            f"<figcaption>{name}</figcaption></figure>"
            for name, panel in row.panels.items()
        )
        told = f"<b>{_escaped(row.name)}</b>: {_escaped(row.why)}"
        yield f'<section class="row"><p>{told}</p><div>{shown}</div></section>'


def _top(folder: Path, state: State, answer: Answer, found: Classes) -> Iterator[str]:
    """The question, the answer in three sentences, its use, and what it cost."""
    yield f"<h1>{_escaped(title(answer))}</h1>"
    yield f"<p>{_sentence(headline.question(state, answer))}</p>"
    told = "".join(f"<p>{_sentence(one)}</p>" for one in headline.sentences(state, answer, found))
    yield f'<div class="answer">{told}</div>'
    yield f"<p>{_escaped(headline.cost(state))}</p>"
    if commands := headline.use(folder, state):
        yield f"<h2>How to use it</h2><pre>{_escaped(chr(10).join(commands))}</pre>"


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
    return _table(columns, lines)


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
    return _table(columns, lines)


def _table(
    columns: Sequence[str], lines: Iterable[Sequence[str]], best: Sequence[bool] = ()
) -> str:
    head = "".join(f"<th>{_escaped(column)}</th>" for column in columns)
    head = f"<thead><tr>{head}</tr></thead>"
    body = ""
    for index, line in enumerate(lines):
        kind = ' class="best"' if index < len(best) and best[index] else ""
        body += f"<tr{kind}>" + "".join(f"<td>{_escaped(cell)}</td>" for cell in line) + "</tr>\n"
    return f'<div class="scroll"><table>{head}<tbody>\n{body}</tbody></table></div>'
