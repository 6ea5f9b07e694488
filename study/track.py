"""`python -m study.track NAME`: bring MLflow in step with a study's ledger, or rebuild it there.

Running it twice changes nothing: the same runs, the same points.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from study.core import telemetry
from study.core.console import Parser, exit_code
from study.core.errors import InputError

EXIT_UNSENT = 1


def _parser() -> Parser:
    parser = Parser(prog="python -m study.track", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", help="name of a study in the storage, or path of its folder")
    parser.add_argument(
        "--storage",
        default="studies",
        metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: studies)",
    )
    parser.add_argument("--tracking-uri", metavar="URI", help="MLflow (default: that of the study)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code: 0, 1 where lines are left, 2 on bad input."""
    return exit_code(lambda: _track(_parser().parse_args(argv)))


def _track(arguments: argparse.Namespace) -> int:
    telemetry.turn_off()
    from study import tracking
    from study.session.prepare import tracked_at
    from study.storage.session_lock import is_driven
    from study.storage.studies import Storage, load
    from study.tracking.follow import Follower, only_writer

    storage = Storage.of(arguments.storage)
    folder = storage.find(arguments.name)
    state = load(folder)
    given = arguments.tracking_uri
    uri = tracking.absolute(tracked_at(state, storage, folder) if given is None else given)
    tracking.check(uri)
    sessions = state.sessions
    elsewhere = storage.prefix is not None and not is_driven(folder)
    if elsewhere and sessions and uri == sessions[-1].tracking_uri and storage.is_driven(folder):
        raise InputError("the study's driver is tracking it already", file=folder)
    closing = threading.Event()
    closing.set()
    with only_writer(folder, wait=False) as free:
        if not free:
            raise InputError("the study's driver is tracking it already", file=folder)
        follower = Follower(folder, uri, thorough=True)
        done = follower.run(closing)
    lines, unsent = follower.projection.num_lines, follower.projection.num_unsent
    print(f"{lines - unsent} ledger lines and {len(state.trials)} trials are in MLflow")
    for trial, error in follower.projection.refused.items():
        print(f"{trial} is refused: {str(error).splitlines()[0]}", file=sys.stderr)
    if not done:
        print(f"{unsent} lines are not; the same command tries them again", file=sys.stderr)
        return EXIT_UNSENT
    print(f"MLflow: {tracking.ui_command(uri)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
