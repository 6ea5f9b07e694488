"""Records a study of CamVid as a CSV, and makes its tables: benchmarks/results_camvid.yaml as
docs/camvid.csv, benchmarks/results_camvid_pretrained.yaml as docs/camvid_pretrained.csv.

    python -m docs.camvid studies/results_camvid docs/camvid.csv      # then: python -m docs.numbers

The CSV has a row for each training of the confirmation: config, trial that it comes from, rate (in
parts of the task's), role, seed, how many times the budget, the part that is switched off, and its
metrics, as fractions. Its first line, a comment, says when and where. All tables are computed from
it, with the statistics of the project.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from docs.architecture import ROOT
from study.analysis.answer import answer
from study.analysis.longer import paired
from study.analysis.rules import ARGMAX, TUNED
from study.analysis.statistics import JOINT, Comparison, compare, mean, sd
from study.core.files import write_text
from study.core.names import CONFIRM, DEFAULT_CE, TUNED_CE
from study.ledger.state import State
from study.reporting.tables import difference, percent
from study.storage.studies import load

CSV = ROOT / "docs" / "camvid.csv"
PRETRAINED = ROOT / "docs" / "camvid_pretrained.csv"
HEADS = ("config", "trial", "rate", "role", "seed", "budget", "without")
WORST = "worst class"
SELECTS = TUNED.val_miou
TUNED_COLUMNS = {TUNED.test_miou: "mIoU", TUNED.test_macc: "mean accuracy"}
ARGMAX_COLUMNS = {
    ARGMAX.test_miou: "mIoU",
    ARGMAX.test_macc: "mean accuracy",
    "test/mprec": "mean precision",
    "test/miou_image": "mIoU^I",
    "test/miou_class": "mIoU^C",
}
METRICS = (SELECTS, TUNED.val_macc, *TUNED_COLUMNS, *ARGMAX_COLUMNS)
CLASS_IOU = f"{TUNED.test_miou.removesuffix('miou')}iou/"
Values = Mapping[int, float]
BySeed = dict[int, dict[str, float]]


@dataclass(frozen=True)
class Config:
    """A confirmed config: its trainings by seed. role: of a cross entropy."""

    label: str
    trial: str
    rate: float
    role: str
    seeds: BySeed

    def values(self, metric: str) -> Values:
        """A metric by seed."""
        return {seed: metrics[metric] for seed, metrics in self.seeds.items()}


@dataclass(frozen=True)
class Table:
    """The CSV. longer and parts: trainings with a longer budget and without a part, by the trial
    that they come from, and by (trial, budget) and (trial, part)."""

    recorded: str
    configs: tuple[Config, ...]
    longer: Mapping[tuple[str, int], BySeed]
    parts: Mapping[tuple[str, str], BySeed]

    @property
    def reference(self) -> Config:
        """Cross entropy at the learning rate at which it is best on val."""
        return next(config for config in self.configs if TUNED_CE in config.role)


def rows(state: State, folder: Path) -> Iterator[dict[str, object]]:
    """The rows of the CSV."""
    found = answer(state, folder)
    roles = {
        config.source: " and ".join(
            [TUNED_CE] * config.is_reference + [DEFAULT_CE] * config.is_default_ce
        )
        for config in found.configs
    }
    confirmed = state.completed(CONFIRM)
    classes = [key for key in confirmed[0].last if key.startswith(CLASS_IOU)]
    for trial in confirmed:
        source = state.trials[trial.source or ""]
        yield {
            "config": source.label,
            "trial": source.id,
            "rate": (source.config.get("optimizer") or {}).get("lr_scale", 1.0),
            "role": roles.get(source.id, ""),
            "seed": trial.seed,
            "budget": trial.budget,
            "without": trial.ablated,
            **{key: f"{trial.last[key]:.6f}" for key in (*METRICS, *classes)},
        }


def write(state: State, folder: Path, recorded: str, path: Path) -> None:
    """Write the CSV; `recorded` says when and where."""
    found = list(rows(state, folder))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    write_text(path, f"# {recorded}\n{text.getvalue()}")


def read(path: Path = CSV) -> Table:
    """Read the CSV."""
    recorded, _, table = path.read_text(encoding="utf-8").partition("\n")
    configs: dict[str, Config] = {}
    longer: dict[tuple[str, int], BySeed] = {}
    parts: dict[tuple[str, str], BySeed] = {}
    for row in csv.DictReader(table.splitlines()):
        trial, seed, budget, part = (
            row["trial"],
            int(row["seed"]),
            int(row["budget"]),
            row["without"],
        )
        metrics = {key: float(value) for key, value in row.items() if key not in HEADS}
        metrics[WORST] = min(value for key, value in metrics.items() if key.startswith(CLASS_IOU))
        if part:
            parts.setdefault((trial, part), {})[seed] = metrics
        elif budget > 1:
            longer.setdefault((trial, budget), {})[seed] = metrics
        else:
            new = Config(row["config"], trial, float(row["rate"]), row["role"], {})
            configs.setdefault(trial, new).seeds[seed] = metrics
    shared = set.intersection(*(set(config.seeds) for config in configs.values()))
    kept = (
        Config(c.label, c.trial, c.rate, c.role, {seed: c.seeds[seed] for seed in sorted(shared)})
        for c in configs.values()
    )
    ranked = sorted(kept, key=lambda config: -mean(config.values(SELECTS).values()))
    return Table(recorded.removeprefix("# "), tuple(ranked), longer, parts)


def against(table: Table, control: Config, metric: str, confidence: float) -> dict[str, Comparison]:
    """Each other config less a control, by trial."""
    others = {c.trial: c.values(metric) for c in table.configs if c is not control}
    return compare(others, control.values(metric), confidence=confidence)


def main_table(table: Table) -> Iterator[str]:
    """Each config at its tuned rules and at the argmax, less tuned cross entropy. The intervals of
    the tuned column hold together for both metrics, those of the argmax for one."""
    columns = [(key, f"{head}, tuned rule", JOINT) for key, head in TUNED_COLUMNS.items()]
    columns += [
        (key, f"{head}, argmax", 0.95)
        for key, head in ARGMAX_COLUMNS.items()
        if key in (ARGMAX.test_miou, ARGMAX.test_macc)
    ]
    yield from _compared(table, columns)


def more_table(table: Table) -> Iterator[str]:
    """What else is measured, at the argmax, and the lowest IoU of a class at the tuned rule."""
    columns = [
        (key, head, 0.95)
        for key, head in ARGMAX_COLUMNS.items()
        if key not in (ARGMAX.test_miou, ARGMAX.test_macc)
    ]
    yield from _compared(table, [*columns, (WORST, "worst class, tuned rule", 0.95)])


def _compared(table: Table, columns: Sequence[tuple[str, str, float]]) -> Iterator[str]:
    reference = table.reference
    found = {key: against(table, reference, key, level) for key, _, level in columns}

    def cell(config: Config, key: str) -> str:
        values = list(config.values(key).values())
        text = f"{percent(mean(values), 1)} ± {percent(sd(values), 1)}"
        if config is reference:
            return text
        return f"{text}<br>{difference(found[key][config.trial])}"

    heads = ["config", *(head for _, head, _ in columns)]
    cells = ([_name(c), *(cell(c, key) for key, _, _ in columns)] for c in table.configs)
    yield from _markdown(heads, cells)


def rates_table(table: Table) -> Iterator[str]:
    """Cross entropy at each rate; and what each loss adds to cross entropy at its own rate."""
    of_ce = {config.rate: config for config in table.configs if config.role or _is_ce(config)}
    heads = ("config", "rate", *(f"{head}, tuned rule" for head in TUNED_COLUMNS.values()))
    body = []
    for rate, control in sorted(of_ce.items()):
        cells = [percent(mean(control.values(key).values()), 1) for key in TUNED_COLUMNS]
        body.append((_name(control), f"x{rate:g}", *cells))
        same = [c for c in table.configs if c is not control and c.rate == rate]
        for config in same:
            gains = (_difference(config.values(key), control.values(key)) for key in TUNED_COLUMNS)
            body.append((config.label, f"x{rate:g}", *gains))
    yield from _markdown(heads, body)


def _is_ce(config: Config) -> bool:
    return config.label == "ce" or config.label.startswith("ce lr ")


def _difference(of: Values, control: Values) -> str:
    """The mean of the differences by seed and its own 95 % interval."""
    found = paired([of[seed] - control[seed] for seed in sorted({*of} & {*control})])
    return "" if found is None else difference(found)


def parts_table(table: Table) -> Iterator[str]:
    """The winner less itself without each part, by seed."""
    by_trial = {config.trial: config for config in table.configs}
    body = [
        (
            f"{by_trial[trial].label} without {part}",
            *(_difference(by_trial[trial].values(key), _of(seeds, key)) for key in TUNED_COLUMNS),
        )
        for (trial, part), seeds in table.parts.items()
    ]
    heads = ("the part's worth", *(f"{head}, tuned rule" for head in TUNED_COLUMNS.values()))
    yield from _markdown(heads, body)


def gain(table: Table, budget: int = 1) -> str:
    """The best other loss on val less tuned cross entropy, in mIoU at the tuned rule."""
    winner = next(c for c in table.configs if not (c.role or _is_ce(c)))
    if budget == 1:
        found = against(table, table.reference, TUNED.test_miou, JOINT)[winner.trial]
        return difference(found)
    of, control = (table.longer[c.trial, budget] for c in (winner, table.reference))
    return _difference(_of(of, TUNED.test_miou), _of(control, TUNED.test_miou))


def longer_table(table: Table) -> Iterator[str]:
    """Reference and best other loss with a longer budget, against the reference with as much; and
    what the longer budget adds to each."""
    by_trial = {config.trial: config for config in table.configs}
    reference = table.reference.trial
    metrics = {**TUNED_COLUMNS, ARGMAX.test_miou: "mIoU", ARGMAX.test_macc: "mean accuracy"}
    names = [
        f"{name}, {'tuned rule' if metric in TUNED_COLUMNS else 'argmax'}"
        for metric, name in metrics.items()
    ]
    heads = ("config", "budget", *names, "more than x1: mIoU, tuned rule")
    everything = {**{(c.trial, 1): c.seeds for c in by_trial.values()}, **table.longer}
    body = []
    for budget in sorted({1, *(budget for _, budget in table.longer)}):
        control = everything.get((reference, budget), {})
        for trial in dict.fromkeys(trial for trial, _ in table.longer):
            found, first = everything.get((trial, budget), {}), everything[trial, 1]
            cells = []
            for metric in metrics:
                cell = percent(mean(list(_of(found, metric).values())), 1)
                if trial != reference:
                    cell += f"<br>{_difference(_of(found, metric), _of(control, metric))}"
                cells.append(cell)
            key = TUNED.test_miou
            added = "" if budget == 1 else _difference(_of(found, key), _of(first, key))
            body.append((by_trial[trial].label, f"x{budget}", *cells, added))
    yield from _markdown(heads, body)


def networks_table(small: Table, pretrained: Table) -> Iterator[str]:
    """Tuned cross entropy on the small network and on the pretrained one, at each budget, by
    seed."""
    metrics = {**TUNED_COLUMNS, ARGMAX.test_miou: "mIoU"}
    names = [
        f"{name}, {'tuned rule' if key in TUNED_COLUMNS else 'argmax'}"
        for key, name in metrics.items()
    ]

    def at(table: Table, budget: int) -> BySeed:
        reference = table.reference
        return reference.seeds if budget == 1 else table.longer[reference.trial, budget]

    shared = {budget for _, budget in small.longer} & {budget for _, budget in pretrained.longer}
    body = []
    for budget in sorted({1, *shared}):
        plain, better = at(small, budget), at(pretrained, budget)
        cells = []
        for key in metrics:
            values = [percent(mean(list(_of(of, key).values())), 1) for of in (plain, better)]
            gain = _difference(_of(better, key), _of(plain, key))
            cells.append(f"{values[0]} -> {values[1]}<br>{gain}")
        body.append((f"x{budget}", *cells))
    yield from _markdown(("budget", *names), body)


def _of(seeds: BySeed, key: str) -> Values:
    return {seed: metrics[key] for seed, metrics in seeds.items()}


def _name(config: Config) -> str:
    if config.role:
        return f"{config.label} ({config.role})"
    at = "" if config.rate == 1 or _is_ce(config) else f", lr x{config.rate:g}"
    return config.label + at


def _markdown(heads: Sequence[str], body: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for cells in body:
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    from docs.numbers import cost, recorded_at

    study, target = map(Path, sys.argv[1:])
    ledger = load(study)
    write(ledger, study, f"{recorded_at(ledger)}; {cost(ledger)}", target)
