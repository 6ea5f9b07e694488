"""Switches off the telemetry of dependencies: nothing about a study leaves the machine."""

from __future__ import annotations

import os

MLFLOW_OFF = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
OFF = {
    **MLFLOW_OFF,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def turn_off() -> None:
    """Set the switches for this process and its children."""
    os.environ.update(OFF)
