"""`python -m study.track NAME`: bring MLflow in line with a study's ledger, or rebuild its runs.

Running it twice changes nothing: MLflow has the same runs and the same points.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import add_study, open_study

EXIT_UNSENT = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code, which is 1 if MLflow still lacks some lines."""
    parser = Parser("track", __doc__)
    add_study(parser)
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or database (default: that of the study)",
    )
    parser.add_argument(
        "--register",
        metavar="MODEL",
        type=_model_name,
        help="also register the network of the export best_miou in MLflow's model registry, as a "
        "version of MODEL, unless it is registered already. "
        "`mlflow.pyfunc.load_model('models:/MODEL/1')` then predicts classes",
    )
    return run_command(parser, _track, argv)


def _model_name(text: str) -> str:
    if not text.strip() or set(text) & set("/:"):
        raise argparse.ArgumentTypeError(f"a name without / and : is needed, got {text!r}")
    return text


def _track(arguments: argparse.Namespace) -> int:
    from study import tracking
    from study.session.prepare import tracked_at
    from study.storage.session_lock import is_driven
    from study.tracking.follow import Follower, only_writer

    study = open_study(arguments)
    storage, folder, state = study.storage, study.folder, study.state
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
        follower = Follower(folder, uri, thorough=True, say=show)
        done = follower.run(closing)
    lines, unsent = follower.projection.num_lines, follower.projection.num_unsent
    show(f"{lines - unsent} ledger lines and {len(state.trials)} trials are in MLflow")
    for trial, error in follower.projection.refused.items():
        show(f"{trial} is refused: {str(error).splitlines()[0]}", file=sys.stderr)
    if not done:
        missing = f"{unsent} lines are not" if unsent else "not all files are"
        show(f"{missing}; the same command tries them again", file=sys.stderr)
        return EXIT_UNSENT
    if arguments.register is not None:
        show(follower.projection.register(arguments.register))
    show(f"MLflow: {tracking.ui_command(uri)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
