"""Packs a finished study as the one that comes with the package, for `python -m study.demo`.

    python -m docs.record_demo FOLDER                     # with its pictures, into the package
    python -m docs.record_demo FOLDER docs/NAME.tar.xz    # its numbers alone, for docs/numbers.py

The folder is only read. Its exports and weights are there: the networks draw the pictures, and stay
behind. Ledger, task and space are packed as they are, the arrays of the evidence as they are, too,
but left to the archive to compress. The same study gives the same bytes.
"""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import numpy as np

from study.analysis import evidence
from study.analysis.answer import answer
from study.core.files import write_bytes
from study.ledger.journal import LEDGER
from study.reporting import pictures
from study.reporting.recorded import ARCHIVE, PANELS
from study.storage.studies import load


def packed(folder: Path, *, with_pictures: bool = True) -> bytes:
    """The archive of the study in a folder."""
    files = {name: (folder / name).read_bytes() for name in (LEDGER, "task.yaml", "space.yaml")}
    for path in sorted((folder / evidence.FOLDER).glob("*.npz")):
        files[f"{evidence.FOLDER}/{path.name}"] = _uncompressed(path)
    if with_pictures:
        state = load(folder)
        drawn = pictures.pictures(folder, state, answer(state, folder), trust=False)
        if isinstance(drawn, str):
            raise SystemExit(drawn)
        files[PANELS] = pictures.pack(drawn)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _uncompressed(path: Path) -> bytes:
    buffer = io.BytesIO()
    with np.load(path, allow_pickle=False) as arrays:
        np.savez(buffer, **arrays)
    return buffer.getvalue()


if __name__ == "__main__":
    folder, *out = map(Path, sys.argv[1:])
    write_bytes(*out or [ARCHIVE], packed(folder, with_pictures=not out))
