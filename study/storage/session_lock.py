"""A lock on a file in the study's folder: one session at a time works on a study."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import TextIO

from study.core.errors import InputError
from study.core.files import make_folder

LOCK = "lock"
LOOKS = 5  # attempts, as `is_driven` may hold the lock for a moment


class SessionLock:
    """Holds the lock of the study in a folder, which it makes if missing, until `close`.

    Raises:
        InputError: if another process holds it.
        OutputError: if the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        file = _lock(folder / LOCK)
        if file is None:
            raise InputError("another driver is working on this study", file=folder)
        self._file = file

    def close(self) -> None:
        """Release the lock."""
        self._file.close()


def is_driven(folder: Path) -> bool:
    """Whether a driver works on the study now."""
    try:
        with open(folder / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(path: Path) -> TextIO | None:
    """Return the locked file; None if another process keeps the lock through all attempts."""
    file = open(path, "w", encoding="utf-8")  # noqa: SIM115
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.1)
        else:
            return file
    file.close()
    return None
