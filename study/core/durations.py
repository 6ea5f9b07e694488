"""Durations as people write them: 90s, 30m, 2h."""

from __future__ import annotations

import re

SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> float | None:
    """The seconds of a duration; None for text that is none.

    Examples:
        >>> from study.core.durations import seconds
        >>> seconds("90s"), seconds("1.5h"), seconds("soon")
        (90.0, 5400.0, None)
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    return None if match is None else float(match[1]) * SECONDS[match[2]]
