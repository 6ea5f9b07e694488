"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from study.core.errors import InputError, OutputError


def expanded(path: str | Path, key: str) -> Path:
    """`path` with its `~` resolved. Raises InputError where nobody of that name has a home."""
    if "\0" in str(path):
        raise InputError(f"a path must not contain a null byte, got {str(path)!r}", key=key)
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"unknown home folder in {str(path)!r}", key=key) from error


def made_folder(path: str | Path, key: str) -> Path:
    """The folder, made where it is missing. Raises InputError unless files can be made in it."""
    try:
        if not str(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Path(path)
    except OSError as error:
        message = f"cannot write into folder {str(path)!r}: {error.strerror}"
        raise InputError(message, key=key) from error


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when it is complete; missing folders are made.

    Raises OSError with the name of `path`, OutputError where such a file cannot be placed. What was
    there before is then still there.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with _placing(path):
            partial.touch()
        with open(partial, "wb") as file:
            yield file
        with _placing(path):
            os.replace(partial, path)
    except OutputError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def make_folder(path: Path) -> None:
    """Make the folder where it is missing. Raises OutputError where it cannot be made."""
    with _placing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _placing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write the file whole or not at all."""
    with whole(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write the file, in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())
