"""What a node must have for the trials of a study, beside this package: its storage, its data, its
GPUs.

A `Probe` is made by the driver and asked on the node, in a process there. It opens the data, so
that the node has its cache before its first trial.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from study.config.task import Data
from study.core.errors import InputError
from study.storage.s3.bucket import S3Prefix, StorageUnavailable


@dataclass(frozen=True)
class Probe:
    """What the driver asks of a node.

    folder: of all studies; None where trials need not see it. prefix: their address in a bucket;
    None for a folder. nonce: what the driver has written there. data: of each task, with their
    fingerprint. gpus: how many GPUs torch must find at least.
    """

    folder: Path | None = None
    prefix: str | None = None
    nonce: str = ""
    data: tuple[tuple[Data, str], ...] = ()
    gpus: int = 0

    def trouble(self, on_progress: Callable[[], object] | None = None) -> str:
        """What this node lacks, in words; empty where it lacks nothing.

        on_progress: called after each image that is decoded.
        """
        return self._storage() or self._devices() or self._contents(on_progress)

    def _storage(self) -> str:
        key = nonce_key(self.nonce)
        try:
            if self.prefix is not None:
                prefix = S3Prefix.parse(self.prefix)
                found = prefix.get(key)
                if found is None or found.data.decode() != self.nonce:
                    return f"it does not see what the driver has written to {prefix.where}"
            elif self.folder is not None:
                if not (self.folder / key).is_file() or self._read(key) != self.nonce:
                    return f"it does not see what the driver has written into {self.folder}"
                own = self.folder / f"{key}-{secrets.token_hex(8)}"
                own.touch()
                own.unlink()
        except OSError as error:
            return f"it cannot write into {self.folder}: {error.strerror or error}"
        except (StorageUnavailable, InputError) as error:
            return f"it cannot use the storage: {error}"
        return ""

    def _read(self, key: str) -> str:
        assert self.folder is not None
        return (self.folder / key).read_text(encoding="utf-8")

    def _devices(self) -> str:
        if not self.gpus:
            return ""
        import torch

        if torch.cuda.is_available():
            return ""
        return f"Ray counts {self.gpus} GPU{'s' * (self.gpus != 1)} there, and torch finds none"

    def _contents(self, on_progress: Callable[[], object] | None) -> str:
        from study.data import open_data

        for config, fingerprint in self.data:
            try:
                found = open_data(config, on_progress=on_progress, begun=True).fingerprint
            except InputError as error:
                return f"its data cannot be opened there: {error}"
            if found != fingerprint:
                root = getattr(config, "root", None)
                place = f" in {root}" if root else ""
                digests = f"fingerprint {found[:12]}, here {fingerprint[:12]}"
                return f"it has other data{place} ({digests})"
        return ""


def ask(probe: Probe) -> str:
    """What the node lacks, in a process of its own there. Ray hides the GPUs from a process that
    asks for none."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return probe.trouble()


@contextmanager
def nonce_in(storage: Path, prefix: S3Prefix | None, study: str) -> Iterator[str]:
    """Write a fresh nonce for a session of a study into the storage of all studies; remove it, and
    a folder that was made for it and stays empty, at the end of the block.

    Raises InputError where the storage cannot be written to.
    """
    nonce = f"{study}-{secrets.token_hex(16)}"
    if prefix is not None:
        with _as_input_error():
            prefix.put(nonce_key(nonce), nonce.encode())
        try:
            yield nonce
        finally:
            with suppress(StorageUnavailable):  # an object of some bytes stays
                prefix.delete([nonce_key(nonce)])
        return
    is_new = not storage.is_dir()
    with _as_input_error():
        storage.mkdir(parents=True, exist_ok=True)
        for left_over in storage.glob(f"{nonce_key(study)}-*"):
            left_over.unlink(missing_ok=True)
        (storage / nonce_key(nonce)).write_text(nonce, encoding="utf-8")
    try:
        yield nonce
    finally:
        with suppress(OSError):
            (storage / nonce_key(nonce)).unlink(missing_ok=True)
            if is_new:
                storage.rmdir()


def nonce_key(nonce: str) -> str:
    """The name of the file or object with a nonce."""
    return f".nonce-{nonce}"


@contextmanager
def _as_input_error() -> Iterator[None]:
    try:
        yield
    except StorageUnavailable as error:
        raise error.as_input_error() from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write into the storage: {reason}", key="--storage") from error
