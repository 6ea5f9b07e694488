"""Tells somebody that a session has ended, by a command of the user's own."""

from __future__ import annotations

import os
import subprocess
from typing import Literal

from study.core.errors import printable

PATIENCE = 60.0  # seconds that the command may take
Event = Literal["finished", "budget_spent", "interrupted", "failed"]


def notify(command: str, study: str, event: Event, message: str) -> str:
    """Run the shell command; return in words what went wrong with it, or "".

    It finds STUDY_NAME, STUDY_EVENT and STUDY_MESSAGE (one line) in its environment. It must not
    change how a study ends.
    """
    told = {"STUDY_NAME": study, "STUDY_EVENT": event, "STUDY_MESSAGE": printable(message)}
    try:
        done = subprocess.run(
            command,
            shell=True,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the command of --notify has taken longer than {PATIENCE:.0f} s and was ended"
    except OSError as error:
        return f"the command of --notify could not be run: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().split("\n")[-1]
    return f"the command of --notify ended with code {done.returncode}: {printable(said)}"
