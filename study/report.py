"""`python -m study.report NAME`: report.html, results.csv and plots of a study, finished or not."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from study.core import telemetry
from study.core.console import Parser, exit_code
from study.core.errors import InputError


def _parser() -> Parser:
    parser = Parser(prog="python -m study.report", description=__doc__)
    parser.add_argument("name", help="name of a study in the storage, or path of its folder")
    parser.add_argument(
        "--storage",
        default="studies",
        metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: studies)",
    )
    parser.add_argument("--picture", metavar="PNG", help="also write one picture of all plots")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return exit_code(lambda: _report(_parser().parse_args(argv)))


def _report(arguments: argparse.Namespace) -> int:
    telemetry.turn_off()
    picture = None if arguments.picture is None else _picture(arguments.picture)
    from study.analysis.answer import answer
    from study.reporting.html import study_picture, write_report
    from study.reporting.tables import print_answer
    from study.storage.studies import Storage, load

    storage = Storage.of(arguments.storage)
    folder = storage.find(arguments.name)
    state = load(folder)
    found = answer(state, folder)
    if picture is not None:
        study_picture(state, found, picture)
    page = write_report(folder, state, found)
    storage.ship_files(folder)
    print_answer(found)
    print(f"report: {page}")
    if picture is not None:
        print(f"picture: {picture}")
    return 0


def _picture(path: str) -> Path:
    if not path or os.path.isdir(path):
        raise InputError(f"the picture must be a file, got {path!r}", key="--picture")
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
