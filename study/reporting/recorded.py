"""The study that comes with the package: a recorded one, for a look without training

``study/_demo/joint-synthetic.tar.xz`` holds the ledger and the evidence of a default study as they
were written, its task and space, and the panels of its pictures in place of the networks' weights.
"""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

from study.analysis.answer import Answer, answer
from study.core.errors import InputError
from study.core.files import is_free, made_folder, write_bytes
from study.ledger.journal import LEDGER
from study.ledger.state import State
from study.reporting.exports import write_exports
from study.reporting.html import write_page
from study.reporting.pictures import Pictures, unpack
from study.storage.studies import load
from study.storage.weights import WeightsStore

ARCHIVE = Path(__file__).resolve().parents[1] / "_demo" / "joint-synthetic.tar.xz"
PANELS = "pictures.npz"


def recorded_files(path: Path | None = None) -> Mapping[str, bytes]:
    """The files of a recorded study, by their names in its folder, and its `PANELS`, if any.
    path: of another archive than the package's."""
    path = path or ARCHIVE
    try:
        with tarfile.open(path, "r:xz") as archive:
            opened = {one.name: archive.extractfile(one) for one in archive}
            return {name: file.read() for name, file in opened.items() if file is not None}
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        hint = "install the package again"
        raise InputError("cannot read the recorded study", hint=hint, file=path) from error


def recorded_pictures() -> Pictures:
    """The pictures of the recorded study."""
    return unpack(recorded_files()[PANELS])


def unpack_recorded(folder: Path, path: Path | None = None) -> tuple[State, Answer]:
    """Write a recorded study into a folder; return its state, and its answer by today's analysis.

    Raises InputError where the folder holds something else, or cannot be written to.
    """
    files = recorded_files(path)
    ledger = folder / LEDGER
    if not is_free(folder) and not (ledger.is_file() and ledger.read_bytes() == files[LEDGER]):
        hint = "name another folder"
        raise InputError(f"{str(folder)!r} holds something else", hint=hint, key="--out")
    made_folder(folder, "--out")
    for name, content in files.items():
        if name != PANELS:
            write_bytes(folder / name, content)
    state = load(folder)
    return state, answer(state, folder)


def write_recorded(folder: Path) -> tuple[State, Answer, Path]:
    """Write the recorded study with its exports and the page of its report into a folder, by
    today's code; return its state, its answer and the page's path. Raises InputError as
    `unpack_recorded`."""
    state, found = unpack_recorded(folder)
    write_exports(folder, state, found, WeightsStore(folder))
    return state, found, write_page(folder, state, found, recorded_pictures())
