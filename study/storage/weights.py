"""Stores the weights of confirmed trainings, from a trial's end until the exports have them, and
those of teachers.

They are ``weights/<trial>.safetensors`` below a study's folder or, with storage in a bucket, below
its prefix: whole, or not there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.config.task import TrialConfig
from study.core.files import whole
from study.core.names import WEIGHTS
from study.losses.config import LossConfig, WeightsTeacher
from study.storage.s3.bucket import S3Prefix, StorageUnavailable

SUFFIX = ".safetensors"
TEACHER_FILE = "teacher-{}.safetensors"  # of an export's teacher, by the start of its sha256
Save = Callable[[Path], None]


@dataclass(frozen=True)
class WeightsStore:
    """The weights of a study's confirmed trainings.

    Args:
        folder: of the study.
        prefix: its place in a bucket, where the weights are then.
        patience: seconds that a trial waits at most for a bucket that does not answer.
        again: seconds between two tries.
    """

    folder: Path
    prefix: S3Prefix | None = None
    patience: float = 60.0
    again: float = 5.0

    def keep(self, trial: str, save: Save) -> str:
        """Store what `save` writes to a path it is given; return in words why it is not stored, or
        "".

        It must not cost a trial that its weights cannot be kept.
        """
        try:
            if self.prefix is not None:
                return self._send(self.prefix, trial, save)
            if not self.folder.is_dir():
                return f"this node cannot see the study's folder: {self.folder}"
            save(self.folder / _key(trial))
        except OSError as error:
            return f"{error.strerror}: {error.filename}"
        except ValueError as error:
            return str(error)
        return ""

    def _send(self, prefix: S3Prefix, trial: str, save: Save) -> str:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{trial}{SUFFIX}"
            save(path)
            while True:
                try:
                    with open(path, "rb") as file:
                        prefix.put(_key(trial), file)
                    return ""
                except StorageUnavailable as error:
                    if time.monotonic() - start >= self.patience:
                        return str(error)
                time.sleep(self.again)

    def copy(self, trial: str, to: Path) -> bool:
        """Copy the weights of a trial to a file; return False if there are none, or if the bucket
        does not answer."""
        if self.prefix is not None:
            try:
                return self.prefix.download(_key(trial), to)
            except StorageUnavailable:
                return False
        try:
            copy_file(self.folder / _key(trial), to)
        except FileNotFoundError:
            return False
        return True

    def stored(self, trial: str) -> tuple[str, str] | None:
        """The file of a trial's weights on this machine, fetched from the bucket if need be, and
        its sha256; None if there are none."""
        file = self.folder.absolute() / _key(trial)
        if not file.is_file():
            if self.prefix is None:
                return None
            file.parent.mkdir(parents=True, exist_ok=True)
            if not self.copy(trial, file):
                return None
        return str(file), weights_block(file)["weights"]["sha256"]

    def fetch_teacher(self, config: TrialConfig) -> None:
        """Put the weights of a trial's teacher, which this study has trained, where the config says
        that they are, if they are in the bucket alone."""
        teacher = config.loss.teacher if isinstance(config.loss, LossConfig) else None
        if self.prefix is None or not isinstance(teacher, WeightsTeacher):
            return
        file = Path(teacher.weights)
        if file.parent == self.folder.absolute() / WEIGHTS and not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            self.copy(file.stem, file)

    def copy_teacher(self, weights: str, sha256: str, to: Path) -> bool:
        """Put the weights of a teacher into a file; return False where they are no longer there.

        weights: where they were; those that this study has trained are found where it is now.
        """
        if _is_of(to, sha256):
            return True
        source = Path(weights)
        if _is_of(source, sha256):
            copy_file(source, to)
            return True
        if self.copy(source.stem, to) and _is_of(to, sha256):
            return True
        to.unlink(missing_ok=True)
        return False

    def keep_only(self, trials: Collection[str]) -> None:
        """Remove the weights of all other trials, and what killed processes left."""
        kept = {_key(trial) for trial in trials}
        if self.prefix is not None:
            try:
                there = [item.key for item in self.prefix.items(f"{WEIGHTS}/")]
                self.prefix.delete([key for key in there if key not in kept])
            except StorageUnavailable:
                pass  # the next session removes them
            return
        for path in (self.folder / WEIGHTS).glob("*"):
            if f"{WEIGHTS}/{path.name}" not in kept:
                path.unlink(missing_ok=True)


def weights_block(file: Path) -> dict[str, Any]:
    """The block of an export that names the weights beside it."""
    return {"weights": {"file": file.name, "sha256": _sha256(file)}}


def teacher_file(sha256: str) -> str:
    """The name of a teacher's weights beside an export."""
    return TEACHER_FILE.format(sha256[:12])


def copy_file(source: Path, to: Path) -> None:
    """Copy a file so that a reader finds it whole or not at all."""
    with open(source, "rb") as content, whole(to) as file:
        shutil.copyfileobj(content, file)


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _is_of(file: Path, sha256: str) -> bool:
    return file.is_file() and _sha256(file) == sha256


def open_weights_store(folder: Path, prefix: str | None) -> WeightsStore:
    """The weights of a study: in the bucket at the address `prefix`, else in its folder."""
    return WeightsStore(folder, None if prefix is None else S3Prefix.parse(prefix))


def _key(trial: str) -> str:
    return f"{WEIGHTS}/{trial}{SUFFIX}"
