"""Which commands start Ray: a test that gives one is to be marked `ray`."""

from __future__ import annotations

import os
from collections.abc import Sequence

RAY = {"gcs_server", "raylet", "study.run", "benchmarks.chaos"}
STARTS_NOTHING = {"--help", "--dry-run"}


def starts_ray(command: Sequence[object] | str | bytes) -> bool:
    """Whether a command starts Ray, or a study, by its words."""
    if isinstance(command, str | bytes):
        return False
    words = {os.path.basename(os.fsdecode(word)) for word in command if isinstance(word, str)}
    return bool(words & RAY) and not words & STARTS_NOTHING
