"""NAME and --storage, the arguments of every command that reads one study."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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


def add_study(parser: argparse.ArgumentParser, *, other: str = "") -> None:
    """Add NAME and --storage. other: what else NAME may be, for --help."""
    parser.add_argument("name", help=f"a study in the storage, or the path of its folder{other}")
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
    from study.storage.studies import Storage, load

    storage = Storage.of(arguments.storage)
    folder = storage.find(arguments.name, whole=whole)
    return StoredStudy(storage, folder, load(folder))
