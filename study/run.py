"""python -m study.run [SPACE] [--task TASK]: a whole study, from YAML to exported best configs."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.core import telemetry
from study.core.console import (
    EXIT_INTERRUPTED,
    Parser,
    exit_code,
    pipe_safe_output,
)
from study.core.errors import InputError

if TYPE_CHECKING:
    from study.session.prepare import Options, Prepared
    from study.session.session import Finished

EXIT_NOTHING_TRAINED = 1
UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


def seconds(text: str) -> float:
    """A duration such as 90, 90s, 30m or 2h, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None or float(match[1]) == 0:
        message = f"must be a duration such as 90s, 30m or 2h, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return float(match[1]) * UNITS[match[2]]


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number >= 1, got {text!r}")
    return int(text)


def amount(text: str) -> float:
    """A number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be a number >= 0, got {text!r}")
    return value


def gpus(text: str) -> float:
    """A share of a GPU, or whole ones: a number of at least 0."""
    try:
        return amount(text)
    except argparse.ArgumentTypeError:
        message = (
            f"must be a number >= 0, got {text!r} (0.5: two trials share a GPU, 0: train on CPUs)"
        )
        raise argparse.ArgumentTypeError(message) from None


def natural(text: str) -> int:
    """A whole number of at least 0, small enough for what is counted up from it."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise argparse.ArgumentTypeError(f"must be a whole number in [0, 10^18), got {text!r}")
    return int(text)


def parser() -> Parser:
    """The command line: where and how much. Hyperparameters are in the YAML files."""
    p = Parser(
        prog="python -m study.run",
        description="Search for the loss with which a segmentation network learns its rare "
        "classes, and test what it finds.",
    )
    p.add_argument(
        "space", nargs="?", help="search space: a file or a shipped name (default: joint)"
    )
    p.add_argument("--task", help="task: a file or a shipped name (default: synthetic)")
    p.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder that holds the task's data"
    )
    p.add_argument("--num-trials", type=positive_int, metavar="N", help="number of searched trials")
    p.add_argument(
        "--time-budget",
        type=seconds,
        metavar="T",
        help="end this session within this time, exports and report included (30m, 2h). It skips "
        "searched trials first, then baselines, then seeds; --resume continues",
    )
    p.add_argument(
        "--max-gpu-hours",
        type=amount,
        metavar="H",
        help="limit the GPU-hours of training, summed over all sessions of the study",
    )
    p.add_argument(
        "--gpus-per-trial", type=gpus, metavar="G", help="a fraction of a GPU, or whole ones"
    )
    p.add_argument("--cpus-per-trial", type=amount, metavar="C", help="CPUs and CPU threads")
    p.add_argument(
        "--max-concurrent", type=positive_int, metavar="N", help="number of trials at once"
    )
    p.add_argument(
        "--address", metavar="HOST:PORT", help="Ray cluster (default: one on this machine)"
    )
    p.add_argument(
        "--storage",
        metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: studies)",
    )
    p.add_argument(
        "--keep-checkpoints",
        action="store_true",
        help="keep the last checkpoint of every trial after it ends",
    )
    p.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow (default: a SQLite file in the storage)"
    )
    p.add_argument("--name", help="name of the new study")
    p.add_argument("--resume", metavar="NAME", help="resume a study")
    p.add_argument("--seed", type=natural, help="seed of proposals and trainings (default: 0)")
    p.add_argument(
        "--dry-run", action="store_true", help="check everything, print the plan and stop"
    )
    return p


FIXED_ON_RESUME = ("space", "task", "name", "seed")


def _options(arguments: argparse.Namespace) -> Options:
    from study.session.prepare import Options

    given = {
        key: value
        for key, value in vars(arguments).items()
        if value is not None and key not in ("resume", "dry_run")
    }
    if arguments.resume is not None:
        for key in FIXED_ON_RESUME:
            if key in given:
                raise InputError(
                    f"{key} cannot be given with --resume; a study keeps its {key}",
                    key="SPACE" if key == "space" else f"--{key}",
                )
    return Options(**given)


def _command(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    telemetry.turn_off()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = _options(arguments)
    from study.session import prepare as preparation

    if arguments.dry_run:
        prepared = _prepared(arguments.resume, options)
        print(preparation.describe_plan(prepared, options))
        return 0
    with pipe_safe_output():
        return _study(arguments.resume, options)


def _study(resume: str | None, options: Options) -> int:
    from study.engine.connection import Connection
    from study.ledger.journal import LEDGER
    from study.session import session

    with Connection(options.address) as connection:
        prepared = _prepared(resume, options, connection.begin)
        try:
            finished = session.run(prepared, options, connection)
        except KeyboardInterrupt:
            if not (prepared.folder / LEDGER).is_file():
                raise
            print(f"\nstopped. To go on: {_resume_command(prepared)}")
            return EXIT_INTERRUPTED
    return _conclusion(prepared, finished)


def _prepared(resume: str | None, options: Options, *begin: Callable[[], None]) -> Prepared:
    from study.session import prepare as preparation

    if resume is not None:
        return preparation.reopen(resume, options, *begin)
    return preparation.prepare(options, *begin)


def _conclusion(prepared: Prepared, finished: Finished) -> int:
    from study import tracking
    from study.reporting.tables import print_answer
    from study.scheduler.stages import left_out

    print_answer(finished.answer)
    left = left_out(prepared.plan, finished.state)
    if finished.interrupted:
        print(f"\ninterrupted. To go on: {_resume_command(prepared)}")
    elif left:
        print(f"\nleft out, as the budget is spent: {', '.join(left)}")
        print(f"To go on, with a larger one: {_resume_command(prepared)}")
    for path in finished.exports:
        print(f"export: {_short(path)}")
    print(f"report: {_short(finished.folder / 'report.html')}")
    print(f"MLflow: {tracking.ui_command(prepared.tracking_uri)}")
    if finished.unshipped:
        print(f"{finished.unshipped}; they are in {finished.folder}")
        print(f"Once it answers: {_resume_command(prepared)}")
    if finished.unsent:
        print(
            f"{finished.unsent} ledger lines have not reached MLflow; "
            f"later: python -m study.track {shlex.quote(str(finished.folder))}"
        )
    if finished.interrupted:
        return EXIT_INTERRUPTED
    return 0 if finished.exports else EXIT_NOTHING_TRAINED


def _resume_command(prepared: Prepared) -> str:
    return prepared.storage.resume_command(prepared.folder)


def _short(path: Path) -> Path:
    """Relative to here where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def main(argv: Sequence[str] | None = None) -> int:
    """Run a study. Exit code 0; 1 when no trial could be trained or the disk takes no more; 2 on
    bad input; 130 when it was interrupted."""
    return exit_code(lambda: _command(argv))


if __name__ == "__main__":
    code = main()
    if code == EXIT_INTERRUPTED:  # all is written; libraries take seconds to say good-bye
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
