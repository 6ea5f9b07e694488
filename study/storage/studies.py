"""Where all studies are: a folder, or a place in a bucket with a working folder on this machine.

What a study writes, it writes to a folder. That of a bucket is below ``$STUDY_WORK_DIR``, else
``~/.local/share/segmentation-loss-study``.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from study.core.errors import InputError
from study.core.files import expanded
from study.ledger import journal as ledger
from study.storage.s3.bucket import Bucket, Unreachable, is_remote
from study.storage.s3.lease import is_driven
from study.storage.s3.mirror import fetch_files, fetch_ledger
from study.storage.s3.segments import segments
from study.storage.s3.shipper import FileShipper

WORK_VARIABLE = "STUDY_WORK_DIR"


def work_folder(place: Bucket) -> Path:
    """This machine's folder for the studies at a place."""
    given = os.environ.get(WORK_VARIABLE)
    root = Path(given) if given else Path("~/.local/share/segmentation-loss-study")
    digest = hashlib.sha256(f"{place.endpoint}|{place.where}".encode()).hexdigest()
    return expanded(root, f"${WORK_VARIABLE}").resolve() / f"{place.name}-{digest[:8]}"


@dataclass(frozen=True)
class Storage:
    """All studies: in `folder` alone, or at `place`, with `folder` to work in."""

    folder: Path
    place: Bucket | None = None

    @classmethod
    def of(cls, given: str | Path) -> Storage:
        """What ``--storage`` names. Raises InputError for an address of another kind."""
        if not is_remote(given):
            return cls(expanded(given, "--storage"))
        place = Bucket.parse(str(given))
        return cls(work_folder(place), place)

    def place_of(self, folder: Path) -> Bucket | None:
        """Where the study in a folder of this storage lies in the bucket."""
        if self.place is None or folder.parent != self.folder:
            return None
        return self.place.below(folder.name)

    def new_folder(self, name: str | None, stem: str) -> Path:
        """The folder of a study to come, which is not made yet; its name is free in the bucket,
        too. Raises InputError where it is not, or where nothing can be written."""
        if self.place is None:
            return ledger.new_folder(self.folder, name, stem)
        self.place.check()
        stem = ledger.as_name(stem)
        taken = self._names()
        count = 1
        while True:
            wanted = name or (stem if count == 1 else f"{stem}-{count}")
            if name is None and (wanted in taken or (self.folder / wanted).exists()):
                count += 1
                continue
            if wanted in taken:
                raise InputError(
                    f"the name must be free, but {self.place.below(wanted).where} is there: "
                    f"--resume {wanted} goes on with it, another --name begins anew",
                    key="--name",
                )
            return ledger.new_folder(self.folder, wanted, stem)

    def find(self, name: str, *, whole: bool = True) -> Path:
        """The folder of a study, brought up to date with the bucket unless its driver works in it.

        name: below the storage, else a path. whole: with all its files, not the ledger alone.
        """
        if self.place is None:
            return ledger.find(name, self.folder)
        folder = self.folder / name
        if not ledger.NAME.fullmatch(name):
            return ledger.find(name, self.folder)
        if not ledger.is_driven(folder):
            try:
                self.fetch(folder, whole=whole)
            except Unreachable as error:
                raise error.as_input_error() from error
        if not (folder / ledger.LEDGER).is_file():
            known = ", ".join(self._names()) or "none"
            raise InputError(
                f"a study of the name must be in {self.place.where} ({known}), but got {name!r}"
            )
        return folder

    def resume_command(self, folder: Path) -> str:
        """What goes on with the study in a folder, as it can be pasted into a shell."""
        name = shlex.quote(folder.name)
        command = "python -m study.run --resume" + (f"={name}" if name[0] == "-" else f" {name}")
        if self.place_of(folder) is not None and self.place is not None:
            return f"{command} --storage {shlex.quote(self.place.uri)}"
        if folder.parent.resolve() == Path("studies").resolve():
            return command
        return f"{command} --storage {shlex.quote(str(folder.parent.resolve()))}"

    def ship_files(self, folder: Path) -> None:
        """Ship what a command has written in a study's folder; its driver, if it has one, does."""
        place = self.place_of(folder)
        if place is not None and not self.is_driven(folder):
            try:
                FileShipper(folder, place).ship()
            except Unreachable as error:
                raise error.as_input_error() from error

    def is_driven(self, folder: Path) -> bool:
        """Whether a driver works on the study in a folder of this storage now, on any machine."""
        place = self.place_of(folder)
        if place is None or ledger.is_driven(folder):
            return ledger.is_driven(folder)
        try:
            return is_driven(place)
        except Unreachable as error:
            raise error.as_input_error() from error

    def fetch(self, folder: Path, *, whole: bool = True) -> None:
        """Bring a study's folder up to date with the bucket. Raises Unreachable."""
        place = self.place_of(folder)
        found = [] if place is None else segments(place)
        if place is None or not found:
            return
        aside = fetch_ledger(place, found, folder)
        if aside is not None:
            print(
                f"note: another driver has gone on with {folder.name}: the lines that only this "
                f"machine has are now in {aside}",
                file=sys.stderr,
            )
        if whole:
            fetch_files(place, folder)

    def _names(self) -> list[str]:
        assert self.place is not None
        try:
            return self.place.top()[1]
        except Unreachable as error:
            raise error.as_input_error() from error
