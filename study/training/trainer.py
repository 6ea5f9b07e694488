"""The training loop: steps, evaluation and checkpoints of one trial.

Training knows nothing of the study around it. The caller takes the next report, or stops; a report
can save the state that the next epoch starts from.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import get_total_norm

from study.config.task import FactoryModel, SmpModel, StepBudget, TrialConfig
from study.core.errors import InputError, is_out_of_memory
from study.core.names import IN_BATCHES, TEST, TRAIN, TRAIN_LOSS, VAL
from study.data import SegmentationData, open_data
from study.losses.config import FactoryLoss, LossConfig
from study.losses.heads import HeadsLoss
from study.losses.module import SegmentationLoss, named_terms
from study.losses.own import OwnLoss, build_any_loss
from study.metrics.decision import Taus
from study.metrics.evidence import SplitEvidence, evidence_of
from study.training.batches import Batches, TrainOrder, draw
from study.training.checkpoint import (
    IncompatibleCheckpoint,
    copied,
    load_checkpoint,
    save_checkpoint,
)
from study.training.environment import (
    deterministic_kernels,
    environment,
    resolve_device,
    resolve_precision,
    set_up_process,
)
from study.training.evaluation import Evidence, evaluate
from study.training.identity import digest
from study.training.models import build_model
from study.training.optim import build_optimizer, clip_gradients, lr_factor, set_lr
from study.training.ranks import ALONE, Others, Ranks, check_ranks, device_of, joined
from study.training.teachers import teaching
from study.training.weights import save_weights

__all__ = ["Diverged", "EpochReport", "Evidence", "environment", "set_up_process", "train"]


Held = torch.Tensor | float | list[float]
REMEMBERED = 50  # reports in a checkpoint


class Diverged(RuntimeError):
    """The training loss or the weights are no longer finite."""


@dataclass(frozen=True)
class EpochReport:
    """The result of one epoch of training; `train` yields one per epoch.

    Attributes:
        epoch: 1 to num_epochs.
        num_epochs: epochs in the trial's budget.
        metrics: `train/loss` and `train/<term>` (means over the epoch's steps;
            `train/grad_norm/<term>` of its first step alone), `lr` (of its last step), where
            the task trains on windows of the images `train/in_batches/<class>` (the fraction of
            the epoch's batches that hold the class),
            `time/epoch_s` (seconds), `time/images_per_s` (training alone); if the epoch was
            evaluated `val/miou`, `val/iou/<class>`, `val/tuned/miou`, ... (see study.metrics); on
            the last epoch `val/nll`, `val/calibration_error` and, if requested, `test/...`, at the
            decision rules that val chose.
        evidence: confusion matrices and counts per image; on the last epoch only, else None.
        save: writes the state after this epoch to a file, atomically; call it before taking the
            next report, else it raises RuntimeError.
        snapshot: copies that state into the machine's memory; returns what writes the copy, from
            any thread and at any time. Call it as `save`.
        save_weights: writes the model's weights to a file of safetensors, atomically; likewise.
        again: True for a report of an earlier process that the resumed checkpoint remembers; its
            state is saved already.
    """

    epoch: int
    num_epochs: int
    metrics: dict[str, float]
    evidence: Evidence | None
    save: Callable[[Path], None] = field(repr=False, compare=False)
    snapshot: Callable[[], Callable[[Path], None]] = field(repr=False, compare=False)
    save_weights: Callable[[Path], None] = field(repr=False, compare=False)
    again: bool = False


def train(
    config: TrialConfig,
    *,
    data: SegmentationData | None = None,
    data_root: Path | None = None,
    device: str | None = None,
    resume_from: Path | None = None,
    reported: int | None = None,
    evaluate_test: bool = False,
    evaluate_at: Collection[int] = (),
    on_step: Callable[[], object] | None = None,
    ranks: int = 1,
) -> Generator[EpochReport, None, None]:
    """Train one config up to its budget; yield a report after each epoch.

    Equal config, data, device and thread count give equal numbers, whatever the process did before.
    The caller's random states are left alone.

    Args:
        config: the trial: task, loss, optimiser and seed.
        data: the task's data set, if it is open already; else `open_data` opens it.
        data_root: the folder of the files, for `open_data`.
        device: such as "cpu" or "cuda:0"; default CUDA if available, else the CPU.
        resume_from: a file that `EpochReport.save` wrote; the following epochs equal those of the
            uninterrupted training, on the CPU bit for bit.
        reported: with resume_from, the last epoch whose report has arrived; later reports that the
            file remembers are yielded again. Epochs up to it that are trained again are evaluated
            only if they are the last.
        evaluate_test: evaluate the last epoch on the test split.
        evaluate_at: epochs to evaluate on val in addition to the task's own.
        on_step: called before each epoch, and after each training step and each evaluated batch.
        ranks: processes that share each batch, on this machine; each takes a GPU of its own, or on
            the CPU as many threads as this one. Above 1 the data must be those that `open_data`
            opens. The numbers are those of one process but for rounding and the random numbers of
            the model (see `study.training.ranks`).

    Yields:
        One EpochReport per epoch.

    Raises:
        InputError: if the config cannot be trained or the file cannot be resumed.
        Diverged: if the loss or the weights are no longer finite.
        RankLost: if another rank has ended.

    Examples:
        >>> from study.config.task import TrialConfig
        >>> from study.training import train
        >>> task = {
        ...     "data": {
        ...         "format": "synthetic", "size": [32, 48],
        ...         "num_train": 8, "num_val": 4, "num_test": 4,
        ...     },
        ...     "model": {"arch": "unet", "encoder": "tu-mobilenetv3_small_050"},
        ...     "optimizer": {"name": "adamw", "lr": 0.01},
        ...     "batch_size": 4,
        ...     "budget": {"epochs": 2},
        ... }
        >>> loss = {"recall": {"ema_momentum": 0.9}}
        >>> config = TrialConfig.model_validate({"task": task, "loss": loss, "seed": 0})
        >>> for report in train(config, device="cpu"):
        ...     print(report.epoch, "of", report.num_epochs, 0 <= report.metrics["val/miou"] <= 1)
        1 of 2 True
        2 of 2 True
    """
    task = config.trained_here
    if data is None:
        data = open_data(task.data, data_root=data_root)
    check_ranks(task, ranks, len(data.train.images))
    resolved, beat = resolve_device(device), on_step or _nothing
    run = partial(
        epochs,
        config,
        data,
        resume_from=resume_from,
        reported=reported,
        evaluate_test=evaluate_test,
        evaluate_at=evaluate_at,
        on_step=beat,
    )
    if ranks == 1:
        yield from run(resolved, ALONE)
        return
    own = device_of(resolved, 0, ranks)
    order = {
        "config": config.model_dump(mode="json"),
        "data_root": None if data_root is None else str(data_root.absolute()),
        "device": str(resolved),
        "num_threads": torch.get_num_threads(),
        "resume_from": None if resume_from is None else str(resume_from.absolute()),
        "reported": reported,
        "evaluate_test": evaluate_test,
        "evaluate_at": sorted(evaluate_at),
    }
    with Others(ranks, order) as others:
        others.wait(beat)
        with joined(0, ranks, others.folder, own) as group:
            others.working = True
            for report in run(own, group):
                others.working = False
                yield report
                others.working = True
            others.working = False


def epochs(
    config: TrialConfig,
    data: SegmentationData,
    device: torch.device,
    ranks: Ranks,
    *,
    resume_from: Path | None,
    reported: int | None,
    evaluate_test: bool,
    evaluate_at: Collection[int],
    on_step: Callable[[], object] = lambda: None,
) -> Iterator[EpochReport]:
    """The epochs of one rank of a training; see `train`."""
    task = config.trained_here
    training = _Training(config, data, device, on_step, ranks)
    if resume_from is not None:
        training.load(resume_from)
    num_epochs = task.num_epochs
    if resume_from is not None and reported is not None:
        yield from _again(training, resume_from, reported, num_epochs)
    for epoch in range(training.epoch + 1, num_epochs + 1):
        last = epoch == num_epochs
        due = epoch % task.evaluation.every == 0 or epoch in evaluate_at
        due = last or (due and epoch > (reported or 0))
        start = time.perf_counter()
        metrics = training.train_epoch()
        splits = [VAL] * due + [TEST] * (last and evaluate_test)
        measured, counts = training.evaluate(splits, last=last)
        evidence = Evidence(tuple(data.class_names), counts) if last else None
        metrics |= measured | {"time/epoch_s": time.perf_counter() - start}
        training.remember(metrics)
        yield EpochReport(epoch, num_epochs, metrics, evidence, *training.savers())


def _nothing() -> None:
    """Do nothing after a step."""


def _again(
    training: _Training, file: Path, reported: int, num_epochs: int
) -> Iterator[EpochReport]:
    late = range(reported + 1, training.epoch + 1)
    if not all(epoch in training.reports and epoch < num_epochs for epoch in late):
        message = f"the checkpoint lacks reports after epoch {reported}"
        raise InputError(message, file=file)
    for epoch in late:
        metrics = training.reports[epoch]
        yield EpochReport(epoch, num_epochs, metrics, None, *training.savers(), again=True)


class _Training:
    """The state of one training, and the work of an epoch."""

    def __init__(
        self,
        config: TrialConfig,
        data: SegmentationData,
        device: torch.device,
        on_step: Callable[[], object],
        ranks: Ranks = ALONE,
    ) -> None:
        task = config.trained_here
        self.ranks = ranks
        self.on_step = on_step
        self.config = config
        self.task = task
        self.data = data
        self.device = device
        self.teacher = teaching(config.loss, data, device, on_step)
        of_teacher = "" if self.teacher is None else self.teacher.digest
        self.identity = digest(config, data.fingerprint, of_teacher)
        ranks.agree(self.identity, "data and teacher, by their hashes")
        self.order = TrainOrder(len(data.train.images), task.batch_size, config.seed)
        if isinstance(task.budget, StepBudget):
            self.num_steps = task.budget.steps
        else:
            self.num_steps = task.budget.epochs * self.order.steps_per_pass
        self.batches = Batches(data, device, resolve_precision(task.precision, device))
        self.rng = _OwnRandomNumbers(config.seed, device)
        with self.rng.active():
            model = build_model(task.model, data.num_classes)
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = loss_for(config.loss, data, task.model).to(device)
        self.optimizer = build_optimizer(
            task.optimizer, self.model, lr_scale=config.optimizer.lr_scale
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.batches.precision == "fp16")
        self.epoch = 0
        self.step = 0
        self.reports: dict[int, dict[str, float]] = {}

    def train_epoch(self) -> dict[str, float]:
        """Run one epoch of optimiser steps; wait for the device once, at its end."""
        start = time.perf_counter()
        self.on_step()
        self.epoch += 1
        # A step budget is split into epochs that differ by at most one step.
        task = self.task
        end = self.num_steps * self.epoch // task.num_epochs
        first, num_images, lr = self.step, 0, 0.0
        draws = draw(self.order, first, end)
        losses: list[Held] = []
        terms: list[dict[str, Held]] = []
        windows = task.augment.crop is not None or task.augment.scale is not None
        held: list[Held] = []
        self.model.train()
        self.loss.train()
        self.ranks.same(self.model)
        if self.ranks.rank:
            seed = self.ranks.seed(self.config.seed, self.epoch)
            self.rng = _OwnRandomNumbers(seed, self.device)
        with self.rng.active(), deterministic_kernels(task.deterministic):
            cached = None if self.teacher is None else self.teacher.cached
            share = self.ranks.share
            batches = self.batches.train(self.data.train, draws, task.augment, cached, share)
            for images, part, labels in batches:
                self.loss.measure_gradients = self.step == first
                count = self.order.size(self.step)
                target = self.ranks.labels(part, count)
                soft = labels
                if self.teacher is not None and labels is None:
                    soft = self.teacher(images)
                if soft is not None:
                    soft = self.ranks.gathered(soft, count)
                lr = self._step(images, target, soft, losses, terms)
                if windows:
                    held.append(_held(_classes_in(target, self.data.num_classes)))
                num_images += count
                self.step += 1
                self.on_step()
        metrics = self._means(losses, terms, first)
        if held:
            keys = [f"{IN_BATCHES}/{name}" for name in self.data.class_names]
            metrics |= dict(zip(keys, _series(held).mean(0).tolist(), strict=True))
        return metrics | {"lr": lr, "time/images_per_s": num_images / (time.perf_counter() - start)}

    def _step(
        self,
        images: torch.Tensor,
        target: torch.Tensor,
        soft: torch.Tensor | None,
        losses: list[Held],
        terms: list[dict[str, Held]],
    ) -> float:
        task = self.task
        lr = set_lr(self.optimizer, lr_factor(task.lr_schedule, self.step, self.num_steps))
        self.optimizer.zero_grad(set_to_none=True)
        with self.batches.autocast(), self.ranks.batch_norm():
            outputs = self.model(images)
        outputs = self._whole(outputs, len(target))
        loss = self.loss(outputs, target, **({} if soft is None else {"teacher": soft}))
        self.scaler.scale(loss).backward()
        self.ranks.sum_gradients(self.model)
        if task.optimizer.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            clip_gradients(self.optimizer, task.optimizer.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        losses.append(_held(loss.detach()))
        terms.append({name: _held(term) for name, term in self.loss.step_terms.items()})
        return lr

    def _whole(self, outputs: Any, count: int) -> Any:
        """The outputs of a model for the images of all ranks."""
        if isinstance(outputs, tuple):
            return tuple(self.ranks.whole(one, count) for one in outputs)
        return self.ranks.whole(outputs, count)

    def _means(
        self, losses: list[Held], terms: list[dict[str, Held]], first: int
    ) -> dict[str, float]:
        series = _series(losses)
        mean = float(series.mean())
        if not math.isfinite(mean):
            step = first + int(torch.isfinite(series).logical_not().float().argmax()) + 1
            raise Diverged(f"the training loss is {mean} in epoch {self.epoch}, from step {step}")
        if not math.isfinite(float(get_total_norm(list(self.model.parameters())))):
            raise Diverged(f"the weights are not finite after epoch {self.epoch}")
        means = {
            name: _series([each[name] for each in terms if name in each]).mean(0)
            for name in terms[0]  # the first step has every term
        }
        named = named_terms(means, self.data.class_names)
        keys = [f"{TRAIN}/{name}" for name in named]
        values = torch.stack(list(named.values())).tolist() if named else []
        return dict(zip(keys, values, strict=True)) | {TRAIN_LOSS: mean}

    def evaluate(
        self, names: list[str], *, last: bool
    ) -> tuple[dict[str, float], dict[str, SplitEvidence]]:
        """Measure the named splits, val first, which chooses the decision rules of both: metrics
        with the split's prefix and, at the last epoch, the evidence."""
        measured: dict[str, float] = {}
        counts: dict[str, SplitEvidence] = {}
        rules: Taus | None = None
        for name in names:
            split = self.data.val if name == VAL else self.data.test
            # Without gradients twice the training batch fits; larger ones exceed the CPU's caches.
            size = 2 * self.task.batch_size
            with deterministic_kernels(self.task.deterministic):
                result = evaluate(
                    self.model,
                    self.data,
                    split,
                    self.batches,
                    batch_size=size,
                    evaluation=self.task.evaluation,
                    calibration=last,
                    on_step=self.on_step,
                    ranks=self.ranks,
                )
            measured |= {f"{name}/{key}": value for key, value in result.compute(rules).items()}
            rules = rules or result.taus()
            if last and rules is not None:
                counts[name] = evidence_of(result, rules, split.groups)
        return measured, counts

    def remember(self, metrics: dict[str, float]) -> None:
        """Keep the latest reports, as those of a lost machine may not have arrived."""
        self.reports[self.epoch] = metrics
        self.reports.pop(self.epoch - REMEMBERED, None)

    def savers(
        self,
    ) -> tuple[
        Callable[[Path], None], Callable[[], Callable[[Path], None]], Callable[[Path], None]
    ]:
        """Return functions that write the present state, copy it and write the model's weights, and
        refuse once training has moved on."""
        epoch = self.epoch

        def check() -> None:
            if self.epoch != epoch:
                message = f"epoch {epoch} must be saved before the next report is taken"
                raise RuntimeError(f"{message}; training is in epoch {self.epoch}")

        def save(path: Path) -> None:
            check()
            save_checkpoint(path, self._state(), identity=self.identity)

        def snapshot() -> Callable[[Path], None]:
            check()
            return partial(save_checkpoint, state=copied(self._state()), identity=self.identity)

        def save_model(path: Path) -> None:
            check()
            save_weights(path, self.model, self.data)

        return save, snapshot, save_model

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.loss.state_dict(),
            "rng": self.rng.state,
            "reports": self.reports,
        }

    def load(self, path: Path) -> None:
        """Load the state that `savers` wrote.

        Raises IncompatibleCheckpoint if the code has changed since.
        """
        state = load_checkpoint(path, identity=self.identity, device=self.device)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.loss.load_state_dict(state["loss"])
            self.rng.state = {
                kind: value.cpu() if isinstance(value, torch.Tensor) else value
                for kind, value in state["rng"].items()
            }
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            self.reports = dict(state.get("reports", {}))
        except torch.AcceleratorError:
            raise
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            raise IncompatibleCheckpoint(path, error) from error


def _classes_in(target: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Per class 1 where the target has a pixel of it, else 0; (C,) without a wait for a device."""
    found = torch.zeros(256, device=target.device)
    found[target.flatten().long()] = 1.0
    return found[:num_classes]


def _held(value: torch.Tensor) -> Held:
    """Convert a step's number or row for keeping until the epoch ends: on a CPU to Python numbers.

    Small tensors that stay between the large ones of a step fragment the memory.
    """
    return value.tolist() if value.device.type == "cpu" else value


def _series(values: list[Held]) -> torch.Tensor:
    """Stack the values of the steps, (steps, ...) float64."""
    tensors = [each for each in values if isinstance(each, torch.Tensor)]
    return torch.stack(tensors).double() if tensors else torch.tensor(values, dtype=torch.float64)


def loss_for(
    config: LossConfig | FactoryLoss,
    data: SegmentationData,
    model: SmpModel | FactoryModel | None = None,
) -> SegmentationLoss | OwnLoss | HeadsLoss:
    """Build the loss for these data and the heads of a model. Raises InputError if their classes or
    counts do not fit, or a factory of the user's fails."""
    build = partial(
        build_any_loss,
        num_classes=data.num_classes,
        class_counts=torch.as_tensor(data.train.class_counts),
        ignore_index=data.ignore_index,
    )
    if model is None or not model.num_aux:
        return build(config)
    return HeadsLoss(config, build, model.num_aux, model.aux_weight)


class _OwnRandomNumbers:
    """The global random states of one training, separate from its caller's: those of torch, and for
    users' models those of Python and numpy."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self.state: dict[str, Any] = {
            "cpu": torch.Generator().manual_seed(seed).get_state(),
            "python": random.Random(seed).getstate(),
            "numpy": _plain(np.random.RandomState(seed % 2**32).get_state()),
        }
        if device.type == "cuda":
            self.state["cuda"] = torch.Generator(device).manual_seed(seed).get_state()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set the global random states to this training's inside, and restore the caller's
        afterwards."""
        before = self._read()
        try:
            self._write(self.state)
            yield
            self.state = self._read()
        finally:
            self._write(before)

    def _read(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "cpu": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": _plain(np.random.get_state()),
        }
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def _write(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        if "cuda" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.device)


def _plain(state: Any) -> tuple[Any, ...]:
    """Convert a numpy random state to plain values, which a checkpoint holds besides tensors."""
    name, words, *rest = state
    return (name, words.tolist(), *rest)
