"""A trial whose reports are recorded, and which ends when the test says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from study.config.task import TrialConfig, load_task
from study.core.names import CONFIRM, SEARCH
from study.trials.context import Place, Save, Stopped, TrialContext

NAMES = ("sky", "ground", "pole")
PIXELS = (12032.0, 12288.0, 512.0)


class Recorder:
    """Takes the reports of a trial, and ends it after `stop_after` or its last epoch."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.reports: dict[int, dict[str, float]] = {}
        self.beats = 0

    def beat(self, doing: str) -> None:
        self.beats += 1

    def report(self, epoch: int, metrics: dict[str, float], *_: object) -> None:
        self.reports[epoch] = metrics
        if epoch >= self.last:
            raise Stopped


class Kept:
    """Keeps checkpoints in a folder."""

    trouble = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, epoch: int, save: Save) -> None:
        save(self._folder / f"{epoch:04d}.kept")

    def found(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob("*.kept"), reverse=True)

    def flush(self) -> None:
        pass


def recorded_trial(
    folder: Path,
    *,
    epochs: int = 3,
    stop_after: int | None = None,
    confirmation: bool = False,
    begun_epochs: int = 0,
    loss: dict[str, Any] | None = None,
) -> tuple[TrialContext, Recorder]:
    """A trial with three classes, and what records it."""
    task = {
        "trial": "mine:train",
        "budget": {"epochs": epochs},
        "classes": {"names": list(NAMES), "pixels": list(PIXELS)},
    }
    tree = {"task": load_task(task).config.model_dump(), "loss": loss or {}, "seed": 1}
    recorder = Recorder(epochs if stop_after is None else stop_after)
    place = Place(
        trial="t0000",
        stage=CONFIRM if confirmation else SEARCH,
        folder=folder,
        device="cpu",
        num_threads=1,
    )
    place = replace(place, begun=begun_epochs > 0, reported=begun_epochs)
    context = TrialContext(TrialConfig.model_validate(tree), place, recorder, Kept(folder))
    context.listen()
    return context, recorder


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
