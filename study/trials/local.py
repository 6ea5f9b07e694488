"""A trial without a study: for trying a training of one's own, and for `study.train`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from study.config.task import TrialConfig, load_task
from study.core.names import CONFIRM, SEARCH
from study.trials.context import Place, Save, Stopped, TrialContext
from study.trials.message import EpochMessage

SHOWN = ("train/loss", "val/miou", "val/tuned/miou", "test/miou", "test/tuned/miou")


class NoCheckpoints:
    """Keeps nothing: what is interrupted here starts again."""

    trouble = ""

    def keep(self, epoch: int, save: Save) -> None:
        """Do nothing."""

    def found(self) -> Iterator[Path]:
        """Yield nothing."""
        return iter(())

    def flush(self) -> None:
        """Do nothing."""


class Terminal:
    """Shows each report as a line, and ends the trial after its last epoch."""

    def __init__(self, num_epochs: int, show: Callable[[str], None]) -> None:
        self._num_epochs = num_epochs
        self._show = show
        self.metrics: Mapping[str, float] = {}

    def beat(self, doing: str) -> None:
        """Do nothing."""

    def repeated(self) -> None:
        """Do nothing."""

    def report(self, message: EpochMessage) -> None:
        """Show the report."""
        self.metrics, epoch = message.metrics, message.epoch
        named = [f"{key} {self.metrics[key]:.4f}" for key in SHOWN if key in self.metrics]
        self._show("  ".join([f"epoch {epoch}/{self._num_epochs}", *named]))
        if epoch == self._num_epochs:
            raise Stopped


def local_context(
    task: str | Path | Mapping[str, Any],
    *,
    loss: Mapping[str, Any] | None = None,
    lr_scale: float = 1.0,
    seed: int = 0,
    confirmation: bool = False,
    device: str | None = None,
    folder: str | Path | None = None,
) -> TrialContext:
    """Make a context without a study, to try a training function: `train(local_context(...))`.

    Args:
        task: a file, or a mapping such as `{"trial": "mine:train", "budget": {"epochs": 2}}`.
        loss: the `loss:` tree; default cross entropy.
        lr_scale: the factor on your learning rate.
        seed: of the trial.
        confirmation: whether the last epoch must also report test metrics.
        device: default a GPU if there is one.
        folder: of the trial; default a temporary one.

    Examples:
        >>> from study.trials.local import local_context
        >>> context = local_context({"trial": "mine:train", "budget": {"epochs": 2}})
        >>> context.num_epochs, context.is_confirmation
        (2, False)
    """
    config = TrialConfig.model_validate(
        {
            "task": load_task(task).config.model_dump(),
            "loss": dict(loss or {}),
            "optimizer": {"lr_scale": lr_scale},
            "seed": seed,
        }
    )
    return context_of(config, Terminal(config.task.num_epochs, print), confirmation, device, folder)


def context_of(
    config: TrialConfig,
    terminal: Terminal,
    confirmation: bool,
    device: str | None = None,
    folder: str | Path | None = None,
) -> TrialContext:
    """A context whose reports go to a terminal."""
    import torch

    from study.training.environment import resolve_device

    own = Path(tempfile.mkdtemp(prefix="trial-") if folder is None else folder).absolute()
    place = Place(
        trial="local",
        stage=CONFIRM if confirmation else SEARCH,
        folder=own,
        device=str(resolve_device(device)),
        num_threads=torch.get_num_threads(),
    )
    context = TrialContext(config, place, terminal, NoCheckpoints())
    context.listen()
    return context
