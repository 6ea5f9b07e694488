"""NAME and --storage, the arguments of every command that reads one study."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.errors import InputError

if TYPE_CHECKING:
    from study.ledger.state import State
    from study.storage.studies import Storage

STUDIES = "studies"  # the default of --storage


@dataclass(frozen=True)
class StoredStudy:
    """A study that a command reads: its storage, its folder and its state."""

    storage: Storage
    folder: Path
    state: State


def add_study(parser: argparse.ArgumentParser, *, other: str = "", several: bool = False) -> None:
    """Add NAME and --storage. other: what else NAME may be, for --help. several: NAME may be given
    several times, as `names`."""
    text = f"a study in the storage, or the path of its folder{other}"
    if several:
        parser.add_argument("names", nargs="+", metavar="NAME", help=text)
    else:
        parser.add_argument("name", help=text)
    parser.add_argument(
        "--storage",
        default=STUDIES,
        metavar="DIR",
        help="folder of all studies, or s3://BUCKET/PREFIX (default: ./studies)",
    )


def open_study(arguments: argparse.Namespace, *, whole: bool = True) -> StoredStudy:
    """Load the study that NAME and --storage name. Raises InputError if there is none.

    whole: fetch all files of a study in a bucket, not only its ledger.
    """
    return _open(arguments.storage, arguments.name, whole=whole)


def open_studies(arguments: argparse.Namespace) -> list[StoredStudy]:
    """Load the studies that the NAMEs and --storage name, with all their files. Raises InputError
    for a study that is not there, or named twice."""
    found: list[StoredStudy] = []
    for name in arguments.names:
        one = _open(arguments.storage, name, whole=True)
        if any(one.folder.resolve() == other.folder.resolve() for other in found):
            raise InputError(f"the study {name!r} is named twice", key="NAME")
        found.append(one)
    return found


def _open(where: str, name: str, *, whole: bool) -> StoredStudy:
    from study.storage.studies import Storage, load

    storage = Storage.of(where)
    folder = storage.find(name, whole=whole)
    return StoredStudy(storage, folder, load(folder))
