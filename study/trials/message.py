"""What a trial says after each epoch, to a study or to a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EpochMessage:
    """A trial has ended an epoch.

    evidence: the bytes of an npz file, with the last epoch of a confirmation. environment: of this
    process, with the first message of an attempt. trouble: why the latest checkpoint is not
    written yet; empty where nothing is wrong. no_weights: why the weights are not kept, likewise.
    """

    epoch: int
    metrics: Mapping[str, float]
    evidence: bytes | None = None
    environment: dict[str, Any] | None = None
    trouble: str = ""
    no_weights: str = ""
