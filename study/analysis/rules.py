"""The decision rules that the trainings of a study are judged at: the columns of its answer.

A training has two rules tuned on its own val (`study.metrics`), one for mIoU and one for mean
accuracy. Together they are one column; the argmax, as papers report it, is the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from study.core.names import (
    TEST_MACC,
    TEST_MIOU,
    TEST_TUNED_MACC,
    TEST_TUNED_MIOU,
    VAL_MACC,
    VAL_MIOU,
    VAL_TUNED_MACC,
    VAL_TUNED_MIOU,
)
from study.ledger.state import State


@dataclass(frozen=True)
class Rule:
    """A column of the answer: val selects by the first two metrics, test is judged by the others.

    counts_*: the fields of `SplitEvidence` with the counts per image of the test metrics.
    has_macc: whether mean accuracy is measured; a training of the user's own may leave it out.
    """

    name: str
    val_miou: str
    val_macc: str
    test_miou: str
    test_macc: str
    counts_miou: str
    counts_macc: str
    has_macc: bool = field(default=True, compare=False)

    @property
    def judged(self) -> tuple[str, ...]:
        """The test metrics that a confirmation must have."""
        return (self.test_miou, self.test_macc) if self.has_macc else (self.test_miou,)


def prefix_of(key: str) -> str:
    """The split and rule of a metric: `test/tuned/` of `test/tuned/miou`."""
    return key[: key.rindex("/") + 1]


ARGMAX = Rule("argmax", VAL_MIOU, VAL_MACC, TEST_MIOU, TEST_MACC, "counts", "counts")
TUNED = Rule(
    "tuned rule", VAL_TUNED_MIOU, VAL_TUNED_MACC, TEST_TUNED_MIOU, TEST_TUNED_MACC,
    "tuned_counts", "tuned_macc_counts",
)  # fmt: skip


def rules_of(state: State) -> tuple[Rule, ...]:
    """The columns of a study's answer, the primary one first: tuned and argmax.

    The argmax alone where not every trial that reported has measured the tuned rules: a study that
    an earlier version began, one whose training is the user's own, or that has no report yet. That
    one is without mean accuracy where no trial has reported any.
    """
    last = [trial.last for trial in state.trials.values() if trial.reports]
    if last and all(VAL_TUNED_MIOU in at for at in last):
        return (TUNED, ARGMAX)
    has_macc = not last or any(key in at for at in last for key in (VAL_MACC, TEST_MACC))
    return (replace(ARGMAX, has_macc=has_macc),)
