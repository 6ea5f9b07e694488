"""Short descriptions of a loss, for tables and run names."""

from __future__ import annotations

from study.core.names import CE
from study.losses.config import AXES, LossConfig


def describe(loss: LossConfig) -> str:
    """Describe a loss, as in ``inverse frequency^0.62 + recall(ema 0.93) + jaccard 0.41``;
    ``ce`` if neutral."""
    parts = [axis.short(loss) for axis in sorted(AXES.values(), key=lambda axis: axis.after)]
    return " + ".join(part for part in parts if part) or CE
