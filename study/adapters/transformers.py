"""Hugging Face's Trainer: a callback that reports each evaluation, and the trial's loss.

    def train(context: TrialContext) -> None:
        metrics = {"val/miou": "eval_mean_iou", "test/miou": "test_mean_iou"}
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=context.folder, num_train_epochs=context.num_epochs,
                eval_strategy="epoch", seed=context.seed, learning_rate=6e-5 * context.lr_scale,
            ),
            callbacks=[StudyCallback(context, metrics)],
            compute_loss_func=ComputeLoss(context.build_loss(num_classes=19)),
            ...,
        )
        trainer.train()
        if context.is_confirmation:
            trainer.evaluate(test_data, metric_key_prefix="test")

An interrupted trial starts again. Needs the package transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from study.adapters.relay import Relay
from study.core.names import TEST
from study.trials import TrialContext


class StudyCallback(TrainerCallback):
    """Reports after each evaluation, of which there must be one an epoch.

    Args:
        context: of the trial.
        metrics: the study's names of what is reported to the Trainer's, with their prefixes:
            those of a test begin with `test_`.
    """

    def __init__(self, context: TrialContext, metrics: Mapping[str, str]) -> None:
        self._relay = Relay(context, metrics)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give a sign of life, as the loss does in training."""
        self._relay.context.beat()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **_: Any
    ) -> None:
        """Report the epoch; after a test, the last one of a confirmation."""
        epoch = round(state.epoch or 0)
        if any(name.startswith(f"{TEST}_") for name in metrics):
            self._relay.tested(metrics)
        elif epoch and not self._relay.validated(epoch, metrics):
            control.should_training_stop = True


class ComputeLoss:
    """The `compute_loss_func` of a Trainer: logits are brought to the size of the labels.

    With gradient accumulation, set the Trainer's `loss_is_scaled_for_ga` to False: this loss is a
    mean over its own batch.
    """

    def __init__(self, loss: nn.Module) -> None:
        self._loss = loss

    def __call__(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        """The loss of a batch; outside of training it changes no state of the loss."""
        self._loss.train(torch.is_grad_enabled())
        logits = nn.functional.interpolate(
            outputs["logits"], size=labels.shape[-2:], mode="bilinear", align_corners=False
        )
        value: Tensor = self._loss(logits, labels)
        return value
