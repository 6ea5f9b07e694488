"""Trainings of a user's own, as functions of a context, and what is at their other end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tiny_task import TINY

from study.config.task import TrialConfig
from study.training.trainer import train
from study.trials.context import Place, Save, Stopped, TrialContext
from study.trials.message import EpochMessage

CLASSES = {"names": ["sky", "ground", "pole"], "pixels": [12000, 12000, 500]}


def quick(context: TrialContext, *, leave_out: tuple[str, ...] = ()) -> None:
    """Train three weights for some epochs, and report numbers made of them."""
    loss = context.build_loss(num_classes=3, class_counts=[12000, 12000, 500])
    weights = torch.zeros(1, 3, 2, 2, requires_grad=True)
    for epoch in range(1, context.num_epochs + 1):
        loss(weights, torch.tensor([[[0, 1], [2, 1]]])).backward()
        gradient = weights.grad
        assert gradient is not None
        with torch.no_grad():
            weights -= context.lr_scale * gradient * (1 + 0.01 * context.seed)
        found = torch.sigmoid(weights.sum() + weights[0, 0, 0, 0]).item()
        values = {"val/miou": found, "val/iou/pole": found / 2}
        if context.is_confirmation and epoch == context.num_epochs:
            values["test/miou"] = found
        if not context.report(epoch, {k: v for k, v in values.items() if k not in leave_out}):
            return


def ours(context: TrialContext) -> None:
    """The training of this package as somebody else's."""
    config = TrialConfig.model_validate(
        {
            "task": {**TINY, "budget": {"epochs": context.num_epochs}},
            "loss": context.loss_config.model_dump(),
            "optimizer": {"lr_scale": context.lr_scale},
            "seed": context.seed,
        }
    )
    judged = context.is_confirmation
    for report in train(config, device="cpu", evaluate_test=judged, on_step=context.beat):
        if not context.report(report.epoch, report.metrics):
            return


def alike(context: TrialContext) -> None:
    """Call the loss, and train something else."""
    loss = context.build_loss(num_classes=3, class_counts=[1, 1, 1])
    loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    for epoch in range(1, context.num_epochs + 1):
        if not context.report(epoch, {"val/miou": epoch / 10, "test/miou": epoch / 10}):
            return


def endless(context: TrialContext) -> None:
    """Report all epochs and go on for good, whatever the study says, if it is
    of the search."""
    loss = context.build_loss(num_classes=3, class_counts=[1, 1, 1])
    loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    for epoch in range(1, context.num_epochs + 1):
        context.report(epoch, {"val/miou": epoch / 10, "test/miou": epoch / 10})
    while context.place.stage == "search":
        with contextlib.suppress(Stopped):
            time.sleep(0.1)
            context.beat()


def faulty(context: TrialContext, folder: str) -> None:
    """Go wrong in three ways, one after the other; then train."""
    number = len(list(Path(folder).glob("begun*")))
    (Path(folder) / f"begun{number}").touch()
    loss = context.build_loss(num_classes=3, class_counts=[1, 1, 1])
    loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    if number == 0:
        print(1 / 0)
    if number == 1:
        context.report(1, {"val/miou": 0.5})
        return
    if number == 2:
        raise SystemExit(0)
    for epoch in range(1, context.num_epochs + 1):
        if not context.report(epoch, {"val/miou": number / 100, "test/miou": number / 100}):
            return


def task(
    function: str | dict[str, Any] = "own_trainings:quick", epochs: int = 3, **more: Any
) -> dict[str, Any]:
    """A task that is trained by a function, of this file unless another is named."""
    return {"trial": function, "budget": {"epochs": epochs}, "objectives": ["val/miou"], **more}


class Heard:
    """The other end of a context: keeps the reports; ends the trial after one of them."""

    def __init__(self, stop_after: int = 10**6) -> None:
        self.stop_after = stop_after
        self.reports: list[tuple[int, dict[str, float]]] = []
        self.evidence: bytes | None = None
        self.beats: list[str] = []

    def beat(self, doing: str) -> None:
        self.beats.append(doing)

    def repeated(self) -> None:
        """Nothing is trained again."""

    def report(self, message: EpochMessage) -> None:
        self.reports.append((message.epoch, dict(message.metrics)))
        self.evidence = message.evidence
        if message.epoch >= self.stop_after:
            raise Stopped

    @property
    def by_epoch(self) -> dict[int, dict[str, float]]:
        return dict(self.reports)

    @property
    def epochs(self) -> list[int]:
        return [epoch for epoch, _ in self.reports]


class Kept:
    """Checkpoints in a folder, all of them."""

    trouble = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, epoch: int, save: Save) -> None:
        save(self.folder / f"{epoch}.pt")

    def found(self) -> Iterator[Path]:
        yield from sorted(self.folder.glob("*.pt"), reverse=True)

    def flush(self) -> None:
        """Nothing to wait for."""


def context(
    folder: Path,
    the_task: dict[str, Any] | None = None,
    heard: Heard | None = None,
    *,
    stage: str = "search",
    reported: int = 0,
    begun: bool = False,
    rungs: tuple[int, ...] = (),
    **config: Any,
) -> TrialContext:
    """A context in a folder."""
    whole = TrialConfig.model_validate({"task": the_task or task(), **config})
    for name in ("own", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    place = Place(
        "t0000", stage, folder / "own", "cpu", 1, reported=reported, begun=begun, rungs=rungs
    )
    made = TrialContext(whole, place, heard or Heard(), Kept(folder / "checkpoints"))
    made.listen()
    return made
