"""Metrics of summed pixel counts, and of those of single images. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORST_PERCENT = 5
Floats = NDArray[np.float64]


def counts_of_confusion(confusion: NDArray[Any]) -> NDArray[Any]:
    """Counts (..., 3, C) of confusion matrices (..., C, C), rows the target."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([hits, confusion.sum(-2) - hits, confusion.sum(-1) - hits], axis=-2)


def class_metrics(counts: NDArray[Any]) -> dict[str, Floats]:
    """iou, recall, precision and dice (..., C) of summed counts (..., 3, C); 0 for 0 / 0."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=np.float64), -2, 0)
    return {
        "iou": _ratio(tp, tp + fp + fn),
        "recall": _ratio(tp, tp + fn),
        "precision": _ratio(tp, tp + fp),
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
    }


def metrics_from_counts(counts: NDArray[Any]) -> dict[str, Floats]:
    """miou, macc, mprec, mdice, acc, fwiou of summed counts (..., 3, C), for every leading index.

    A bootstrap resamples images, sums their counts and calls this once on (resamples, 3, C).
    """
    counts = np.asarray(counts, dtype=np.float64)
    per_class, present = class_metrics(counts), present_classes(counts)
    pixels = counts[..., 0, :] + counts[..., 2, :]
    return {
        "miou": _mean(per_class["iou"], present),
        "macc": _mean(per_class["recall"], present),
        "mprec": _mean(per_class["precision"], present),
        "mdice": _mean(per_class["dice"], present),
        "acc": _mean(per_class["recall"], pixels),
        "fwiou": _mean(per_class["iou"], pixels),
    }


def metrics_from_image_counts(counts: NDArray[Any]) -> dict[str, float]:
    """miou_image, miou_class and miou_worst5 of the counts (images, 3, C) of single images."""
    present = present_classes(counts)
    iou = class_metrics(counts)["iou"]
    image_means = _mean(iou, present)[present.any(1)]
    class_means = _mean(iou.T, present.T)[present.any(0)]
    if not image_means.size:
        return dict.fromkeys(("miou_image", "miou_class", "miou_worst5"), float("nan"))
    num_worst = max(1, WORST_PERCENT * image_means.size // 100)
    return {
        "miou_image": float(image_means.mean()),
        "miou_class": float(class_means.mean()),
        "miou_worst5": float(np.sort(image_means)[:num_worst].mean()),
    }


def named_metrics(
    counts: NDArray[Any], class_names: Sequence[str], groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """All metrics of the counts (images, 3, C) by name, those of classes with ground truth only.

    groups: class indices by the name of the group.
    """
    total = counts.sum(0)
    values = {key: float(value) for key, value in metrics_from_counts(total).items()}
    values |= metrics_from_image_counts(counts)
    per_class, present = class_metrics(total), present_classes(total)
    for key in ("iou", "recall", "precision"):
        for name, value, shown in zip(class_names, per_class[key], present, strict=True):
            if shown:
                values[f"{key}/{name}"] = float(value)
    for group, members in groups.items():
        for key, row in (("miou", "iou"), ("recall", "recall"), ("dice", "dice")):
            mean = _mean(per_class[row][list(members)], present[list(members)])
            values[f"{key}/{group}"] = float(mean)
    return values


def present_classes(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Which classes have ground truth, (..., C)."""
    return counts[..., 0, :] + counts[..., 2, :] > 0


def _mean(values: Floats, weights: NDArray[Any]) -> Floats:
    """Weighted mean over the last axis; NaN if all weights are 0."""
    total = weights.sum(-1).astype(np.float64)
    nothing = np.full_like(total, np.nan)
    return np.divide((values * weights).sum(-1), total, out=nothing, where=total > 0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
