"""Atomic files: a file is complete or not there."""

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
    """Return `path` with its `~` resolved. Raises InputError if it names an unknown home."""
    if "\0" in str(path):
        raise InputError(f"a path must not contain a null byte, got {str(path)!r}", key=key)
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"unknown home folder in {str(path)!r}", key=key) from error


def resolved(path: str | Path, key: str) -> Path:
    """Return `path` as `expanded` does, absolute and without symbolic links. Raises InputError if
    these lead in a circle."""
    path = expanded(path, key)
    try:
        path.stat()  # from Python 3.13 on, `resolve` says nothing of a circle
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"a loop of symbolic links: {path}", key=key) from error
    return path.resolve()


def is_free(path: Path) -> bool:
    """Whether nothing is at the path, or an empty folder."""
    return not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir()))


def made_folder(path: str | Path, key: str) -> Path:
    """Return the folder, made if it is missing. Raises InputError if it is not writable."""
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
    """Yield a file to write, which replaces `path` when it is complete; make missing folders.

    Raises OSError with the name of `path`, OutputError if such a file cannot be placed there. The
    old file then remains.
    """
    make_folder(path.parent)
    if path.exists() and not (path.is_file() or path.is_dir()):  # it would be gone: /dev/null
        raise OutputError(errno.EEXIST, "not a regular file", str(path))
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
    """Make the folder if it is missing. Raises OutputError if it cannot be made."""
    with _placing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _placing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error.errno, error.strerror, str(path)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write the file atomically."""
    with whole(path) as file:
        file.write(content)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, which is made if it is missing. OSError names the file."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write the file atomically, in UTF-8."""
    write_bytes(path, text.encode())
