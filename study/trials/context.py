"""What a trial is told, and how it reports: the one contract between a study and any training."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from study.config.own_training import Classes, FunctionTrial, OwnTrainingTask
from study.config.task import TrialConfig
from study.core.errors import InputError
from study.core.names import (
    AGAIN_SECONDS,
    CONFIRM,
    EPOCH_SECONDS,
    IN_EPOCH,
    TEACHER,
    TEST_MIOU,
    VAL_MIOU,
)
from study.losses.config import FactoryLoss, LossConfig
from study.losses.digest import ECHO, KEY, loss_digest
from study.losses.own import build_any_loss
from study.metrics import SegmentationMetrics
from study.trials.checkpoint import read_checkpoint, write_checkpoint
from study.trials.measured import Values, measured
from study.trials.message import EpochMessage

Save = Callable[[Path], None]
OF_ANOTHER = re.compile(r"\d+/")  # before a name in the state of a loss that is not the first


class _Step:
    """Gives a sign of life of a trial with each call of its loss and of copies of that; none where
    it was pickled, for a file or for another process."""

    def __init__(self, beat: Callable[[], None] | None = None) -> None:
        self._beat = beat

    def __call__(self, loss: nn.Module, given: tuple[Any, ...], _: object) -> None:
        if self._beat is not None:
            self._beat()

    def __deepcopy__(self, memo: object) -> _Step:
        return self

    def __reduce__(self) -> tuple[type[_Step], tuple[()]]:
        return _Step, ()


class Stopped(BaseException):
    """The study has ended this trial, which trains on all the same."""


class Checkpoints(Protocol):
    """Where the checkpoints of a trial are kept; `trouble`: why the latest is not."""

    trouble: str

    def keep(self, epoch: int, save: Save) -> None:
        """Store what `save` writes to a path that it is given, as the latest."""

    def found(self) -> Iterator[Path]:
        """Yield the checkpoints, latest first."""

    def flush(self) -> None:
        """Wait until the latest is stored."""


class Link(Protocol):
    """The other end: the study, or a terminal."""

    def beat(self, doing: str) -> None:
        """Take in a sign of life."""

    def report(self, message: EpochMessage) -> None:
        """Take in an epoch. Raises Stopped where the trial has ended with it."""

    def repeated(self) -> None:
        """Take in that an epoch was trained again which the study has. Raises Stopped likewise."""


@dataclass(frozen=True)
class Place:
    """Where and how a trial is trained.

    trial, stage: of the study. folder: its own. device: such as "cpu" or "cuda". num_threads: its
    CPU threads, of each rank. ranks: processes that share its batches, in a training of this
    package. rungs: epochs that are judged. reported: how many epochs the study has from earlier
    attempts. begun: whether there were any. keep_last: whether the last epoch's checkpoint is kept.
    keep_weights: stores the weights of a confirmation or of a teacher; None keeps none.
    """

    trial: str
    stage: str
    folder: Path
    device: str
    num_threads: int
    ranks: int = 1
    rungs: tuple[int, ...] = ()
    reported: int = 0
    begun: bool = False
    keep_last: bool = False
    keep_weights: Callable[[Save], str] | None = None


class TrialContext:
    """One trial of a study: the argument of your own training function.

        def train(context: TrialContext) -> None:
            loss = context.build_loss(num_classes=19, class_counts=counts)
            optimizer = AdamW(model.parameters(), lr=3e-4 * context.lr_scale)
            for epoch in range(1, context.num_epochs + 1):
                ...  # loss(logits, labels).backward()
                if not context.report(epoch, {"val/miou": miou}):
                    return

    Every trial must have the same data, model and budget, and differ in what the context says:
    the loss, `lr_scale` and the seed.

    Attributes:
        loss_config: the loss as a config; `build_loss` makes it.
        lr_scale: the factor on your own learning rate.
        seed: of this trial; seed everything with it.
        num_epochs: of the full budget; a learning rate schedule ends there.
        device: such as "cpu" or "cuda": the GPU that the trial has.
        num_threads: CPU threads that it has.
        folder: the trial's own folder. It outlives an interruption if the next machine sees the
            study's folder.
        is_confirmation: whether the last epoch must report test metrics, too.
        classes: of the task, if it names them.

    Examples:
        >>> import torch
        >>> from study.trials.local import local_context
        >>> context = local_context(
        ...     {"trial": "mine:train", "budget": {"epochs": 2}}, loss={"focal_gamma": 2.0}
        ... )
        >>> loss = context.build_loss(num_classes=2)
        >>> value = loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
        >>> context.report(1, {"val/miou": 0.5})
        epoch 1/2  val/miou 0.5000
        True
    """

    def __init__(self, config: TrialConfig, place: Place, link: Link, store: Checkpoints) -> None:
        self.config = config
        self.place = place
        self.store = store
        self._link = link
        self.loss_config: LossConfig | FactoryLoss = config.loss
        self.lr_scale = config.optimizer.lr_scale
        self.seed = config.seed
        self.num_epochs = config.task.num_epochs
        self.device = place.device
        self.num_threads = place.num_threads
        self.folder = place.folder
        self.is_confirmation = place.stage == CONFIRM
        self.environment: dict[str, Any] | None = None
        self.reported = 0  # the last epoch of this attempt
        self.has_stopped = False
        self.unkept: tuple[int, Save] | None = None  # of the latest epoch, where it is not kept
        self._again_s = 0.0
        self._since = time.perf_counter()
        self._save: Save | None = None
        self._losses: list[nn.Module] = []
        self._loss_state: dict[str, Any] | None = None

    @property
    def classes(self) -> Classes | None:
        """The classes that the task names."""
        return self.config.task.classes if isinstance(self.config.task, OwnTrainingTask) else None

    def build_loss(
        self,
        num_classes: int | None = None,
        class_counts: Any = None,
        ignore_index: int | None = None,
    ) -> nn.Module:
        """Build the loss of this trial: call it with logits (B, C, H, W) and labels (B, H, W).

        Args:
            num_classes: C; not needed where the task names its classes. 1 where the network has one
                channel for two classes.
            class_counts: pixels of each class in the training images, (C,) or (images, C); some
                losses need them. Not needed where the task gives `pixels`.
            ignore_index: label of the pixels that do not count; 255, unless the task says.

        Raises:
            InputError: where the classes are not known, or do not fit the loss.
        """
        classes = self.classes
        if num_classes is None:
            if classes is None:
                hint = "give it, or let the task name its classes"
                raise InputError("build_loss needs num_classes", hint=hint)
            num_classes = len(classes.names)
        if class_counts is None and classes is not None and classes.pixels is not None:
            class_counts = torch.tensor(classes.pixels, dtype=torch.float64)
        if ignore_index is None:
            ignore_index = 255 if classes is None else classes.ignore
        loss = build_any_loss(
            self.loss_config,
            num_classes=num_classes,
            class_counts=class_counts,
            ignore_index=ignore_index,
        ).to(self.device)
        self._losses.append(loss)
        self._load(len(self._losses) - 1)
        loss.register_forward_hook(_Step(self.beat))
        return loss

    def metrics(self, num_classes: int | None = None) -> SegmentationMetrics:
        """New metrics for one split: `update(logits, labels)` takes each batch, in the order of the
        images, and `report` takes the whole. Needs the classes of the task; with their `pixels`
        the decision rules are measured, too.

        Args:
            num_classes: 1 where the network has one channel for the two classes of the task, as for
                `build_loss`; not needed otherwise.

        Raises:
            InputError: where the task names no classes, or not so many.
        """
        if self.classes is None:
            raise InputError(
                "the task names no classes", hint="add classes: {names: [...]}", key="classes"
            )
        named = len(self.classes.names)
        if num_classes not in (None, named) and (num_classes, named) != (1, 2):
            message = f"the task names {named} classes, and metrics are asked for {num_classes}"
            raise InputError(message, key="classes")
        return SegmentationMetrics(
            num_classes or named,
            ignore_index=self.classes.ignore,
            class_names=self.classes.names,
            class_counts=self.classes.pixels,
            calibration=self.is_confirmation and self.classes.pixels is not None,
        )

    def resume(self, save: Save, load: Callable[[Path], object]) -> int:
        """Say how the training is saved and loaded, and load what an interrupted attempt left.

        Without this call an interrupted trial starts again. The loss keeps its state in any case.

        Args:
            save: writes all that the next epoch needs into a file: model, optimiser, schedule,
                random states. Called after each reported epoch.
            load: reads it back.

        Returns:
            The epochs that are done; train those after it.
        """
        self._save = save
        if not self.place.begun:
            return 0
        for path in self.store.found():
            found = read_checkpoint(path, load, self.folder)
            if found is not None:
                self.reported, self._loss_state = found
                for number in range(len(self._losses)):
                    self._load(number)
                return self.reported
        return 0

    def _write(self, path: Path) -> None:
        assert self._save is not None
        state: dict[str, Any] = {}
        for number, loss in enumerate(self._losses):  # the first one's as in earlier checkpoints
            state |= loss.state_dict(prefix=f"{number}/" if number else "")
        write_checkpoint(path, self._save, self.reported, state)

    def _load(self, number: int) -> None:
        """Give a loss, counted in the order in which they were built, its state in the checkpoint,
        if that has one of it."""
        if self._loss_state is None:
            return
        state = {}
        for name, value in self._loss_state.items():
            whose, _, own = name.partition("/") if OF_ANOTHER.match(name) else ("0", "", name)
            if int(whose) == number:
                state[own] = value
        if state or number == 0:
            self._losses[number].load_state_dict(state)

    def beat(self, doing: str = IN_EPOCH) -> None:
        """Give a sign of life. The loss gives one with each step. In a longer pause call this,
        or the study takes the trial for hung."""
        self._link.beat(doing)

    def is_judged(self, epoch: int) -> bool:
        """Whether the study judges the trial at this epoch, at a rung or the last: it must then
        report the objectives, however seldom the training validates otherwise."""
        return epoch == self.num_epochs or epoch in self.place.rungs

    def report(self, epoch: int, values: Values) -> bool:
        """Report an epoch, and return whether to continue.

        Args:
            epoch: from 1 to num_epochs, each once and in order.
            values: numbers by name, such as `val/miou`, in 0..1; or `val` and `test` as
                SegmentationMetrics, from which all of ours are computed, the tuned rules too. The
                study's objectives must be among them where a trial is judged: at its rungs and at
                the last epoch. The last epoch must have `val/miou`, that of a confirmation
                `test/miou`, too.

        Returns:
            False if the study has ended the trial: return soon. At the last epoch it is always
            False.

        Raises:
            InputError: for an epoch out of order, and for values that are no such numbers: the
                trial fails.
        """
        if self.has_stopped:
            raise Stopped
        self._check_order(epoch)
        self._check_loss()
        last = epoch == self.num_epochs
        metrics, evidence = measured(values, last=last and self.is_confirmation)
        needed = [VAL_MIOU, *[TEST_MIOU] * self.is_confirmation] if last else []
        if missing := [key for key in needed if key not in metrics]:
            hint = "a confirmation is judged on test: context.is_confirmation"
            if VAL_MIOU in missing:
                own = ", ".join(key for key in metrics if key != EPOCH_SECONDS)
                hint = f"it reported {own}" if own else ""
            raise InputError(f"the last epoch must report {' and '.join(missing)}", hint=hint)
        if unknown := [key for key in needed if not math.isfinite(metrics[key])]:
            raise InputError(
                f"{unknown[0]} of the last epoch is {metrics[unknown[0]]}",
                hint="was it measured on any labelled pixel, and are the logits finite?",
            )
        metrics.setdefault(EPOCH_SECONDS, time.perf_counter() - self._since)
        self.reported = epoch
        goes_on = self.deliver(epoch, metrics, evidence, save=self._write if self._save else None)
        self._since = time.perf_counter()
        return goes_on

    def deliver(
        self,
        epoch: int,
        metrics: dict[str, float],
        evidence: bytes | None,
        *,
        save: Save | None,
        weights: Save | None = None,
    ) -> bool:
        """Store what an epoch leaves, then report it; return whether to go on."""
        place, last = self.place, epoch == self.num_epochs
        if last:
            self.beat("storing its last checkpoint and weights")
        if save is not None and (not last or place.keep_last):
            self.store.keep(epoch, save)
        if last and place.keep_last and not self.store.trouble:
            self.store.flush()
        no_weights = ""
        kept = self.is_confirmation or place.stage == TEACHER
        if last and kept and weights is not None and place.keep_weights:
            no_weights = place.keep_weights(weights)
        if no_weights and place.stage == TEACHER:
            raise OSError(f"the weights of a teacher could not be kept: {no_weights}")
        if self._again_s:
            metrics, self._again_s = {**metrics, AGAIN_SECONDS: self._again_s}, 0.0
        here, self.environment = self.environment, None
        try:
            trouble = self.store.trouble
            self._link.report(EpochMessage(epoch, metrics, evidence, here, trouble, no_weights))
        except Stopped:
            self.has_stopped = True
        return not self.has_stopped

    def repeat(self, epoch: int, seconds: float, *, save: Save | None) -> bool:
        """Say that an epoch was trained again which the study has, and how many seconds that took;
        return whether to go on."""
        self._again_s += seconds
        if save is not None:
            self.store.keep(epoch, save)
        try:
            self._link.repeated()
        except Stopped:
            self.has_stopped = True
        return not self.has_stopped

    def keep_unkept(self) -> None:
        """Store the latest epoch, which had no checkpoint of its own, as the trial has to leave."""
        if self.unkept is not None:
            self.store.keep(*self.unkept)

    def _check_order(self, epoch: object) -> None:
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
            raise InputError(f"an epoch must be a whole number from 1, got {epoch!r}")
        if epoch > self.num_epochs:
            raise InputError(f"epoch {epoch} is reported, and the budget is {self.num_epochs}")
        first = range(1, self.place.reported + 2)  # where an attempt may begin
        allowed = [self.reported + 1] if self.reported else list(first)
        if epoch not in allowed:
            after = f"after epoch {self.reported}" if self.reported else "as the first"
            hint = "each must be reported once"
            if epoch > allowed[-1]:
                hint += f", and epoch {allowed[-1]} was not: report it without val, if it has none"
            raise InputError(f"epoch {epoch} is reported {after}", hint=hint)

    def _check_loss(self) -> None:
        """Refuse a training that has not called its loss: all trials would be alike."""
        task = self.config.task
        if self.reported or not isinstance(task, OwnTrainingTask):
            return
        expected, found = loss_digest(self.loss_config), self.echoes()
        if not found:
            raise InputError(
                "the training has not called the loss of its trial, so that all trials would be "
                "trained alike",
                hint="use what context.build_loss() returns"
                if isinstance(task.trial, FunctionTrial)
                else "build the loss of {loss_file} with study.losses.build_loss, or use "
                "{loss_python}",
            )
        if expected not in found:
            raise InputError(
                f"the training has called another loss ({', '.join(found)}) than that of its "
                f"trial ({expected})"
            )

    @property
    def echo_file(self) -> Path:
        """Where a loss writes its digest when it is first called."""
        return self.folder / "loss_digest.jsonl"

    def echoes(self) -> list[str]:
        """The digests of the losses that have been called."""
        try:
            lines = self.echo_file.read_text(encoding="utf-8").splitlines()
            return list(dict.fromkeys(str(json.loads(line)[KEY]) for line in lines))
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def listen(self) -> None:
        """Begin to hear of losses that are called in this process and its children."""
        self.echo_file.unlink(missing_ok=True)
        os.environ[ECHO] = str(self.echo_file)
