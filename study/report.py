"""`python -m study.report NAME`: write the report, the plots and results.csv of a study."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import add_study, open_study


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("report", __doc__)
    add_study(parser)
    parser.add_argument("--picture", metavar="PNG", help="also draw the whole study in one picture")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import what the study names as code (factories), which its pictures need",
    )
    return run_command(parser, _report, argv)


def _report(arguments: argparse.Namespace) -> None:
    picture = None if arguments.picture is None else _picture(arguments.picture)
    from study.analysis.answer import answer
    from study.analysis.classes import classes
    from study.reporting.class_table import class_lines
    from study.reporting.html import study_picture, write_report
    from study.reporting.tables import print_answer

    study = open_study(arguments)
    found = answer(study.state, study.folder)
    drawn = picture is not None and study_picture(study.state, found, picture)
    page = write_report(study.folder, study.state, found, trust=arguments.trust)
    study.storage.ship_files(study.folder)
    print_answer(found)
    show(*class_lines(classes(study.state, study.folder, found), found.reference_name))
    show(f"report: {page}")
    if picture is not None:
        show(f"picture: {picture if drawn else 'none, as no trial has reported yet'}")


def _picture(path: str) -> Path:
    if not path or os.path.isdir(path):
        raise InputError(f"the picture must be a file, got {path!r}", key="--picture")
    return Path(path)


if __name__ == "__main__":
    sys.exit(main())
