"""From a framework's own numbers to the reports of a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.core.errors import InputError
from study.core.names import TEST, TEST_MIOU, VAL
from study.trials import TrialContext


class Relay:
    """Reports an epoch's numbers; in a confirmation it holds the last ones until its test is over.

    Args:
        context: of the trial.
        metrics: the study's names of what is reported, such as `val/miou`, to the framework's.

    Raises:
        InputError: where a confirmation's metrics name none of the test.
    """

    def __init__(self, context: TrialContext, metrics: Mapping[str, str]) -> None:
        self.context = context
        self._metrics = dict(metrics)
        self._last = 0
        self._waiting: dict[str, Any] | None = None
        if context.is_confirmation and not {TEST, TEST_MIOU} & metrics.keys():
            raise InputError(f"metrics must name {TEST_MIOU}: a confirmation is judged on test")

    def validated(self, epoch: int, found: Mapping[str, Any], *, on_val: bool = True) -> bool:
        """Report an epoch, unless it has been; return whether to go on. Without `on_val` nothing
        was validated in it."""
        if epoch == self._last:
            return False
        self._last = epoch
        values = self._picked(found, lambda split: split != TEST and (on_val or split != VAL))
        if self.context.is_confirmation and epoch == self.context.num_epochs:
            self._waiting = values
            return False
        return self.context.report(epoch, values)

    def tested(self, found: Mapping[str, Any]) -> None:
        """Report the last epoch of a confirmation; elsewhere a test is nobody's business."""
        if self._waiting is not None:
            values, self._waiting = self._waiting, None
            values |= self._picked(found, lambda split: split == TEST)
            self.context.report(self._last, values)

    def _picked(self, found: Mapping[str, Any], wanted: Any) -> dict[str, Any]:
        values = {}
        for name, own in self._metrics.items():
            if wanted(name.partition("/")[0]):
                if own not in found:
                    raise InputError.unknown(f"metric for {name}:", own, sorted(found))
                values[name] = found[own]
        return values
