"""Models for the tests of ranks, and what a second rank does there."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tiny_task import TINY
from torch import nn

from study.config.task import SmpModel, TrialConfig
from study.data import SegmentationData, open_data
from study.training.models import build_model
from study.training.ranks import Ranks, joined
from study.training.trainer import EpochReport, epochs

CPU = torch.device("cpu")


class Precise(nn.Module):
    """A small network in float64. fault: what goes wrong in the first step of a process that has
    the variable RANK_FAULT, which rank 0 of a test has not."""

    def __init__(
        self, num_classes: int, norm: str, aux: bool, dropout: float, pause: float
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.GroupNorm(2, 8) if norm == "group" else nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        )
        self.head = nn.Conv2d(8, num_classes, 1)
        self.second = nn.Conv2d(8, num_classes, 1) if aux else None
        self.pause = pause
        self.double()

    def forward(self, images: torch.Tensor) -> Any:
        time.sleep(self.pause)
        fault = os.environ.get("RANK_FAULT")
        if fault and "rank.py" in sys.argv[0]:
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "gpu memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            if fault == "memory":
                torch.empty(2**60)
            raise ValueError(fault)
        found = self.body(images.double())
        if self.second is None or not self.training:
            return self.head(found)
        return self.head(found), self.second(found)


def precise(
    num_classes: int,
    norm: str = "group",
    aux: bool = False,
    dropout: float = 0.0,
    pause: float = 0.0,
) -> nn.Module:
    return Precise(num_classes, norm, aux, dropout, pause)


class Drawing(nn.Module):
    """A pixelwise model that draws a number in each step, and appends it to a file of its process
    in `folder`."""

    def __init__(self, num_classes: int, folder: str) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, num_classes, 1)
        self.folder = folder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training:
            with open(Path(self.folder) / str(os.getpid()), "a", encoding="utf-8") as file:
                file.write(f"{float(torch.rand(()))!r}\n")
        found: torch.Tensor = self.head(images)
        return found


def doubled(num_classes: int) -> nn.Module:
    """The tiny task's own model in float64."""
    return Doubled(build_model(SmpModel.model_validate(TINY["model"]), num_classes))


class Doubled(nn.Module):
    """A model that is called with float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.double()

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images.double())


def share_of(config: TrialConfig, data: SegmentationData, ranks: Ranks) -> list[EpochReport]:
    """All reports of one rank."""
    return list(
        epochs(
            config,
            data,
            CPU,
            ranks,
            resume_from=None,
            reported=None,
            evaluate_test=True,
            evaluate_at=(),
        )
    )


def trained(configs: list[dict[str, Any]], rank: int, folder: Path) -> list[list[EpochReport]]:
    """The reports of one rank of two, config by config."""
    torch.set_num_threads(1)
    data = open_data(TrialConfig.model_validate({"task": TINY, "loss": {}}).trained_here.data)
    with joined(rank, 2, folder, CPU) as ranks:
        return [share_of(TrialConfig.model_validate(one), data, ranks) for one in configs]


if __name__ == "__main__":
    trained(json.loads(sys.stdin.readline()), 1, Path(sys.argv[1]))
