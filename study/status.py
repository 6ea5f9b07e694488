"""`python -m study.status NAME`: how a study stands, from any terminal and at any time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from study.core.console import Parser, exit_code


def _parser() -> Parser:
    parser = Parser(prog="python -m study.status", description=__doc__)
    parser.add_argument("name", help="name of a study in the storage, or path of its folder")
    parser.add_argument(
        "--storage",
        default="studies",
        metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: studies)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return exit_code(lambda: _status(_parser().parse_args(argv)))


def _status(arguments: argparse.Namespace) -> int:
    from study.reporting.study_status import lines, status
    from study.storage.studies import Storage, load

    storage = Storage.of(arguments.storage)
    folder = storage.find(arguments.name, whole=False)
    state = load(folder)
    found = status(
        state,
        driven=storage.is_driven(folder),
        now=time.time(),
        resume=storage.resume_command(folder),
    )
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
