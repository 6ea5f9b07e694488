"""`python -m study.data TASK`: check a data set, build its cache and describe its contents.

`python -m study.data convert TOOL SRC DST` turns an export of annotations into a folder data set;
its own --help explains it. (If your task file is called `convert`, write `./convert`.)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from study.core.console import Parser, exit_code, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code.

    Data that cannot be used give exit code 2 and one line, or a list of all faults of the files.
    """
    given = [*(sys.argv[1:] if argv is None else argv)]
    if given[:1] == ["convert"]:
        return exit_code(partial(_convert, given[1:]))
    parser = Parser("data", __doc__)
    parser.add_argument("task", metavar="TASK", help="a task file, or the name of a shipped task")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder that holds the data")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.png", help="write a contact sheet of images and labels"
    )
    return run_command(parser, _check, given)


def _convert(argv: Sequence[str]) -> int:
    from study.data.convert.command import main as convert

    return convert(argv)


def _check(arguments: argparse.Namespace) -> int:
    from study.data.check import check

    return check(arguments)


if __name__ == "__main__":
    sys.exit(main())
