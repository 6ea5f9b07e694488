"""`python -m study.export NAME`: write the best configs of a study, finished or not, as YAML."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import add_study, open_study


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("export", __doc__)
    add_study(parser)
    return run_command(parser, _export, argv)


def _export(arguments: argparse.Namespace) -> None:
    from study.analysis.answer import answer
    from study.reporting.exports import write_exports
    from study.storage.weights import WeightsStore

    study = open_study(arguments)
    found = answer(study.state, study.folder)
    weights = WeightsStore(study.folder, study.storage.prefix_of(study.folder))
    paths = write_exports(study.folder, study.state, found, weights)
    if not paths:
        raise InputError(f"no best config to export: {found.missing[0]}", file=study.folder)
    study.storage.ship_files(study.folder)
    for line in found.missing:
        show(f"note: {line}")
    for path in paths:
        show(path)


if __name__ == "__main__":
    sys.exit(main())
