"""Lightning: a callback that reports each epoch, and ends the training when the study does.

    def train(context: TrialContext) -> None:
        callback = StudyCallback(context, {"val/miou": "val_iou", "test/miou": "test_iou"})
        model = Mine(loss=context.build_loss(num_classes=19), lr=3e-4 * context.lr_scale)
        trainer = Trainer(max_epochs=context.num_epochs, callbacks=[callback], ...)
        trainer.fit(model, data, ckpt_path=callback.resume())
        if context.is_confirmation:
            trainer.test(model, data)

Needs the package lightning.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from study.adapters.relay import Relay
from study.core.names import TEST, VAL
from study.trials import TrialContext


class StudyCallback(Callback):
    """Reports after each training epoch, with what its validation has logged.

    Args:
        context: of the trial.
        metrics: the study's names of what is reported to those that the module logs. `val` and
            `test` name attributes of the module instead, in which each pass finds new
            `context.metrics()`: its steps call `self.counts.update(logits, labels)`, and all that
            the study computes is reported.
    """

    def __init__(self, context: TrialContext, metrics: Mapping[str, str]) -> None:
        self._context = context
        self._relay = Relay(context, metrics)
        self._counts = {split: metrics[split] for split in (VAL, TEST) if split in metrics}
        self._has_validated = False
        self._trainer: Any = None

    def resume(self) -> str | None:
        """The checkpoint of an interrupted attempt for `Trainer.fit(ckpt_path=...)`, if there is
        one. Call it before; without the call, an interrupted trial starts again."""
        kept = self._context.folder / "interrupted.ckpt"

        def save(path: Path) -> None:
            self._trainer.save_checkpoint(path)

        return (
            str(kept) if self._context.resume(save, lambda path: shutil.copy(path, kept)) else None
        )

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Keep the trainer, which saves the checkpoints."""
        self._trainer = trainer

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count anew."""
        self._renew(pl_module, VAL)

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to count anew."""
        self._renew(pl_module, TEST)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Give a sign of life, as the loss does in training."""
        self._context.beat()

    def on_test_batch_end(self, *_: Any, **__: Any) -> None:
        """Give a sign of life."""
        self._context.beat()

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Note a validation that counts."""
        self._has_validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the epoch."""
        found, on_val = self._found(trainer, pl_module), self._has_validated
        self._has_validated = False
        if not self._relay.validated(trainer.current_epoch + 1, found, on_val=on_val):
            trainer.should_stop = True

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Report the last epoch of a confirmation."""
        self._relay.tested(self._found(trainer, pl_module))

    def _renew(self, pl_module: Any, split: str) -> None:
        if split in self._counts:
            setattr(pl_module, self._counts[split], self._context.metrics())

    def _found(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        counts = {name: getattr(pl_module, name, None) for name in self._counts.values()}
        return {**trainer.callback_metrics, **counts}
