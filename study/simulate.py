"""`python -m study.simulate PROBLEM`: try a search on known learning curves, without training.

PROBLEM is one of

    a family of made-up problems (--list shows them); each seed draws one problem
    recorded: curves of 150 trained configs of the joint search space on the synthetic task
    a table of learning curves: FILE.csv or FILE.parquet (docs/search.md describes its columns)
    a study in the storage: the curves of the trials that were trained to the end

The study's own scheduler, sampler and early stopping run on a simulated clock. The regret of a
search is 0 at the best config, and 1 at the median random one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import STUDIES

if TYPE_CHECKING:
    from study.simulation.comparison import Comparison
    from study.simulation.problem import Problem
    from study.simulation.run import Settings

MOST = {"workers": 10_000, "trainings": 10_000, "trials": 100_000, "seeds": 1000}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("simulate", __doc__)
    parser.add_argument(
        "problem", nargs="?", metavar="PROBLEM", help="a family, a table or a study"
    )
    parser.add_argument("--list", action="store_true", help="show the families, and stop")
    parser.add_argument(
        "--space",
        metavar="FILE",
        help="search space of a table (default: FILE.space.yaml), or with --record of the table to "
        "write (default: that of the study)",
    )
    parser.add_argument(
        "--objectives",
        metavar="NAMES",
        help="metrics of a table without a search space, separated by commas. A minus before a "
        "metric means that less is better: -loss",
    )
    parser.add_argument(
        "--methods", default="model,random", metavar="NAMES",
        help="methods, separated by commas: model, random, full-length (random, without early "
        "stopping), warm (the model after an earlier search of a similar problem), misled (the "
        "model after a search of the reversed problem). The first is compared with the others "
        "(default: model,random)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", default=8, metavar="N", help="trials that run at once (default: 8)"
    )
    parser.add_argument(
        "--trainings", metavar="N",
        help="end each search after as many epochs as N full trainings have (default: 32)",
    )  # fmt: skip
    parser.add_argument("--trials", metavar="N", help="end each search after N trials")
    parser.add_argument(
        "--seeds", default=8, metavar="N", help="searches with each method (default: 8)"
    )
    parser.add_argument(
        "--stragglers",
        default=0.0,
        metavar="F",
        help="fraction of the trials that are 5 times slower",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    parser.add_argument(
        "--record", type=Path, metavar="FILE",
        help="write the curves of the study PROBLEM as a table, with its search space beside it",
    )  # fmt: skip
    parser.add_argument(
        "--storage", default=STUDIES, metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: ./studies)",
    )  # fmt: skip
    return run_command(parser, _simulate, argv)


def _simulate(arguments: argparse.Namespace) -> None:
    from study.search.sampler import MODEL
    from study.simulation.comparison import compare
    from study.simulation.families import FAMILIES
    from study.simulation.table import RECORDED, TRAINED

    if arguments.list:
        about = {name: family.about for name, family in FAMILIES.items()} | {RECORDED: TRAINED}
        width = max(map(len, about))
        show(*(f"{name:<{width}}  {words}" for name, words in about.items()))
        return
    if arguments.problem is None:
        raise InputError("missing PROBLEM", hint="--list shows families", key="PROBLEM")
    if arguments.record is not None:
        _record(arguments)
        return
    methods = _methods(arguments)
    seeds = range(_whole(arguments, "seeds"))
    problem_of = _problem_of(arguments)
    if not arguments.json:
        show(*_words(problem_of(0), len(seeds), arguments))
    say: Callable[[str], None] = show if sys.stdout.isatty() and not arguments.json else _quietly
    found = compare(problem_of, methods, seeds, say)
    at = _points(arguments, found)
    if arguments.json:
        print(json.dumps(_as_json(found, at), indent=2))
        return
    show(*found.lines(at))
    first = next(iter(found.outcomes))
    show(f"{first}, seed 0: {found.outcomes[first][0].line()}")
    model = [outcome.by_model() for outcome in found.outcomes[first]]
    if first == MODEL:
        mean = sum(model) / len(model)
        show(f"after the sixth trial the model makes {mean:.0%} of the proposals")


def _quietly(line: str) -> None:
    """Say nothing."""


def _words(problem: Problem, seeds: int, arguments: argparse.Namespace) -> list[str]:
    names = ", ".join(problem.space.settings.objectives)
    return [
        f"{problem.name}: {problem.epochs} epochs, {names}; {arguments.workers} workers, "
        f"{seeds} searches by each method",
        "regret: 0 is the best config, 1 the median random one; below 0 the first is better",
    ]


def _points(arguments: argparse.Namespace, found: Comparison) -> list[int]:
    """After how many trainings the regret is shown: a quarter, half and all."""
    if arguments.trials is None:
        last = _whole(arguments, "trainings", 32)
    else:
        spent = [o.state.num_epochs / o.epochs for one in found.outcomes.values() for o in one]
        last = int(min(spent))
    return sorted({max(1, last // 4), max(1, last // 2), max(1, last)})


def _as_json(found: Comparison, at: Sequence[int]) -> dict[str, Any]:
    first, *others = found.outcomes
    return {
        "trainings": list(at),
        "regret": {
            name: {"mean": [float(found.regrets(name, k).mean()) for k in at],
                   "by_seed": [[o.regret(k) for k in at] for o in outcomes]}
            for name, outcomes in found.outcomes.items()
        },
        "difference": {
            f"{first} less {other}": [vars(found.difference(first, other, k)) for k in at]
            for other in others
        },
        "trials": {name: [o.num_trials for o in found.outcomes[name]] for name in found.outcomes},
        "by_model": [outcome.by_model() for outcome in found.outcomes[first]],
    }  # fmt: skip


def _methods(arguments: argparse.Namespace) -> dict[str, Settings]:
    from study.simulation.comparison import METHODS
    from study.simulation.run import Settings

    if arguments.trials is not None and arguments.trainings is not None:
        raise InputError("--trials and --trainings exclude each other", key="--trials")
    trials = None if arguments.trials is None else _whole(arguments, "trials")
    trainings = _whole(arguments, "trainings", 32) if trials is None else None
    stragglers = _fraction(arguments.stragglers)
    settings = Settings(
        workers=_whole(arguments, "workers"),
        trainings=trainings,
        num_trials=trials,
        stragglers=stragglers,
    )
    names = [name.strip() for name in arguments.methods.split(",")]
    for name in names:
        if name not in METHODS:
            raise InputError.unknown("method", name, METHODS, key="--methods")
    changes: dict[str, Any] = {name: METHODS[name] for name in names}
    return {name: replace(settings, **changes[name]) for name in names}


def _whole(arguments: argparse.Namespace, name: str, default: int | None = None) -> int:
    given = getattr(arguments, name)
    try:
        number = int(str(default if given is None else given))
    except ValueError:
        number = 0
    if not 1 <= number <= MOST[name]:
        raise InputError(
            f"{name} must be a whole number from 1 to {MOST[name]}, got {given!r}", key=f"--{name}"
        )
    return number


def _fraction(given: Any) -> float:
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise InputError(f"stragglers must be in [0, 1], got {given!r}", key="--stragglers")
    return number


def _problem_of(arguments: argparse.Namespace) -> Callable[[int], Problem]:
    from study.core.errors import did_you_mean
    from study.simulation.families import FAMILIES, FamilyProblem
    from study.simulation.recording import problem_of
    from study.simulation.table import RECORDED, RECORDED_FILE, SUFFIXES, load_table
    from study.storage.studies import Storage, load

    name, path = arguments.problem, Path(arguments.problem)
    is_table = path.suffix in SUFFIXES
    for flag in ("space", "objectives"):
        if getattr(arguments, flag) is not None and not is_table:
            raise InputError("this is for a table of curves", key=f"--{flag}")
    if name in FAMILIES:
        return lambda seed: FamilyProblem(name, seed)
    if name == RECORDED:
        shipped = load_table(RECORDED_FILE)
        return lambda seed: shipped
    if is_table:
        objectives = (arguments.objectives or "").split(",") if arguments.objectives else ()
        table = load_table(path, space=arguments.space, objectives=objectives)
        return lambda seed: table
    try:
        folder = Storage.of(arguments.storage).find(name, whole=False)
    except InputError as error:
        raise InputError(
            f"no family, table or study {name!r}",
            hint=did_you_mean(name, [*FAMILIES, RECORDED]),
            allowed=[*FAMILIES, RECORDED, "FILE.csv", "FILE.parquet", "a study"],
            key="PROBLEM",
        ) from error
    study = problem_of(folder.name, load(folder))
    return lambda seed: study


def _record(arguments: argparse.Namespace) -> None:
    from study.simulation.recording import recorded, write_table
    from study.space.search_space import load_space
    from study.storage.studies import Storage, load

    if arguments.objectives is not None:
        raise InputError("a study has its own objectives", key="--objectives")
    folder = Storage.of(arguments.storage).find(arguments.problem, whole=False)
    searched = None if arguments.space is None else load_space(arguments.space)
    frame, space, left_out = recorded(load(folder), searched)
    if frame.empty:
        outside = "" if searched is None else f" with a config of {searched.name}"
        message = f"no trial of {folder.name}{outside} was trained to its end"
        raise InputError(message, key="PROBLEM")
    write_table(frame, space, arguments.record)
    curves = int((frame.epoch == 1).sum())
    show(f"{arguments.record}: {curves} curves, {len(frame)} rows; {left_out} trials left out")


if __name__ == "__main__":
    sys.exit(main())
