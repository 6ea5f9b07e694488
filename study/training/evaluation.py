"""One pass over a split: metrics, confusion matrix and counts per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from study.metrics import SegmentationMetrics
from study.training.batches import Batches

if TYPE_CHECKING:
    from study.data import SegmentationData, Split


@dataclass(frozen=True)
class Evidence:
    """The counts that a trial's statistics are computed from; `test_*` is None without a test pass.

    confusion: (C, C) int64 pixels, rows are the target. counts: (n, 3, C) int64 pixels, the true
    positives, false positives and false negatives of each image. groups: (n,) int64, equal for
    images that are resampled together.
    """

    class_names: tuple[str, ...]
    val_confusion: np.ndarray
    val_counts: np.ndarray
    val_groups: np.ndarray
    test_confusion: np.ndarray | None = None
    test_counts: np.ndarray | None = None
    test_groups: np.ndarray | None = None


def evaluate(
    model: nn.Module,
    data: SegmentationData,
    split: Split,
    batches: Batches,
    *,
    batch_size: int,
) -> SegmentationMetrics:
    """Measure `model` on every image of `split`, at its own size and without augmentation.

    Accumulates on the device without waiting for it. Leaves the model in eval mode.
    """
    metrics = SegmentationMetrics(
        data.num_classes, ignore_index=data.ignore_index, class_names=data.class_names
    )
    model.eval()
    with torch.inference_mode():
        for images, target in batches.evaluation(split, batch_size):
            with batches.autocast():
                logits = model(images)
            metrics.update(logits, target)
    return metrics


def evidence_of(prefix: str, metrics: SegmentationMetrics, split: Split) -> dict[str, Any]:
    """The three Evidence fields of a split."""
    return {
        f"{prefix}_confusion": metrics.confusion.cpu().numpy(),
        f"{prefix}_counts": metrics.image_counts().cpu().numpy(),
        f"{prefix}_groups": np.asarray(split.groups, dtype=np.int64),
    }
