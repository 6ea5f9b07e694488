"""Nothing of a study is told to anyone: the telemetry of our dependencies is off."""

from __future__ import annotations

import os

OFF = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def turn_off() -> None:
    """Set the switches for this process and those it starts."""
    os.environ.update(OFF)
