"""`python -m study.status NAME`: show how far a study is, from any terminal and at any time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from study.core.console import Parser, run_command
from study.storage.arguments import add_study, open_study


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("status", __doc__)
    add_study(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    return run_command(parser, _status, argv)


def _status(arguments: argparse.Namespace) -> None:
    from study.reporting.study_status import lines, status

    study = open_study(arguments, whole=False)
    found = status(
        study.state,
        driven=study.storage.is_driven(study.folder),
        now=time.time(),
        resume=study.storage.resume_command(study.folder),
    )
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(lines(found)))


if __name__ == "__main__":
    sys.exit(main())
