"""Writes the numbers that README.md and the pages below docs/ state, from what is recorded here.

    python -m docs.numbers             # brings every block up to date
    python -m docs.numbers --list      # what each block would say

A block is a pair of HTML comments, the first with the block's name, the second `/numbers`; what is
between them is generated. A value stands in a line, a table between blank lines. Markdown takes a
line that begins with a comment for HTML, so a value has a word of the sentence before it. The
sources are the study that comes with the package, docs/reproduced.csv, a study of
benchmarks/distillation_camvid.yaml, docs/distillation.tar.xz, and one of
benchmarks/results_camvid.yaml, docs/camvid.csv, and one of
benchmarks/results_camvid_pretrained.yaml, docs/camvid_pretrained.csv, and the simulated searches
below docs/regrets/.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from docs import camvid, searches
from docs.architecture import ROOT
from study.analysis.answer import Answer, Confirmed
from study.analysis.classes import FINDS, Classes, ClassRow, classes
from study.analysis.rules import ARGMAX, Rule
from study.core.names import TEACHER
from study.ledger.state import State
from study.reporting.class_table import class_lines, share
from study.reporting.headline import at_work
from study.reporting.recorded import unpack_recorded
from study.reporting.remains import with_longer_budgets
from study.reporting.tables import difference, name, percent, points, table, versus, with_sd

REPRODUCED = ROOT / "docs" / "reproduced.csv"
DISTILLATION = ROOT / "docs" / "distillation.tar.xz"
BLOCK = re.compile(r"<!-- numbers: ([\w-]+) -->(.*?)<!-- /numbers -->", re.DOTALL)
BEGIN, END = "<!-- numbers:", "<!-- /numbers -->"
RAREST = 3  # classes of the table
WIDTH = 120  # columns of the terminal


@dataclass(frozen=True)
class Recorded:
    """What the numbers are taken from.

    reproduced: the rows of docs/reproduced.csv. distilled: state and answer of the study of
    docs/distillation.tar.xz.
    """

    state: State
    answer: Answer
    classes: Classes
    reproduced: Sequence[Mapping[str, str]]
    distilled: tuple[State, Answer]
    camvid: camvid.Table
    pretrained: camvid.Table
    searches: searches.Recorded

    @property
    def winner(self) -> Confirmed:
        """The config with the best mean IoU on val."""
        found = self.answer.config(self.answer.best_miou)
        assert found is not None and self.answer.confirmed
        return found

    @property
    def reference(self) -> Confirmed:
        """Tuned cross entropy."""
        assert self.answer.reference is not None and self.answer.tuned
        return self.answer.reference


def recorded() -> Recorded:
    """Read the sources."""
    with tempfile.TemporaryDirectory() as folder:
        state, answer = unpack_recorded(Path(folder))
        found = classes(state, Path(folder), answer)
    with tempfile.TemporaryDirectory() as folder:
        distilled = unpack_recorded(Path(folder), DISTILLATION)
    with REPRODUCED.open(encoding="utf-8", newline="") as file:
        reproduced = tuple(csv.DictReader(file))
    tables = (camvid.read(), camvid.read(camvid.PRETRAINED))
    return Recorded(state, answer, found, reproduced, distilled, *tables, searches.recorded())


def blocks(of: Recorded) -> dict[str, str]:
    """The text of every block, by name."""
    answer, winner = of.answer, of.winner
    tuned, assessed = answer.primary, ("miou", "macc")
    gains = {
        f"gain-{metric}{at}": f"{versus(winner, key)} points"
        for rule, at in ((tuned, ""), (ARGMAX, "-argmax"))
        for metric, key in zip(assessed, rule.judged, strict=True)
    }
    rarest = _rarest_found(of)
    assert rarest.reference is not None and rarest.winner is not None
    return {
        **gains,
        "winner": f"`{winner.label}`",
        "conditions": (
            f"task `{answer.task}`, {len(winner.seeds)} seeds, {answer.epochs} epochs a training"
        ),
        "miou": _two(of, tuned.test_miou),
        "miou-argmax": _two(of, ARGMAX.test_miou),
        "rarest": (
            f"`{rarest.name}` ({share(rarest.share)} of the training pixels): IoU "
            f"{percent(rarest.reference.iou, 1)} % with {answer.reference_name}, "
            f"{percent(rarest.winner.iou, 1)} % with the winner"
        ),
        "cost": cost(of.state),
        "recorded": recorded_at(of.state),
        "reproduced": _reproduced(of),
        "promise": _lines(_promise(of, rarest)),
        "results": _lines(_results(answer)),
        "ladder": _lines(_ladder(answer)),
        "longer": " ".join(with_longer_budgets(answer)),
        "classes": _lines(_classes(of.classes)),
        "distilled": _lines(_results(of.distilled[1])),
        "distilled-at": recorded_at(of.distilled[0]),
        "distilled-cost": cost(of.distilled[0]),
        "teacher": _teacher(of.distilled),
        "camvid-at": of.camvid.recorded,
        "camvid": _lines(camvid.main_table(of.camvid)),
        "camvid-more": _lines(camvid.more_table(of.camvid)),
        "camvid-rates": _lines(camvid.rates_table(of.camvid)),
        "camvid-longer": _lines(camvid.longer_table(of.camvid)),
        "camvid-parts": _lines(camvid.parts_table(of.camvid)),
        "pretrained-at": of.pretrained.recorded,
        "pretrained": _lines(camvid.main_table(of.pretrained)),
        "pretrained-rates": _lines(camvid.rates_table(of.pretrained)),
        "pretrained-longer": _lines(camvid.longer_table(of.pretrained)),
        "pretrained-network": _lines(camvid.networks_table(of.camvid, of.pretrained)),
        "search": _table_of(searches.methods(of.searches.families)),
        "search-families": _table_of(searches.families(of.searches)),
        "search-recorded": _table_of(searches.methods(of.searches.table)),
        "search-workers": _table_of(searches.workers(of.searches)),
        "search-long": _table_of(searches.long(of.searches)),
        "search-peers": _table_of(searches.peers(of.searches)),
        "search-speed": searches.speed_up(of.searches),
        "search-warm": _table_of(searches.warm(of.searches)),
        "search-priors": _table_of(searches.priors(of.searches)),
        "terminal": f"```text\n{_terminal(of)}\n```",
    }


def cost(state: State) -> str:
    session = state.sessions[0]
    cores = session.slots * session.cpus_per_trial
    epochs = state.work[False].epochs
    minutes = round(at_work(state) / 60)
    return f"{len(state.trials)} trials, {epochs} epochs, {minutes} minutes on {cores:g} CPU cores"


def _two(of: Recorded, key: str) -> str:
    """A metric of tuned cross entropy and of the winner."""
    return f"{percent(of.reference.mean(key))} % and {percent(of.winner.mean(key))} %"


def _rarest_found(of: Recorded) -> ClassRow:
    """The rarest class that the winner finds."""
    return next(
        row for row in of.classes.rows if row.winner is not None and row.winner.iou >= FINDS
    )


def recorded_at(state: State) -> str:
    assert state.study is not None
    study, environment = state.study, state.study.environment
    day = time.strftime("%Y-%m-%d", time.gmtime(study.time))
    return (
        f"{day}, commit {environment['commit'][:7]}, torch {environment['versions']['torch']}, "
        f"{environment['device_name']}"
    )


def _promise(of: Recorded, rarest: ClassRow) -> Iterator[str]:
    answer, winner = of.answer, of.winner
    assert rarest.reference is not None and rarest.winner is not None
    seeds = f"`{answer.space}` on `{answer.task}`, {len(winner.seeds)} seeds"
    gain = f"gain over {answer.reference_name}, both at their tuned rule"
    at_length = [
        (
            f"{gain} and at {one.budget} times the budget",
            f"{difference(one.gain)} points of mIoU",
            f"{seeds}, paired",
        )
        for one in answer.longer
    ] or [(f"{gain} and at four times the budget", "not measured yet", "")]
    trials = len({row["trial"] for row in of.reproduced})
    missed = f"; {answer.reference_name} at its argmax: never predicted" * (
        "never predicted" in rarest.missed
    )
    yield from _table(
        ("", "number", "task and seeds"),
        [
            (
                gain,
                f"{versus(winner, answer.primary.test_miou)} points of mIoU",
                f"{seeds}, {answer.epochs} epochs; 95 % interval",
            ),
            *at_length,
            *_on_images(of),
            (
                f"IoU of the rarest found class, {rarest.name} ({share(rarest.share)} of the "
                "training pixels)",
                f"cross entropy {percent(rarest.reference.iou, 1)} %, winner "
                f"{percent(rarest.winner.iou, 1)} %",
                f"{seeds}, both at their tuned rule{missed}",
            ),
            (
                "exports that trained again to the same numbers, bit for bit",
                _reproduced(of),
                f"all of that study, {trials} different trainings, on a CPU of the same kind",
            ),
        ],
    )


def _on_images(of: Recorded) -> Iterator[tuple[str, str, str]]:
    """The gain on real images, on each network."""
    networks = {"a small network from scratch": of.camvid, "ImageNet weights": of.pretrained}
    for network, found in networks.items():
        yield (
            "gain on real images, both at their tuned rule",
            f"{camvid.gain(found)} points of mIoU",
            f"CamVid, {network}, {len(found.reference.seeds)} seeds, 16 epochs; 95 % interval",
        )
        for budget in sorted({budget for _, budget in found.longer}):
            seeds = len(found.longer[found.reference.trial, budget])
            yield (
                f"gain on real images, both at their tuned rule and at {budget} times the budget",
                f"{camvid.gain(found, budget)} points of mIoU",
                f"CamVid, {network}, {seeds} seeds, paired",
            )


def _reproduced(of: Recorded) -> str:
    return f"{sum(row['exact'] == 'yes' for row in of.reproduced)} of {len(of.reproduced)}"


def _results(answer: Answer) -> Iterator[str]:
    def cells(config: Confirmed, rule: Rule, key: str) -> str:
        found = versus(config, key)
        gain = "" if config.is_reference else f"<br>{found}"
        return f"{with_sd(config, key)}{gain}"

    rules = answer.rules
    keys = [(rule, key) for rule in rules for key in rule.judged]
    heads = [f"{what}, {rule.name}" for rule in rules for what in ("mIoU", "mean accuracy")]
    yield from _table(
        ["config", *heads],
        (
            [name(config, answer), *(cells(config, rule, key) for rule, key in keys)]
            for config in answer.configs
        ),
    )


def _ladder(answer: Answer) -> Iterator[str]:
    yield from _table(
        ("from cross entropy to the winner", "test mIoU", "step", "seeds"),
        (
            (
                entry.name,
                percent(entry.mean),
                "" if entry.step is None else difference(entry.step),
                str(entry.seeds),
            )
            for entry in answer.ladder
        ),
    )


def _classes(found: Classes) -> Iterator[str]:
    rows = [row for row in found.rows[:RAREST] if row.reference and row.winner]
    yield from _table(
        ("class", "training pixels", "IoU, tuned cross entropy", "IoU, winner", "points"),
        (
            (
                row.name,
                share(row.share),
                percent(row.reference.iou, 1),
                percent(row.winner.iou, 1),
                points(row.winner.iou - row.reference.iou),
            )
            for row in rows
            if row.reference is not None and row.winner is not None
        ),
    )


def _teacher(distilled: tuple[State, Answer]) -> str:
    state, found = distilled
    (teacher,) = state.completed(TEACHER)
    return f"{percent(teacher.last[found.primary.val_miou], 1)} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _table_of(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first row has the heads."""
    heads, *others = rows
    return _lines(_table(heads, others))


def _terminal(of: Recorded) -> str:
    """What ends a study in a terminal: the confirmed configs and the rarest classes."""
    from rich.console import Console

    shown = table(of.answer)
    shown.title = shown.caption = None
    written = io.StringIO()
    Console(file=written, width=WIDTH, color_system=None).print(shown)
    rarest = replace(of.classes, rows=of.classes.rows[:RAREST])
    lines = [*written.getvalue().splitlines(), *class_lines(rarest, of.answer.reference_name)]
    return "\n".join(line.rstrip() for line in lines)


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def pages(root: Path = ROOT) -> list[Path]:
    """The pages that are looked through."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def filled(text: str, known: Mapping[str, str], where: str) -> str:
    """The text of a page with its blocks as they ought to be.

    Raises ValueError, with file and line, for an unknown name, a marker without its other one, and
    a value that Markdown would take for HTML.
    """

    def wrong(at: int, what: str) -> ValueError:
        return ValueError(f"{where}:{text.count(chr(10), 0, at) + 1}: {what}")

    def block(found: re.Match[str]) -> str:
        key, old = found.groups()
        if key not in known:
            raise wrong(found.start(), f"unknown block {key!r} (known: {', '.join(known)})")
        if BEGIN in old:
            raise wrong(found.start(), f"block {key!r} has no {END}")
        new = known[key]
        if "\n" in new:
            new = f"\n\n{new}\n\n"
        elif text[: found.start()].rpartition("\n")[2].strip() == "":
            raise wrong(found.start(), f"block {key!r} begins its line: write a word before it")
        return f"{BEGIN} {key} -->{new}{END}"

    new, count = BLOCK.subn(block, text)
    for marker in (BEGIN, END):
        if text.count(marker) != count:
            raise wrong(text.rfind(marker), f"{count} blocks, {text.count(marker)} times {marker}")
    return new


def main() -> None:
    """Write the pages that are out of date."""
    known = blocks(recorded())
    if "--list" in sys.argv[1:]:
        for key, text in known.items():
            print(f"{key}: {text}")
        return
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = filled(text, known, str(page.relative_to(ROOT)))
        if new != text:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page}")


if __name__ == "__main__":
    main()
