"""`python -m study.status NAME`: show how far a study is, from any terminal and at any time."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence

from study.core.console import Parser, run_command, show
from study.storage.arguments import add_study, open_study

WATCH_SECONDS = 10.0
CLEARED = "\x1b[2J\x1b[H"  # of a terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("status", __doc__)
    add_study(parser)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    either.add_argument(
        "--watch",
        action="store_true",
        help="show the study again every ten seconds, until it is finished or you press Ctrl-C",
    )
    either.add_argument(
        "--repair",
        action="store_true",
        help="copy the lines of a damaged ledger up to the damage into a new file",
    )
    return run_command(parser, _status, argv)


def _status(arguments: argparse.Namespace) -> None:
    from study.analysis.classes import classes_so_far
    from study.reporting.class_table import class_lines
    from study.reporting.study_status import lines, status

    if arguments.repair:
        _repair(arguments)
        return
    while True:
        study = open_study(arguments, whole=False)
        found = status(
            study.state,
            driven=study.storage.is_driven(study.folder),
            now=time.time(),
            resume=study.storage.resume_command(study.folder),
        )
        if arguments.json:
            print(json.dumps(found, indent=2))
            return
        if arguments.watch and sys.stdout.isatty():
            print(CLEARED, end="")
        classes = class_lines(classes_so_far(study.state), "best cross entropy")
        show(*lines(found), *classes, flush=True)
        if not arguments.watch or study.state.finished:
            return
        time.sleep(WATCH_SECONDS)


def _repair(arguments: argparse.Namespace) -> None:
    from study.core.errors import InputError
    from study.ledger.journal import LEDGER
    from study.ledger.repair import repair
    from study.storage.studies import Storage

    storage = Storage.of(arguments.storage)
    folder = storage.find(arguments.name, whole=False)
    if storage.is_driven(folder):
        raise InputError("the study is running; stop it first", file=folder, key="--repair")
    ledger = folder / LEDGER
    found = repair(folder)
    if found is None:
        show(f"{ledger}: no line is damaged")
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items()) or "none readable"
    lines = "line" if found.dropped == 1 else "lines"
    aside = found.path.with_name(found.path.name.replace("repaired", "damaged"))
    move = shlex.join(["mv", str(ledger), str(aside)])
    back = shlex.join(["mv", str(found.path), str(ledger)])
    show(
        f"{ledger}:{found.kept + 1}: {found.reason}",
        f"kept: the first {found.kept} lines, in {found.path}",
        f"dropped: the last {found.dropped} {lines} ({kinds})",
        "to use what is kept, and train the rest again:",
        f"  {move} && {back}",
        f"  {storage.resume_command(folder)}",
    )


if __name__ == "__main__":
    sys.exit(main())
