"""A trial whose reports are recorded, and which ends when the test says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from own_trainings import Heard, context
from torch import Tensor, nn

from study.core.names import CONFIRM, SEARCH
from study.trials.context import TrialContext

NAMES = ("sky", "ground", "pole")
PIXELS = (12032.0, 12288.0, 512.0)


def recorded_trial(
    folder: Path,
    *,
    epochs: int = 3,
    stop_after: int | None = None,
    confirmation: bool = False,
    begun_epochs: int = 0,
    loss: dict[str, Any] | None = None,
) -> tuple[TrialContext, Heard]:
    """A trial with three classes, and what hears of it: it ends the trial after `stop_after`, or
    its last epoch."""
    task = {
        "trial": "mine:train",
        "budget": {"epochs": epochs},
        "classes": {"names": list(NAMES), "pixels": list(PIXELS)},
    }
    heard = Heard(epochs if stop_after is None else stop_after)
    made = context(
        folder,
        task,
        heard,
        stage=CONFIRM if confirmation else SEARCH,
        reported=begun_epochs,
        begun=begun_epochs > 0,
        loss=loss or {},
        seed=1,
    )
    return made, heard


def small_network() -> nn.Sequential:
    """(B, 3, H, W) to (B, 3, H, W)."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))


def drawn(seed: int, count: int = 8) -> tuple[Tensor, Tensor]:
    """Noisy pictures (count, 3, 24, 32) of sky, ground and a small pole, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, 24, 32, dtype=torch.int64)
    labels[:, 12:] = 1
    for label in labels:
        row, column = (int(torch.randint(0, 20, (1,), generator=generator)) for _ in range(2))
        label[row : row + 4, column : column + 4] = 2
    images = nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    return images + torch.randn(images.shape, generator=generator), labels


def mean_iou(logits: Tensor, labels: Tensor) -> float:
    """Over the classes."""
    found = logits.argmax(1)
    both = [
        ((found == c) & (labels == c)).sum() / ((found == c) | (labels == c)).sum()
        for c in (0, 1, 2)
    ]
    return float(torch.stack(both).mean())
