"""Ultralytics' semantic segmentation: callbacks that report, and put the trial's loss in place.

    def train(context: TrialContext) -> None:
        model = YOLO("yolo26n-sem.yaml")
        study = StudyCallbacks(context, context.build_loss(num_classes=19))
        study.add_to(model)
        model.train(data="mine.yaml", epochs=context.num_epochs, seed=context.seed,
                    lr0=0.01 * context.lr_scale, optimizer="AdamW", project=str(context.folder),
                    ...)
        if context.is_confirmation:
            last = YOLO(model.trainer.last)
            study.tested(last.val(data="mine.yaml", split="test").results_dict)

This is its task `semantic`; instance segmentation, its `segment`, has no loss over the classes of
pixels. `optimizer="auto"` passes over lr0, so that lr_scale would do nothing. An interrupted trial
starts again. For one process and 8.4; imports nothing of Ultralytics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from study.adapters.relay import Relay
from study.trials import TrialContext

METRICS = {"val/miou": "metrics/mIoU", "test/miou": "metrics/mIoU"}
AUXILIARY = 0.4  # the weight of the auxiliary head's cross entropy, as Ultralytics has it


class Criterion:
    """A trial's loss in place of cross entropy plus Dice; no module, so that no checkpoint has
    it."""

    def __init__(self, loss: nn.Module) -> None:
        self._loss = loss

    def __deepcopy__(self, memo: object) -> Criterion:
        return self

    def __call__(
        self, preds: Tensor | tuple[Tensor, ...], batch: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times the size of the batch, and its parts."""
        logits, *others = preds if isinstance(preds, tuple) else (preds,)
        mask = batch["semantic_mask"].to(logits.device).long()
        self._loss.train(torch.is_grad_enabled())
        value = self._loss(_resized(logits, mask), mask)
        # of no valid pixel, the mean is 0 / 0
        valid = (mask != 255).sum().clamp_min(1)
        auxiliary = value.new_zeros(())
        for other in others:
            pixels = _resized(other, mask).float()
            entropy = nn.functional.cross_entropy(pixels, mask, ignore_index=255, reduction="sum")
            auxiliary = auxiliary + AUXILIARY * entropy / valid
        parts = {"loss": value.detach(), "aux_loss": auxiliary.detach()}
        return (value + auxiliary) * len(mask), parts


def _resized(logits: Tensor, mask: Tensor) -> Tensor:
    if logits.shape[2:] == mask.shape[1:]:
        return logits
    size = mask.shape[1:]
    return nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class StudyCallbacks:
    """Reports after each epoch, with the figures of the model that Ultralytics validates (its EMA).

    Args:
        context: of the trial.
        loss: of the trial; one class alone, which Ultralytics trains on a single logit, has none.
        metrics: the study's names of what is reported to Ultralytics'.
    """

    def __init__(
        self, context: TrialContext, loss: nn.Module, metrics: Mapping[str, str] = METRICS
    ) -> None:
        self._relay = Relay(context, metrics)
        self._criterion = Criterion(loss)
        self._has_ended = False

    def add_to(self, model: Any) -> None:
        """Add the callbacks to a YOLO model, before it trains."""
        model.add_callback("on_train_epoch_start", self._exchange)
        model.add_callback("on_fit_epoch_end", self._report)
        model.add_callback("on_val_batch_end", lambda _: self._relay.context.beat())

    def tested(self, results: Mapping[str, float]) -> None:
        """Report the last epoch of a confirmation."""
        self._relay.tested(results)

    def _exchange(self, trainer: Any) -> None:
        trainer.model.criterion = trainer.ema.ema.criterion = self._criterion

    def _report(self, trainer: Any) -> None:
        if self._has_ended:  # it validates its best epoch once more
            return
        if not self._relay.validated(trainer.epoch + 1, trainer.metrics):
            self._has_ended = trainer.stop = True
