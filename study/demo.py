"""`python -m study.demo`: show the report of a recorded study, without data, training or network.

The study is one that `python -m study.run` has made. Its ledger, evidence and pictures come with
the package. This command writes the report and the exports from them. Every command that reads a
study accepts the folder: `python -m study.report study-demo`.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from study.core.console import Parser, run_command, show
from study.core.files import expanded

FOLDER = "study-demo"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("demo", __doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(FOLDER),
        metavar="DIR",
        help=f"folder that the study is written to (default: ./{FOLDER})",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the report")
    return run_command(parser, _demo, argv)


def _demo(arguments: argparse.Namespace) -> None:
    from study.analysis.classes import classes
    from study.reporting import headline
    from study.reporting.recorded import write_recorded

    folder = expanded(arguments.out, "--out")
    state, found, page = write_recorded(folder)
    show("A recorded study; nothing is trained now.", headline.cost(state), "")
    show(*headline.sentences(state, found, classes(state, folder, found)))
    show("", f"report: {page}", flush=True)
    if not arguments.no_browser and _has_display():
        webbrowser.open(page.resolve().as_uri())


def _has_display() -> bool:
    """Whether a browser gets a window: without one, some take over the terminal."""
    shown = ("DISPLAY", "WAYLAND_DISPLAY")
    return sys.platform == "darwin" or any(os.environ.get(name) for name in shown)


if __name__ == "__main__":
    sys.exit(main())
