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
            with open(self.folder / _key(trial), "rb") as source, whole(to) as file:
                shutil.copyfileobj(source, file)
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
        loss = config.loss
        distillation = loss.distillation if isinstance(loss, LossConfig) else None
        teacher = distillation.teacher if distillation is not None else None
        if self.prefix is None or not isinstance(teacher, WeightsTeacher):
            return
        file = Path(teacher.weights)
        if file.parent == self.folder.absolute() / WEIGHTS and not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            self.copy(file.stem, file)

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
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"weights": {"file": file.name, "sha256": digest}}


def open_weights_store(folder: Path, prefix: str | None) -> WeightsStore:
    """The weights of a study: in the bucket at the address `prefix`, else in its folder."""
    return WeightsStore(folder, None if prefix is None else S3Prefix.parse(prefix))


def _key(trial: str) -> str:
    return f"{WEIGHTS}/{trial}{SUFFIX}"
