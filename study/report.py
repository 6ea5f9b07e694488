"""`python -m study.report NAME`: write the report, the plots and results.csv of a study.

With several NAMEs it puts the studies side by side, on one page and as CSV. The top of the page
says where they are not comparable.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import add_study, open_studies

if TYPE_CHECKING:
    from study.storage.arguments import StoredStudy

COMPARISON = "compare.html"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("report", __doc__)
    add_study(parser, several=True)
    parser.add_argument(
        "--picture", metavar="PNG", help="also draw one picture of the whole study into this file"
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"file of the page about several studies, with the CSV beside it (default: "
        f"./{COMPARISON})",
    )
    parser.add_argument(
        "--price-per-gpu-hour",
        metavar="PRICE",
        help="price of a GPU-hour; the report then also says what the GPU-hours cost",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import the functions (factories) that the study names; its pictures need them",
    )
    return run_command(parser, _report, argv)


def _report(arguments: argparse.Namespace) -> None:
    picture = None if arguments.picture is None else _file(arguments.picture, "--picture")
    out = None if arguments.out is None else _page(arguments.out)
    price = None if arguments.price_per_gpu_hour is None else _price(arguments.price_per_gpu_hour)
    if len(arguments.names) > 1:
        for key, given in (("--picture", picture), ("--trust", arguments.trust)):
            if given:
                raise InputError("is of one study, not of several side by side", key=key)
        _compare(open_studies(arguments), out or Path(COMPARISON), price)
        return
    if out is not None:
        raise InputError("is for several studies; one has its report in its folder", key="--out")
    (study,) = open_studies(arguments)
    _report_one(study, picture, price, trust=arguments.trust)


def _report_one(
    study: StoredStudy, picture: Path | None, price: float | None, *, trust: bool
) -> None:
    from study.analysis.answer import answer
    from study.analysis.classes import classes
    from study.reporting.class_table import class_lines
    from study.reporting.html import study_picture, write_report
    from study.reporting.tables import print_answer

    found = answer(study.state, study.folder)
    drawn = picture is not None and study_picture(study.state, found, picture)
    page = write_report(study.folder, study.state, found, trust=trust, price=price)
    study.storage.ship_files(study.folder)
    print_answer(found)
    show(*class_lines(classes(study.state, study.folder, found), found.reference_name))
    show(f"report: {page}")
    if picture is not None:
        show(f"picture: {picture if drawn else 'none, as no trial has reported yet'}")


def _compare(studies: Sequence[StoredStudy], out: Path, price: float | None) -> None:
    from study.reporting.compare import compare, sides, write_comparison

    beside = sides([(study.folder, study.state) for study in studies])
    unlike = compare(beside)
    page, *tables = write_comparison(out, beside, unlike, price)
    if unlike.apart:
        show("warning: these studies are not comparable:")
    show(*(f"- {line}" for line in (*unlike.apart, *unlike.limits)))
    show(f"side by side: {page}", *(f"table: {path}" for path in tables))


def _file(path: str, key: str) -> Path:
    if not path or os.path.isdir(path):
        raise InputError(f"must be a file, got {path!r}", key=key)
    return Path(path)


def _page(path: str) -> Path:
    if Path(path).suffix not in (".html", ".htm"):
        raise InputError(f"must end with .html, got {path!r}", key="--out")
    return _file(path, "--out")


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise InputError(f"must be a number from 0 on, got {text!r}", key="--price-per-gpu-hour")
    return price


if __name__ == "__main__":
    sys.exit(main())
