"""The lock of a study's folder: one session at a time, and looks that do not get in its way."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from study.core.errors import InputError
from study.storage.session_lock import LOCK, SessionLock, is_driven


def test_a_study_is_driven_while_a_session_holds_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    assert not is_driven(folder)
    lock = SessionLock(folder)
    assert is_driven(folder)
    with pytest.raises(InputError, match="another driver is working"):
        SessionLock(folder)
    lock.close()
    assert not is_driven(folder)


def test_a_look_at_the_lock_does_not_keep_a_session_out(tmp_path: Path) -> None:
    SessionLock(tmp_path).close()
    with open(tmp_path / LOCK, encoding="utf-8") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.15, lambda: fcntl.flock(look, fcntl.LOCK_UN)).start()
        SessionLock(tmp_path).close()
