"""The training loop of one trial: pure PyTorch, a generator of epoch reports.

    from study.training import train

    for report in train(config):
        print(report.epoch, report.metrics["val/miou"])

Importing this package does not import torch; training does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from study.training.trainer import EpochReport, train

__all__ = ["EpochReport", "train"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from study.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
