"""Processes that train for another one: how they are started, and how they begin."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any, TextIO

_PR_SET_PDEATHSIG = 1  # prctl.h


def started(module: str) -> subprocess.Popen[str]:
    """Start a module of this package in a session of its own, with this process' import path. Its
    order goes into its standard input, which stays open as long as it is wanted; what it says comes
    in lines from its standard output."""
    path = os.pathsep.join(one for one in sys.path if one)
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def begun() -> tuple[dict[str, Any], TextIO]:
    """In such a process: its order, and where it says things; whatever else it prints goes to
    standard error. From here on it ends when its parent does."""
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    _end_with_parent()
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return order, out


def _end_with_parent() -> None:
    """Let this process end when its parent does, however that ends: its standard input closes, and
    on Linux it is killed, also where it is stopped."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def wait() -> None:
        while os.read(0, 4096):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
