"""`python -m study.run [SPACE] [--task TASK]`: run a whole study, from YAML to exported configs."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.console import EXIT_INTERRUPTED, Parser, pipe_safe_output, run_command, show
from study.core.errors import InputError
from study.session.options import Options, add_options, flag_of

if TYPE_CHECKING:
    from study.session.finished import Finished
    from study.session.notify import Event
    from study.session.prepare import Prepared

EXIT_NOTHING_TRAINED = 1
FIXED_ON_RESUME = ("task", "confirm_task", "name", "seed", "warm_start")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    0: the study is finished, or its budget is spent. 1: no trial could be trained, or the disk is
    full. 2: bad input. 130: interrupted.
    """
    return run_command(parser(), _run, argv)


def parser() -> Parser:
    """The flags of the command: the options of a study, --resume and --dry-run."""
    p = Parser(
        "run",
        "Find, with evidence, the loss that makes a segmentation network learn its rare classes.",
    )
    add_options(p)
    p.add_argument(
        "--resume",
        metavar="NAME",
        help="continue a study; if you also give a search space, it searches that from now on",
    )
    p.add_argument(
        "--more-trials",
        metavar="N",
        help="with --resume: add N searched trials, then select and confirm again",
    )
    p.add_argument(
        "--trust",
        action="store_true",
        help="with --resume: import the functions (code) that the study's ledger names",
    )
    p.add_argument(
        "--notify",
        metavar="CMD",
        help="run this shell command when the session ends. Its environment has STUDY_NAME, "
        "STUDY_EVENT (finished, budget_spent, interrupted, failed) and STUDY_MESSAGE",
    )
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything and print the plan, without running it",
    )
    return p


def _run(arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    resume, dry_run, trust, command, more = (
        given.pop(key, None) for key in ("resume", "dry_run", "trust", "notify", "more_trials")
    )
    fixed = [key for key in FIXED_ON_RESUME if key in given]
    if resume is not None and fixed:
        message = f"a study keeps its {fixed[0]}; it cannot be given with --resume"
        raise InputError(message, key=flag_of(fixed[0]))
    if trust and resume is None:
        message = "a task that you give is trusted anyway; this is for --resume"
        raise InputError(message, key="--trust")
    if more is not None and resume is None:
        hint = "a new study has --num-trials"
        raise InputError("this is for --resume", hint=hint, key="--more-trials")
    options = Options.of(given)
    changes = Changes(_number_of(more), given.get("space") if resume is not None else None)
    if dry_run:
        from study.session.prepare import describe_plan

        prepared = _prepared(resume, trust, options, changes)
        show(*describe_plan(prepared, options).split("\n"))
        return 0
    with pipe_safe_output():
        return _study(resume, trust, options, changes, command)


@dataclass(frozen=True)
class Changes:
    """What a resume changes in its study."""

    more_trials: int = 0
    space: str | None = None


def _number_of(more: str | None) -> int:
    """The number of --more-trials, checked as --num-trials is."""
    if more is None:
        return 0
    try:
        return Options.of({"num_trials": more}).num_trials or 0
    except InputError as error:
        message = error.message.replace("num_trials", "more_trials")
        raise InputError(message, key="--more-trials") from error


def _study(
    resume: str | None, trust: bool, options: Options, changes: Changes, command: str | None
) -> int:
    from study.core.errors import deed
    from study.engine.connection import Connection
    from study.ledger.journal import LEDGER
    from study.session.session import run_session

    with Connection(options.address, partial(show, flush=True)) as connection:
        prepared = _prepared(resume, trust, options, changes, connection.begin)
        try:
            finished = run_session(prepared, options, connection)
        except KeyboardInterrupt:
            if not (prepared.folder / LEDGER).is_file():
                raise
            show("", f"stopped. To go on: {_resume_command(prepared)}")
            _tell(command, prepared, "interrupted", "stopped at once")
            return EXIT_INTERRUPTED
        except BaseException as error:
            told = str(error) if isinstance(error, InputError) else deed(error)
            _tell(command, prepared, "failed", told)
            raise
    code = _conclusion(prepared, finished)
    _tell(command, prepared, *_event(finished))
    return code


def _event(finished: Finished) -> tuple[Event, str]:
    """How a session has ended, and the first sentence of its answer."""
    from study.reporting.tables import conclusions

    message = next(iter(conclusions(finished.answer)), "there is no answer yet")
    if finished.interrupted:
        return "interrupted", message
    if not finished.exports:
        return "failed", "no trial could be trained"
    return ("finished" if finished.state.finished else "budget_spent"), message


def _tell(command: str | None, prepared: Prepared, event: Event, message: str) -> None:
    if command is None:
        return
    from study.session.notify import notify

    if fault := notify(command, prepared.folder.name, event, message):
        show(f"note: {fault}", file=sys.stderr)


def _prepared(
    resume: str | None,
    trust: bool,
    options: Options,
    changes: Changes,
    *begin: Callable[[], None],
) -> Prepared:
    from study.session.prepare import prepare, reopen

    if resume is None:
        return prepare(options, *begin)
    return reopen(
        resume,
        options,
        *begin,
        trust=trust,
        more_trials=changes.more_trials,
        changed_space=changes.space,
    )


def _conclusion(prepared: Prepared, finished: Finished) -> int:
    from study import tracking
    from study.analysis.classes import classes
    from study.ledger.plan import Plan
    from study.reporting.class_table import class_lines
    from study.reporting.tables import print_answer
    from study.scheduler.stages import left_out

    found = finished.answer
    print_answer(found)
    show(*class_lines(classes(finished.state, finished.folder, found), found.reference_name), "")
    assert finished.state.study is not None
    left = left_out(Plan.from_dict(finished.state.study.plan), finished.state)
    if finished.interrupted:
        show("", f"interrupted. To go on: {_resume_command(prepared)}")
    elif left:
        show("", f"left out, as the budget is spent: {', '.join(left)}")
        show(f"To go on, with a larger one: {_resume_command(prepared)}")
    for path in finished.exports:
        show(f"export: {_short(path)}")
    show(f"report: {_short(finished.folder / 'report.html')}")
    show(f"MLflow: {tracking.ui_command(prepared.tracking_uri)}")
    if finished.unshipped:
        show(f"{finished.unshipped}; they are in {finished.folder}")
        show(f"Once it answers: {_resume_command(prepared)}")
    if finished.unsent:
        show(
            f"{finished.unsent} ledger lines have not reached MLflow; "
            f"later: python -m study.track {shlex.quote(str(finished.folder))}"
        )
    if finished.interrupted:
        return EXIT_INTERRUPTED
    return 0 if finished.exports else EXIT_NOTHING_TRAINED


def _resume_command(prepared: Prepared) -> str:
    """The command that goes on with the study of this session; what it imports is trusted."""
    command = prepared.storage.resume_command(prepared.folder)
    return f"{command} --trust" if prepared.names_code else command


def _short(path: Path) -> Path:
    """A path below the working directory as a relative path."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    code = main()
    if code == EXIT_INTERRUPTED:  # all is written, and the libraries take seconds to shut down
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
