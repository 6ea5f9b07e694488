"""The storage of all studies: a folder, or a bucket prefix with a local working folder.

A study writes only to a folder. The working folder of a bucket is below ``$STUDY_WORK_DIR``, else
``~/.local/share/segmentation-loss-study``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from study.core.console import show
from study.core.errors import InputError, did_you_mean
from study.core.files import expanded, resolved
from study.ledger.journal import LEDGER, replay
from study.ledger.state import State
from study.storage.s3 import lease
from study.storage.s3.bucket import S3Prefix, StorageUnavailable, is_remote
from study.storage.s3.mirror import fetch_files, fetch_ledger
from study.storage.s3.segments import segments
from study.storage.s3.shipper import FileShipper
from study.storage.session_lock import is_driven

WORK_VARIABLE = "STUDY_WORK_DIR"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TAKEN = ("mlflow.db", "mlartifacts")  # names that the storage itself uses


def find(name: str, storage: Path) -> Path:
    """The folder of a study, given its name below `storage` or its path."""
    storage = expanded(storage, "--storage")
    for folder in (storage / name, expanded(name, "NAME")):
        if _is_file(folder / LEDGER):
            return folder.resolve()
    raise _unknown(name, storage, [path.parent.name for path in storage.glob(f"*/{LEDGER}")])


def _unknown(name: str, where: object, found: Iterable[str]) -> InputError:
    names = sorted(found)
    message = f"no study named {name!r} in {where}/"
    return InputError(message, found=names, hint=did_you_mean(name, names))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # for instance, the name is too long
        return False


def as_name(stem: str) -> str:
    """Turn a file's name, which may hold anything, into a study's name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", stem).lstrip("._-")[:80] or "study"
    return f"{name}_" if name in TAKEN else name


def new_folder(storage: Path, name: str | None, stem: str) -> Path:
    """Choose the folder of a new study below `storage`: the name, else the stem and the first free
    number.

    Does not make it.
    """
    try:
        storage = resolved(storage, "--storage")
        existing = next(path for path in (storage, *storage.parents) if path.exists())
    except OSError as error:
        message = f"cannot use the folder: {error.strerror} ({len(str(storage))} characters)"
        raise InputError(message, key="--storage") from error
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise InputError("not a folder that can be written to", file=existing, key="--storage")
    if name is None:
        stem = as_name(stem)
        count = 1
        while (storage / (stem if count == 1 else f"{stem}-{count}")).exists():
            count += 1
        return storage / (stem if count == 1 else f"{stem}-{count}")
    if not NAME.fullmatch(name):
        raise InputError(
            f"invalid name {name!r}",
            allowed="1 to 100 letters, digits, '.', '_' and '-', a letter or a digit first",
            key="--name",
        )
    folder = storage / name
    if folder.exists() or name in TAKEN:
        there = f"{folder} exists already" if folder.exists() else "MLflow's data use this name"
        raise name_in_use(there, name if _is_file(folder / LEDGER) else None)
    return folder


def name_in_use(there: str, resumable: str | None = None) -> InputError:
    """The error for a new study's name that is not free."""
    resume = "" if resumable is None else f"resume it with --resume {resumable}, or "
    return InputError(there, hint=f"{resume}choose another --name", key="--name")


def load(folder: Path) -> State:
    """The state of the study in this folder."""
    path = folder / LEDGER
    if not path.is_file():
        raise InputError(f"no {LEDGER} of a study in this folder", file=folder)
    state = replay(path)
    if state.study is None:
        hint = ""
        if is_driven(folder):
            hint = "its driver is about to write it"
        elif not (state.trials or state.sessions):
            hint = "remove the folder and begin anew"
        raise InputError("the ledger lacks its first line", hint=hint, file=path)
    return state


def work_folder(prefix: S3Prefix) -> Path:
    """This machine's working folder for the studies at a prefix."""
    given = os.environ.get(WORK_VARIABLE)
    root = Path(given) if given else Path("~/.local/share/segmentation-loss-study")
    digest = hashlib.sha256(f"{prefix.endpoint}|{prefix.where}".encode()).hexdigest()
    return resolved(root, f"${WORK_VARIABLE}") / f"{prefix.name}-{digest[:8]}"


@dataclass(frozen=True)
class Storage:
    """All studies: in `folder`, or at `prefix` with `folder` as working folder."""

    folder: Path
    prefix: S3Prefix | None = None

    @classmethod
    def of(cls, given: str | Path) -> Storage:
        """Parse the value of ``--storage``. Raises InputError for an address of another kind."""
        if not is_remote(given):
            return cls(expanded(given, "--storage"))
        prefix = S3Prefix.parse(str(given))
        return cls(work_folder(prefix), prefix)

    def prefix_of(self, folder: Path) -> S3Prefix | None:
        """The bucket prefix of the study in a folder of this storage; None without a bucket."""
        if self.prefix is None or folder.parent != self.folder:
            return None
        return self.prefix.below(folder.name)

    def new_folder(self, name: str | None, stem: str) -> Path:
        """Choose the folder of a new study, without making it; its name is free in the bucket, too.

        Raises InputError if it is not, or if nothing can be written.
        """
        if self.prefix is None:
            return new_folder(self.folder, name, stem)
        self.prefix.check()
        stem = as_name(stem)
        taken = self._names()
        count = 1
        while True:
            wanted = name or (stem if count == 1 else f"{stem}-{count}")
            if name is None and (wanted in taken or (self.folder / wanted).exists()):
                count += 1
                continue
            if wanted in taken:
                raise name_in_use(f"{self.prefix.below(wanted).where} exists already", wanted)
            return new_folder(self.folder, wanted, stem)

    def find(self, name: str, *, whole: bool = True) -> Path:
        """The folder of a study, updated from the bucket unless its driver works in it.

        name: below the storage, else a path. whole: fetch all its files, not only the ledger.
        """
        if self.prefix is None:
            return find(name, self.folder)
        folder = self.folder / name
        if not NAME.fullmatch(name):
            return find(name, self.folder)
        if not is_driven(folder):
            try:
                self.fetch(folder, whole=whole)
            except StorageUnavailable as error:
                raise error.as_input_error() from error
        if not (folder / LEDGER).is_file():
            raise _unknown(name, self.prefix.where, self._names())
        return folder

    def resume_command(self, folder: Path) -> str:
        """The command that resumes the study in a folder, ready to paste into a shell."""
        name = shlex.quote(folder.name)
        command = "python -m study.run --resume" + (f"={name}" if name[0] == "-" else f" {name}")
        if self.prefix_of(folder) is not None and self.prefix is not None:
            return f"{command} --storage {shlex.quote(self.prefix.uri)}"
        if folder.parent.resolve() == Path("studies").resolve():
            return command
        return f"{command} --storage {shlex.quote(str(folder.parent.resolve()))}"

    def ship_files(self, folder: Path) -> None:
        """Ship the files that a command wrote in a study's folder, unless its driver ships them."""
        prefix = self.prefix_of(folder)
        if prefix is not None and not self.is_driven(folder):
            try:
                FileShipper(folder, prefix).ship()
            except StorageUnavailable as error:
                raise error.as_input_error() from error

    def is_driven(self, folder: Path) -> bool:
        """Whether a driver, on any machine, works on the study in a folder of this storage now."""
        prefix = self.prefix_of(folder)
        if prefix is None or is_driven(folder):
            return is_driven(folder)
        try:
            return lease.is_driven(prefix)
        except StorageUnavailable as error:
            raise error.as_input_error() from error

    def fetch(self, folder: Path, *, whole: bool = True) -> None:
        """Update a study's folder from the bucket. Raises StorageUnavailable."""
        prefix = self.prefix_of(folder)
        found = [] if prefix is None else segments(prefix)
        if prefix is None or not found:
            return
        aside = fetch_ledger(prefix, found, folder)
        if aside is not None:
            show(
                f"note: another driver has gone on with {folder.name}: the lines that only this "
                f"machine has are now in {aside}",
                file=sys.stderr,
            )
        if whole:
            fetch_files(prefix, folder)

    def _names(self) -> list[str]:
        assert self.prefix is not None
        try:
            return self.prefix.top()[1]
        except StorageUnavailable as error:
            raise error.as_input_error() from error
