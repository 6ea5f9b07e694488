"""`python -m study.ui NAME`: show a study in MLflow, the best trials first.

It starts MLflow's server for the study's database, on this machine only (127.0.0.1) and without
telemetry. It prints the link to the table of trials and opens it in a browser. The server runs
until Ctrl-C. If the study is tracked on another server, the command prints and opens the link
there.
"""

from __future__ import annotations

import argparse
import sys
import threading
import webbrowser
from collections.abc import Sequence

from study.core.console import Parser, run_command, show
from study.core.errors import InputError
from study.storage.arguments import add_study, open_study


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("ui", __doc__)
    add_study(parser)
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow server or database (default: that of the study)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=5000,
        metavar="N",
        help="port of the server (default: 5000, or a free one)",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the link")
    return run_command(parser, _show, argv)


def _show(arguments: argparse.Namespace) -> int:
    from study import tracking
    from study.analysis.rules import rules_of
    from study.session.prepare import tracked_at
    from study.tracking.ui import experiment_of, free_port, link, serving
    from study.tracking.uri import sqlite_path

    if not 1 <= arguments.port <= 65535:
        raise InputError(f"port must be in [1, 65535], got {arguments.port}", key="--port")
    study = open_study(arguments)
    state, given = study.state, arguments.tracking_uri
    assert state.study is not None
    uri = tracked_at(state, study.storage, study.folder) if given is None else given
    uri = tracking.absolute(uri)
    tracking.check(uri)
    name = state.study.name
    experiment = experiment_of(uri, state.study.task_name, name)
    metric = rules_of(state)[0].test_miou if state.finished else rules_of(state)[0].val_miou
    path = sqlite_path(uri)
    if path is None:
        _open(link(uri, experiment, name, metric), browser=not arguments.no_browser)
        return 0
    with serving(path, free_port(arguments.port)) as address:
        _open(link(address, experiment, name, metric), browser=not arguments.no_browser)
        show("Ctrl-C ends the server", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            show("")
    return 0


def _open(page: str, *, browser: bool) -> None:
    show(f"MLflow: {page}", flush=True)
    if browser:
        webbrowser.open(page)


if __name__ == "__main__":
    sys.exit(main())
