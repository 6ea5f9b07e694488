"""Ranks that share the batches of one trial: Gloo between processes on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import run, tiny, tiny_data
from torch import nn

from study.data import SegmentationData
from study.training.trainer import EpochReport, train

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

FORM = {"factory": f"{__name__}:precise"}


class Precise(nn.Module):
    """A small network in float64."""

    def __init__(self, num_classes: int, norm: str, aux: bool, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.GroupNorm(2, 8) if norm == "group" else nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(dropout),
        )
        self.head = nn.Conv2d(8, num_classes, 1)
        self.second = nn.Conv2d(8, num_classes, 1) if aux else None
        self.double()

    def forward(self, images: torch.Tensor) -> Any:
        found = self.body(images.double())
        if self.second is None or not self.training:
            return self.head(found)
        return self.head(found), self.second(found)


def precise(
    num_classes: int, norm: str = "group", aux: bool = False, dropout: float = 0.0
) -> nn.Module:
    return Precise(num_classes, norm, aux, dropout)


@pytest.fixture(scope="module")
def data() -> SegmentationData:
    return tiny_data()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def weights(reports: list[EpochReport]) -> dict[str, torch.Tensor]:
    raise NotImplementedError


def test_two_ranks_equal_one_process(data):
    config = tiny({"recall": {"ema_momentum": 0.9}, "jaccard": {"mix": 0.3}}, model=FORM)
    one = run(config, data)
    two = run(config, data, ranks=2)
    for a, b in zip(one, two, strict=True):
        keys = [key for key in a.metrics if not key.startswith("time/")]
        for key in keys:
            assert b.metrics[key] == pytest.approx(a.metrics[key], rel=1e-9, abs=1e-9), key
