"""The recorded origin of an export's metrics, and the check that a re-run matches them.

Whatever is recorded is compared, at the argmax and at the tuned rules, with the taus; an export of
an earlier version has fewer metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from study.config.own_training import OwnTrainingTask
from study.config.task import TrialConfig
from study.core.names import (
    TEST,
    TEST_MIOU,
    TEST_TUNED_MIOU,
    VAL_MACC,
    VAL_MIOU,
    VAL_TUNED_MIOU,
)

HEAD = (VAL_MIOU, VAL_MACC, VAL_TUNED_MIOU, TEST_MIOU, TEST_TUNED_MIOU)
SHOWN = 8  # differing metrics listed; the rest is only counted


class _Record(BaseModel):
    """Part of an export; ignores the keys that a re-run does not need."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Environment(_Record):
    """What `study.training.environment.environment` returns; absent values are not compared."""

    device: str | None = None
    device_name: str | None = None
    precision: Literal["bf16", "fp16", "fp32"] | None = None
    num_threads: int | None = Field(None, ge=1, le=4096)
    ranks: int = Field(1, ge=1)
    python: str | None = None
    versions: dict[str, str] = {}
    commit: str | None = None


class DataRecord(_Record):
    fingerprint: str | None = None


@dataclass(frozen=True)
class Verdict:
    """accepted: the numbers are equal, or a listed difference explains that they are not."""

    accepted: bool
    lines: tuple[str, ...]


class Provenance(_Record):
    """The part of an export's provenance that a re-run is compared with."""

    trial: str | None = None
    seed: int
    metrics: dict[str, float]
    environment: Environment = Environment()
    data: DataRecord = DataRecord()

    @property
    def judged_on_test(self) -> bool:
        """Whether the metrics include those of the test split."""
        return any(key.startswith(f"{TEST}/") for key in self.metrics)

    def restore(self, config: TrialConfig) -> TrialConfig:
        """Return the config with `precision: auto` replaced by the recorded precision."""
        precision = self.environment.precision
        task = config.task
        if precision is None or isinstance(task, OwnTrainingTask) or task.precision != "auto":
            return config
        resolved = {**task.model_dump(), "precision": precision}
        return TrialConfig.model_validate({**config.model_dump(), "task": resolved})

    def compare(
        self, metrics: Mapping[str, float], here: Mapping[str, Any], fingerprint: str
    ) -> Verdict:
        """Compare a run's last metrics with the recorded ones, digit for digit; times are left out.

        here: this run's environment. fingerprint: that of its data.
        """
        others = self._differences(here, fingerprint)
        expected = {key: value for key, value in self.metrics.items() if not _is_time(key)}
        unequal = {
            key: value for key, value in expected.items() if not _equal(metrics.get(key), value)
        }
        if not unequal:
            head = [key for key in HEAD if key in expected]
            numbers = ", ".join(f"{key} {expected[key]:.4f}" for key in head or expected)
            lines = [f"reproduced exactly: {numbers} (all {len(expected)} metrics)"]
            return Verdict(True, tuple([*lines, *(f"  though {line}" for line in others)]))
        lines = [f"not the same numbers: {len(unequal)} of {len(expected)} metrics differ"]
        for key, value in list(unequal.items())[:SHOWN]:
            got = metrics.get(key)
            change = "absent" if got is None else f"{got:.6g} ({got - value:+.2g})"
            lines.append(f"  {key}: was {value:.6g}, is {change}")
        if len(unequal) > SHOWN:
            lines.append(f"  and {len(unequal) - SHOWN} more")
        if others:
            lines.append("which these differences can explain:")
        else:
            lines.append("though device, versions, threads, precision and data are equal")
        return Verdict(bool(others), tuple([*lines, *(f"  {line}" for line in others)]))

    def _differences(self, here: Mapping[str, Any], fingerprint: str) -> list[str]:
        recorded = self.environment.model_dump()
        versions = recorded.pop("versions")
        alone = {"ranks": 1}
        pairs = [(key, was, here.get(key, alone.get(key))) for key, was in recorded.items()]
        pairs += [(key, was, here["versions"].get(key)) for key, was in versions.items()]
        pairs.append(("data", self.data.fingerprint, fingerprint))
        return [
            f"{key}: was {was}, is {now}"
            for key, was, now in pairs
            if was is not None and was != now
        ]


def _is_time(key: str) -> bool:
    return key.startswith("time/")


def _equal(got: float | None, was: float) -> bool:
    return got == was or (got is not None and math.isnan(got) and math.isnan(was))
