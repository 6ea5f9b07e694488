"""The plots of a study; every function draws into given axes and returns nothing."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from study.analysis.answer import Answer, Confirmed
from study.analysis.importance import Importances
from study.analysis.rules import ARGMAX, TUNED, Rule, prefix_of
from study.analysis.selection import reference_trial, value
from study.core.errors import printable, printable_lines
from study.core.names import (
    BASELINE,
    CE,
    COMPLETED,
    MACC,
    MIOU,
    REFERENCE,
    SEARCH,
    STOPPED_EARLY,
    TEST,
    VAL_MACC,
    VAL_MIOU,
    VAL_TUNED_MACC,
    VAL_TUNED_MIOU,
)
from study.ledger.state import State, Trial
from study.reporting.tables import difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CE_COLOR, OTHER_COLOR, BASELINE_COLOR, STOPPED_COLOR = "#d1495b", "#1f6f8b", "#8a5fbf", "#b8b8b8"
BEST_COLOR = "#12a150"
CURVE_COLORS = (OTHER_COLOR, "#e08e0b", BASELINE_COLOR, "#7a5230", "#d16ba5", "#444444")
METRICS = {MIOU: "mIoU", MACC: "mean accuracy"}
TITLES = {VAL_MIOU: "val mIoU", VAL_MACC: "val mean accuracy"}
TITLES |= {VAL_TUNED_MIOU: "val mIoU at the tuned rule"}
TITLES |= {VAL_TUNED_MACC: "val mean accuracy at the tuned rule"}
MARGIN = 3.0  # points that the curves of decision rules are shown beyond the rules that were chosen
LINE, MAX_LINES = 44, 3
MOST_NAMED = 8  # learning curves that a legend names
MOST_POINTS = 40  # of a learning curve, that tell their value
TIP = "tip:"  # begins the id of an artist that tells the rest of it under the pointer
UNUSED = -0.14  # where parallel coordinates show a parameter that a trial does not have


def figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    *,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    """Make a figure without a display; its axes are an array (rows, columns). heights: of the rows,
    in proportion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for one in axes.flat:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.6)
        one.set_axisbelow(True)
    return made, axes


@contextmanager
def literal(made: Figure) -> Iterator[None]:
    """Draw the texts of a figure as they are: `$` and `_` of names are no formulas. A letter that
    the font lacks is a box, without a warning."""
    from matplotlib.text import Text

    for text in made.findobj(Text):
        text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def shown_names(names: Sequence[str], *, lines: bool = False) -> list[str]:
    """The names of classes beside an axis, which long ones would leave no room."""
    told = map(printable_lines if lines else printable, names)
    return [one if len(one) <= LINE else f"{one[: LINE - 1]}…" for one in told]


def _kind(trial: Trial, best: str | None) -> tuple[str, str, int]:
    """The legend entry, colour and layer of a trial."""
    if trial.id == best:
        return "best", BEST_COLOR, 5
    if trial.status == STOPPED_EARLY:
        return "stopped early", STOPPED_COLOR, 1
    if trial.family == CE:
        return "cross entropy", CE_COLOR, 4
    if trial.stage == BASELINE:
        return "other baseline", BASELINE_COLOR, 3
    return "searched", OTHER_COLOR, 2


def _legend(axes: Axes, **options: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        unique = dict(zip(labels, handles, strict=True))
        axes.legend(list(unique.values()), list(unique), frameon=False, fontsize=8, **options)


def tip(text: str) -> str:
    """The id of an artist that tells this text under the pointer, where a page shows it."""
    return TIP + printable_lines(text)


def legend_below(made: Figure, axes: Axes) -> None:
    """Give a figure the legend of one of its axes, below all of them; it grows by as much."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    lines = sum(label.count("\n") + 1 for label in unique)
    width, height = made.get_size_inches()
    made.set_size_inches(width, height + 0.3 + 0.1 * lines)
    made.legend(
        list(unique.values()), list(unique), loc="outside lower left", ncols=2, frameon=False,
        fontsize=8,
    )  # fmt: skip


def _title(key: str) -> str:
    return TITLES.get(key) or shown_names([key])[0]


def shorten(label: str) -> str:
    """Wrap a label into lines that leave room for the plot."""
    return "\n".join(textwrap.wrap(printable(label), LINE, max_lines=MAX_LINES, placeholder=" …"))


def config_name(config: Confirmed) -> str:
    """The unique name of a config, in lines."""
    role = " (default)" if config.is_default_ce else ""
    return shorten(f"{config.source} {config.label}{role}")


def _on_proxy(proxy: str) -> str:
    return f" on the proxy {shown_names([proxy])[0]}" if proxy else ""


def has_curve(trial: Trial, key: str) -> bool:
    """Whether the trial has a learning curve of a metric."""
    return any(math.isfinite(report.get(key, math.nan)) for report in trial.reports.values())


def _named(state: State, answer: Answer) -> dict[str, tuple[str, str]]:
    """The trials whose learning curves are named: by id, what each is, and its colour."""
    reference = answer.reference
    if reference is None and not answer.configs:
        best, tuned = state.trials.get(answer.best_miou or ""), reference_trial(state)
        found = {} if tuned is None else {tuned.id: ("best cross entropy", CE_COLOR)}
        return found if best is None else {best.id: ("best so far", BEST_COLOR), **found}
    best_role = "winner" if answer.confirmed else "best so far"
    found = {} if answer.best_miou is None else {answer.best_miou: (best_role, BEST_COLOR)}
    if reference is not None:
        found[reference.source] = ("reference", CE_COLOR)
    others = [config for config in answer.configs if config.source not in found]
    for index, config in enumerate(others[: MOST_NAMED - len(found)]):
        color = "#e9a3ad" if config.family == CE else CURVE_COLORS[index % len(CURVE_COLORS)]
        found[config.source] = ("confirmed", color)
    if answer.confirmed and reference is not None and answer.best_miou == reference.source:
        found[reference.source] = ("winner and reference", BEST_COLOR)
    return found


def curves(axes: Axes, state: State, answer: Answer, key: str, *, legend: bool = True) -> None:
    """Plot every trial's metric by epoch, in %; rungs are dotted lines. The winner, the reference
    and other confirmed configs have names."""
    from matplotlib.ticker import MaxNLocator

    named = _named(state, answer)
    rungs = state.study.plan.get("rungs", ()) if state.study else ()
    shown = [
        trial for trial in state.of_stage(BASELINE, REFERENCE, SEARCH) if has_curve(trial, key)
    ]
    order = {trial: index for index, trial in enumerate(named)}
    for trial in sorted(shown, key=lambda one: order.get(one.id, len(order))):
        kind, color, layer = _kind(trial, None)
        label = f"other: {kind.removeprefix('other ')}"
        if trial.id in named:
            role, color = named[trial.id]
            label, layer = shorten(f"{role}: {trial.id} {trial.label}"), 6
        epochs = [epoch for epoch, report in sorted(trial.reports.items()) if key in report]
        values = [100 * trial.reports[epoch][key] for epoch in epochs]
        head = f"{trial.id} {trial.label}\n"
        last = f"{trial.status or 'unfinished'}, epoch {epochs[-1]}: {values[-1]:.2f} %"
        axes.plot(
            epochs, values, color=color, linewidth=2.2 if trial.id in named else 1.0,
            alpha=1.0 if trial.id in named else 0.45, zorder=layer, label=label,
            gid=tip(head + last), rasterized=len(shown) > 200 and trial.id not in named,
        )  # fmt: skip
        if trial.id in named:
            step = math.ceil(len(epochs) / MOST_POINTS)
            for epoch, number in [*zip(epochs, values, strict=True)][::-step]:
                axes.plot(
                    epoch, number, "o", color=color, markersize=3, zorder=layer,
                    gid=tip(f"{head}epoch {epoch}: {number:.2f} %"),
                )  # fmt: skip
        elif trial.status != COMPLETED:
            axes.plot(epochs[-1], values[-1], "o", color=color, markersize=3.5, zorder=layer)
    for epoch in rungs:
        axes.axvline(epoch, color="black", linestyle=":", linewidth=1, label="rung")
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{_title(key)} (%)")
    axes.set_title("Learning curves" + _on_proxy(answer.proxy))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if legend:
        _legend(axes, loc="lower right")


def parallel(
    axes: Axes,
    trials: Mapping[str, Trial],
    values: Mapping[str, float],
    what: str,
    best: str | None,
) -> None:
    """Plot each trial as a line through its parameters, and at the right `values`, in %, which
    `what` names; the darker, the higher. Below an axis: a trial that lacks the parameter."""
    from matplotlib import colormaps

    paths = varied(trials.values())
    scales = [
        _Scale.of([(trial.params or {}).get(path) for trial in trials.values()]) for path in paths
    ]
    scales.append(_Scale.of([100 * value for value in values.values()]))
    for source, trial in sorted(trials.items(), key=lambda item: values[item[0]]):
        params, score = trial.params or {}, 100 * values[source]
        line = [params.get(path) for path in paths] + [score]
        told = "\n".join(f"{path}: {_told(params[path])}" for path in paths if path in params)
        shade = colormaps["viridis_r"](0.1 + 0.8 * scales[-1].at(score))
        axes.plot(
            range(len(line)),
            [scale.at(one) for scale, one in zip(scales, line, strict=True)],
            color=BEST_COLOR if source == best else shade,
            linewidth=2.6 if source == best else 1.1,
            alpha=1.0 if source == best else 0.75,
            zorder=4 if source == best else 2,
            label="winner" if source == best else None,
            gid=tip(f"{source} {trial.label}: {score:.2f} %\n{told}"),
        )
    for place, scale in enumerate(scales):
        axes.axvline(place, color="black", linewidth=0.8, zorder=1)
        for mark, text in scale.marks.items():
            axes.text(
                place, mark, f" {text}", fontsize=7, zorder=5, va="center",
                bbox={"facecolor": "white", "alpha": 0.65, "linewidth": 0, "pad": 0.4},
            )  # fmt: skip
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_yticks([])
    axes.set_ylim(UNUSED - 0.06, 1.06)
    names = [path.removeprefix("loss/").replace("/", "/\n") for path in paths]
    axes.set_xticks(range(len(scales)), [*shown_names(names, lines=True), what], fontsize=8)
    _legend(axes, loc="lower right", bbox_to_anchor=(1, 1))


def varied(trials: Iterable[Trial]) -> list[str]:
    """The parameters that differ among trials, those of each subtree together."""
    found: dict[str, set[Any]] = {}
    for trial in trials:
        for path, item in (trial.params or {}).items():
            found.setdefault(path, set()).add(item)
    return sorted(path for path, items in found.items() if len(items) > 1)


def _told(item: Any) -> str:
    return f"{item:.3g}" if isinstance(item, float) else str(item)


@dataclass(frozen=True)
class _Scale:
    """An axis of parallel coordinates: numbers between their ends, by their logarithms where these
    are a factor of ten apart; names as steps."""

    steps: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    lacks: bool = False

    @classmethod
    def of(cls, items: Sequence[Any]) -> _Scale:
        held = [item for item in items if item is not None]
        lacks = len(held) < len(items)
        if any(isinstance(item, (str, bool)) for item in held):
            return cls(tuple(sorted(set(map(str, held)))), lacks=lacks)
        low, high = float(min(held)), float(max(held))
        return cls((), low, high, low > 0 and high >= 10 * low, lacks)

    def at(self, item: Any) -> float:
        """Where a value lies, from 0 to 1."""
        if item is None:
            return UNUSED
        if self.steps:
            return self.steps.index(str(item)) / max(1, len(self.steps) - 1)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(item / self.low) / math.log(self.high / self.low)
        return (float(item) - self.low) / (self.high - self.low)

    @property
    def marks(self) -> dict[float, str]:
        """What is written beside the axis, and where."""
        found = {self.at(step): step for step in self.steps}
        if not self.steps:
            found = {self.at(end): f"{end:.3g}" for end in (self.low, self.high)}
        return {**found, UNUSED: "absent"} if self.lacks else found


def pareto(axes: Axes, state: State, answer: Answer) -> None:
    """Plot full-budget trials by the first two objectives, in %. Rings: confirmed; line: the
    front, if there are at most two objectives and it is of these trials."""
    objectives = tuple(state.study.plan["objectives"] if state.study else ())
    across, up = objectives[:2] if len(objectives) > 1 else (VAL_MIOU, VAL_MACC)
    for trial in state.completed(BASELINE, REFERENCE, SEARCH):
        x, y = 100 * value(trial, across), 100 * value(trial, up)
        label, color, layer = _kind(trial, answer.best_miou)
        axes.plot(
            x, y, "o", color=color, markersize=6, zorder=layer, label=label,
            gid=tip(f"{trial.id} {trial.label}\n{x:.2f} %, {y:.2f} %"),
        )  # fmt: skip
        if answer.config(trial.id):
            axes.plot(
                x, y, "o", markersize=11, markerfacecolor="none", markeredgecolor="black",
                zorder=6, label="confirmed",
            )  # fmt: skip
    if len(objectives) == 2 and not answer.proxy:
        front = [state.trials[trial] for trial in answer.pareto]
        xs, ys = ([100 * value(trial, key) for trial in front] for key in (across, up))
        axes.plot(xs, ys, color="black", linewidth=1, alpha=0.6, zorder=1, label="Pareto front")
    axes.set_xlabel(f"{_title(across)} (%)")
    axes.set_ylabel(f"{_title(up)} (%)")
    axes.set_title("Full-budget trials, one seed" + _on_proxy(answer.proxy))
    _legend(axes, loc="best")


def rule_curves(axes: Axes, answer: Answer) -> None:
    """Plot mean accuracy and mIoU of test of the confirmed configs over all decision rules, in %.

    Lines are means over seeds at equal tau, bands ± sd of the mIoU; the marks are the rules that
    are judged, each at the mean of its own seeds.
    """
    shown = [config for config in answer.configs if config.curves]
    others = [c for c in shown if c.family != CE and c.source != answer.best_miou]
    colors = {c.source: CURVE_COLORS[i % len(CURVE_COLORS)] for i, c in enumerate(others)}
    rules = (
        ("argmax", "o", "white", ARGMAX.test_macc, ARGMAX.test_miou),
        ("tuned for mIoU", "D", None, f"{prefix_of(TUNED.test_miou)}{MACC}", TUNED.test_miou),
        (
            "tuned for mAcc",
            "s",
            None,
            TUNED.test_macc,
            f"{prefix_of(TUNED.test_macc)}{MIOU}",
        ),
    )
    marks = []
    for config in shown:
        color = CE_COLOR if config.family == CE else colors.get(config.source, BEST_COLOR)
        # (seeds, taus, 2)
        points = 100 * np.asarray(config.curves)
        x, y = points.mean(0).T
        spread = points[..., 1].std(0, ddof=1) if len(points) > 1 else np.zeros_like(y)
        secondary = config.family == CE and not config.is_reference
        axes.fill_between(x, y - spread, y + spread, color=color, alpha=0.13, linewidth=0)
        axes.plot(
            x, y, color=color, linewidth=1.6, linestyle="--" if secondary else "-",
            label=config_name(config), gid=tip(f"{config.source} {config.label}"),
        )  # fmt: skip
        for rule, marker, face, across, up in rules:
            at = (100 * config.mean(across), 100 * config.mean(up))
            marks.append(at)
            axes.plot(
                *at, marker, color=color, markerfacecolor=face or color, markersize=6, zorder=5,
                gid=tip(
                    f"{config.source} {config.label}, {rule}\nmean accuracy {at[0]:.2f} %, "
                    f"mIoU {at[1]:.2f} %"
                ),
            )  # fmt: skip
    for label, marker, face, *_ in rules:
        axes.plot(
            [], [], marker, color="black", markerfacecolor=face or "black", markersize=6,
            label=label,
        )  # fmt: skip
    left, bottom = np.nanmin(marks, axis=0) - MARGIN
    axes.set_xlim(left=left)
    axes.set_ylim(bottom=bottom)
    axes.set_xlabel("test mean accuracy (%)")
    axes.set_ylabel("test mIoU (%)")
    axes.set_title("Confirmed configs at every decision rule")
    _legend(axes, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)


def forest(axes: Axes, answer: Answer, metric: str = MIOU) -> None:
    """Plot differences to the reference in points: thick is Dunnett's interval over seeds, thin
    and grey the bootstrap interval over test images. Filled: at the primary rule, hollow: at the
    argmax beside it."""
    rules = answer.rules
    shown = [config for config in answer.configs if config.versus][::-1]
    for row, config in enumerate(shown):
        for index, rule in enumerate(rules):
            color = BEST_COLOR if config.source == answer.best_miou else OTHER_COLOR
            color = CE_COLOR if config.family == CE else color
            at = row + (0.2 - 0.4 * index if len(rules) > 1 else 0)
            _difference(axes, config, _key(rule, metric), at, color, primary=index == 0)
    if len(rules) > 1:
        for rule, face in zip(rules, ("black", "white"), strict=True):
            axes.plot(
                [], [], "o", color="black", markerfacecolor=face, markersize=6, label=rule.name
            )
    axes.axvline(0, color=CE_COLOR, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(shown)), [config_name(config) for config in shown])
    axes.set_ylim(-0.6, max(len(shown), 1) - 0.4)
    axes.set_xlabel(f"test {METRICS[metric]}: points over {answer.reference_name}")
    axes.set_title("Confirmed on fresh seeds", loc="left", pad=22)
    # Between title and axes: intervals may reach anywhere in the axes.
    _legend(axes, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, ncols=4)


def _key(rule: Rule, metric: str) -> str:
    return rule.test_miou if metric == MIOU else rule.test_macc


def _difference(
    axes: Axes, config: Confirmed, key: str, at: float, color: str, *, primary: bool
) -> None:
    against = config.versus[key]
    if key in config.images:
        low, high = config.images[key].low, config.images[key].high
        axes.plot(
            [100 * low, 100 * high], [at - 0.15] * 2, color="#888888", linewidth=1.2,
            label="test images (bootstrap)",
        )  # fmt: skip
    if against.interval is not None:
        low, high = against.interval.low, against.interval.high
        axes.plot(
            [100 * low, 100 * high], [at, at], color=color, linewidth=3.5,
            alpha=0.75 if primary else 0.35, solid_capstyle="butt", label="seeds (Dunnett)",
        )  # fmt: skip
    face = color if primary else "white"
    axes.plot(
        100 * against.difference, at, "o", color=color, markerfacecolor=face, markersize=7,
        gid=tip(f"{config.source} {config.label}\n{difference(against)} points"),
    )  # fmt: skip


def per_class(axes: Axes, answer: Answer, config: Confirmed, order: Sequence[str]) -> None:
    """Plot test IoU of each class at the primary rule minus the reference's, in points; dots are
    the seeds."""
    reference = answer.reference
    assert reference is not None
    prefix = f"{prefix_of(answer.primary.test_miou)}iou/"
    known = {key.removeprefix(prefix) for key in config.metrics if key.startswith(prefix)}
    known &= {key.removeprefix(prefix) for key in reference.metrics if key.startswith(prefix)}
    shown = [name for name in order if name in known][::-1]
    for row, name in enumerate(shown):
        key = f"{prefix}{name}"
        base = reference.mean(key)
        gain = 100 * (config.mean(key) - base)
        axes.barh(
            row, gain, color=BEST_COLOR if gain >= 0 else CE_COLOR, alpha=0.65,
            gid=tip(f"{name}: {100 * base:.2f} % and {gain:+.2f} points"),
        )  # fmt: skip
        seeds = [100 * (one - base) for one in config.metrics[key]]
        axes.plot(seeds, [row] * len(seeds), "o", color="black", markersize=2.5, alpha=0.7)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(shown)), shown_names(shown))
    # Right-aligned: long class names may leave the axes little width.
    rule = f" at the {TUNED.name}" if answer.primary == TUNED else ""
    axes.set_xlabel(f"test IoU{rule}:\npoints over {answer.reference_name}", loc="right")
    axes.set_title(config_name(config), fontsize=10, loc="right")


def trial_classes(axes: Axes, trial: Trial, order: Sequence[str]) -> None:
    """Plot test IoU and recall of each class of one trial, in %."""
    shown = [name for name in order if f"{TEST}/iou/{name}" in trial.last][::-1]
    rows = np.arange(len(shown))
    for offset, kind, color in ((0.2, "iou", OTHER_COLOR), (-0.2, "recall", STOPPED_COLOR)):
        values = [100 * trial.last.get(f"{TEST}/{kind}/{name}", math.nan) for name in shown]
        axes.barh(rows + offset, values, height=0.38, color=color, label=kind)
    axes.set_yticks(rows, shown_names(shown))
    axes.set_xlim(0, 100)
    axes.set_xlabel("test (%)")
    axes.set_title(shorten(f"{trial.id} {trial.label}"), fontsize=10, loc="right")
    _legend(axes, loc="lower right")


def confusion(axes: Axes, table: np.ndarray, names: Sequence[str]) -> None:
    """Plot a confusion matrix: rows are the target, each summing to 100 %; the diagonal is
    recall."""
    total = table.sum(1, keepdims=True)
    percentages = np.divide(100.0 * table, total, out=np.zeros(table.shape), where=total > 0)
    axes.grid(False)
    axes.imshow(percentages, cmap="Blues", vmin=0, vmax=100)
    if len(names) <= 20:
        for row, column in np.ndindex(*percentages.shape):
            number = percentages[row, column]
            color = "white" if number > 55 else "black"
            if number >= 0.5:
                axes.text(
                    column, row, f"{number:.0f}", ha="center", va="center", fontsize=7, color=color
                )
    told = shown_names(names)
    axes.set_xticks(range(len(names)), told, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), told, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("target")


def importance(axes: Axes, found: Importances, key: str, proxy: str = "") -> None:
    """Plot how much worse a forest predicts without each parameter."""
    axes.set_title(
        f"What moved {_title(key)}{_on_proxy(proxy)}\nR² {found.r2:.2f} on {found.num_trials} "
        "trials, each unseen",
        fontsize=11,
    )
    shown = list(found.items[:12])[::-1]
    bars = [max(item.mean, 0.0) for item in shown]
    axes.barh(
        range(len(shown)), bars, xerr=[item.sd for item in shown], color=OTHER_COLOR, alpha=0.75
    )
    axes.set_yticks(range(len(shown)), shown_names([item.path for item in shown]))
    axes.set_xlabel("R² lost without it")


def no_pattern(found: Importances, key: str, proxy: str = "") -> str:
    """Instead of that plot, where the forest predicts nothing."""
    return (
        f"What moved {_title(key)}{_on_proxy(proxy)}: no pattern. A forest does not predict a "
        "trial from the others' parameters better than their mean does "
        f"(R² {found.r2:.2f} on {found.num_trials} trials, each unseen), so no parameter is said "
        "to matter."
    )
