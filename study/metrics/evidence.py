"""What statistics need of one split: pixel counts of the images and of the decision rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from study.metrics.decision import ARGMAX, TAUS, Taus
from study.metrics.segmentation import SegmentationMetrics

Ints = NDArray[np.int64]
MIN_GROUPS = 5  # with fewer, there is no interval over images


@dataclass(frozen=True)
class SplitEvidence:
    """The counts of one split, int64 pixels.

    Attributes:
        confusion: (C, C) at the argmax; rows are the target.
        counts: (n, 3, C), the true positives, false positives and false negatives of each image.
        groups: (n,), equal for images that are resampled together.
        curve: (taus, C, C), the confusion matrix at each decision rule of `study.metrics.TAUS`;
            this and the next two are None in the evidence of older versions.
        tuned_counts: counts at tau_miou.
        tuned_macc_counts: counts at tau_macc.
    """

    confusion: Ints
    counts: Ints
    groups: Ints
    curve: Ints | None = None
    tuned_counts: Ints | None = None
    tuned_macc_counts: Ints | None = None


def evidence_of(
    metrics: SegmentationMetrics, rules: Taus | None, groups: npt.ArrayLike | None = None
) -> SplitEvidence:
    """The counts of a split. rules: that val chose, where decision rules are measured.

    groups: (images,), equal for images that are resampled together; default each by itself.
    """
    curve = metrics.curve
    if curve is None or rules is None:
        counts = metrics.image_counts().cpu().numpy()
        return SplitEvidence(metrics.confusion.cpu().numpy(), counts, _groups(groups, len(counts)))
    counts = metrics.rule_counts(TAUS[ARGMAX])
    return SplitEvidence(
        confusion=curve[ARGMAX],
        counts=counts,
        groups=_groups(groups, len(counts)),
        curve=curve,
        tuned_counts=metrics.rule_counts(rules.miou),
        tuned_macc_counts=metrics.rule_counts(rules.macc),
    )


def _groups(groups: npt.ArrayLike | None, images: int) -> Ints:
    return np.asarray(np.arange(images) if groups is None else groups, dtype=np.int64)
