"""`python -m study.track NAME`: bring MLflow in step with a study's ledger, or rebuild it there.

Running it twice changes nothing: the same runs, the same points.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from study import telemetry
from study.errors import InputError, Parser, exit_code


def _parser() -> Parser:
    parser = Parser(prog="python -m study.track", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", help="a study in the storage, or the path of its folder")
    parser.add_argument("--storage", type=Path, default=Path("studies"), metavar="DIR")
    parser.add_argument("--tracking-uri", metavar="URI", help="default: as in the study")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return exit_code(lambda: _track(_parser().parse_args(argv)))


def _track(arguments: argparse.Namespace) -> int:
    telemetry.turn_off()
    from study import ledger, tracking
    from study.tracking.follow import only_writer
    from study.tracking.store import Projection

    folder = ledger.find(arguments.name, arguments.storage)
    state = ledger.load(folder)
    uri = arguments.tracking_uri
    if uri is None and state.sessions:
        uri = state.sessions[-1].tracking_uri
    uri = tracking.absolute(uri or tracking.default_uri(folder.parent))
    tracking.check(uri)
    with only_writer(folder, wait=False) as free:
        if not free:
            raise InputError("nobody else may track the study, but its driver does", file=folder)
        projection = Projection(folder, uri)
        for record in ledger.read(folder / ledger.LEDGER):
            projection.take(record)
        projection.finish()
    print(f"{projection.num_lines} ledger lines and {len(state.trials)} trials are in MLflow")
    print(f"MLflow: {tracking.ui_command(uri)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
