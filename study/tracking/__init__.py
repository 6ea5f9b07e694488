"""MLflow projection of the ledger; a process beside the driver imports mlflow."""

from __future__ import annotations

from study.tracking.sidecar import Sidecar, start
from study.tracking.uri import absolute, check, check_form, default_uri, ui_command

__all__ = ["Sidecar", "absolute", "check", "check_form", "default_uri", "start", "ui_command"]
