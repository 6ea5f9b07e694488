"""`python -m study.export NAME`: the best configs of a study, finished or not, as YAML."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from study.core import telemetry
from study.core.console import Parser, exit_code
from study.core.errors import InputError


def _parser() -> Parser:
    parser = Parser(prog="python -m study.export", description=__doc__)
    parser.add_argument("name", help="name of a study in the storage, or path of its folder")
    parser.add_argument(
        "--storage",
        default="studies",
        metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: studies)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return exit_code(lambda: _export(_parser().parse_args(argv)))


def _export(arguments: argparse.Namespace) -> int:
    telemetry.turn_off()
    from study.analysis.answer import answer
    from study.reporting.exports import write_exports
    from study.storage.studies import Storage, load

    storage = Storage.of(arguments.storage)
    folder = storage.find(arguments.name)
    state = load(folder)
    found = answer(state, folder)
    paths = write_exports(folder, state, found)
    if not paths:
        raise InputError(f"no best config to export: {found.missing[0]}", file=folder)
    storage.ship_files(folder)
    for line in found.missing:
        print(f"note: {line}")
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
