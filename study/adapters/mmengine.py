"""MMEngine, and mmsegmentation on it: a hook that reports each validation, and the trial's loss.

    def train(context: TrialContext) -> None:
        MODELS.register_module("StudyLoss", module=DecodeLoss, force=True)
        loss = dict(type="StudyLoss", loss=context.build_loss(num_classes=19))
        hook = StudyHook(context, {"val/miou": "mIoU", "test/miou": "mIoU"})
        ...  # cfg.model.decode_head.loss_decode = loss; cfg.custom_hooks = [hook]
        runner = Runner.from_cfg(cfg)
        runner.train()
        if context.is_confirmation:
            runner.test()

Each validation is an epoch of the study: in a loop by iterations, its budget is as many epochs as
there are validations. An interrupted trial starts again. Needs the package mmengine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor, nn

from study.adapters.relay import Relay
from study.trials import TrialContext


class StudyHook(Hook):
    """Reports after each validation.

    Args:
        context: of the trial.
        metrics: the study's names of what is reported to those of the evaluators.
        unit: what the evaluators call 1; mmsegmentation's IoUMetric speaks in percent.
    """

    def __init__(
        self, context: TrialContext, metrics: Mapping[str, str], *, unit: float = 100.0
    ) -> None:
        self._relay = Relay(context, metrics)
        self._unit = unit
        self._epoch = 0

    def after_val_iter(self, *_: Any, **__: Any) -> None:
        """Give a sign of life, as the loss does in training."""
        self._relay.context.beat()

    def after_test_iter(self, *_: Any, **__: Any) -> None:
        """Give a sign of life."""
        self._relay.context.beat()

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Report the epoch."""
        self._epoch += 1
        if not self._relay.validated(self._epoch, self._fractions(metrics)):
            runner.train_loop.stop_training = True

    def after_test_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Report the last epoch of a confirmation."""
        self._relay.tested(self._fractions(metrics))

    def _fractions(self, metrics: Mapping[str, float] | None) -> dict[str, float]:
        return {name: value / self._unit for name, value in (metrics or {}).items()}


class DecodeLoss(nn.Module):
    """A trial's loss as `loss_decode` of mmsegmentation's heads. Its `ignore_index` is that of
    `context.build_loss`, and must be the head's."""

    def __init__(self, loss: nn.Module, loss_name: str = "loss_study") -> None:
        super().__init__()
        self.loss = loss
        self.loss_name = loss_name

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: int | None = None,
        ignore_index: int = 255,
        **_: Any,
    ) -> Tensor:
        """The loss of a batch. Pixels have no weights but its own. Raises ValueError for some."""
        if weight is not None:
            raise ValueError(
                "the loss of a study takes no weights of pixels: leave out the sampler"
            )
        value: Tensor = self.loss(cls_score, label)
        return value
