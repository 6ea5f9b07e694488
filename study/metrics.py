"""Segmentation metrics: IoU, recall and precision from pixel counts of split and images.

With tp, fp, fn summed over the whole split, per class c with ground truth:

    iou = tp / (tp + fp + fn),   recall = tp / (tp + fn),   precision = tp / (tp + fp)

miou, macc (mean recall) and mprec are their means over the classes with ground truth; a class that
is never predicted has precision 0. acc = sum tp / pixels, fwiou = sum_c frequency_c * iou_c.

The image-wise metrics (Wang et al., "Revisiting Evaluation Metrics for Semantic Segmentation",
NeurIPS 2023) use each image's own counts; a class counts in the images whose ground truth has it:

    miou_image    mean over images of the image's mean IoU over its present classes
    miou_class    mean over classes of the class's mean IoU over the images that have it
    miou_worst5   mean over the lowest max(1, floor(5 n / 100)) of the n image-wise means

Ignored pixels do not count, nor do images without any other pixel. Every metric is in 0..1, or NaN
if it is undefined (no valid pixel at all). All metrics are NaN if a logit at a valid pixel was NaN:
a model that has diverged predicts nothing. The functions on counts need numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SegmentationMetrics"]

WORST_PERCENT = 5
Floats = NDArray[np.float64]


class SegmentationMetrics:
    """Accumulates pixel counts over batches, and computes the metrics of this module at the end.

        iou = tp / (tp + fp + fn),   recall = tp / (tp + fn),   precision = tp / (tp + fp)

    Counts stay on the predictions' device; nothing is copied to the host before the end.

    Args:
        num_classes: C.
        ignore_index: label of the pixels that do not count.
        class_names: names of the per-class metrics, one per class, all different; default the class
            indices.

    Raises:
        ValueError: if class_names do not fit.

    Example:
        >>> import torch
        >>> from study.metrics import SegmentationMetrics
        >>> metrics = SegmentationMetrics(num_classes=2, class_names=["road", "pole"])
        >>> metrics.update(torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 1, 1, 255]]]))
        >>> values = metrics.compute()
        >>> values["miou"], values["iou/pole"], values["recall/road"]
        (0.5, 0.5, 1.0)
        >>> metrics.confusion.tolist()
        [[1, 0], [1, 1]]
    """

    def __init__(
        self,
        num_classes: int,
        ignore_index: int = 255,
        class_names: Sequence[str] | None = None,
    ) -> None:
        names = [str(c) for c in range(num_classes)] if class_names is None else list(class_names)
        if len(names) != num_classes:
            raise ValueError(
                f"class_names must have one name per class ({num_classes}), got {len(names)}"
            )
        if len(set(names)) < len(names):
            raise ValueError(f"class_names must be unique, got {names}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.class_names = tuple(names)
        self._confusion: Tensor | None = None
        self._diverged: Tensor | None = None
        self._image_counts: list[Tensor] = []

    def update(self, pred_or_logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            pred_or_logits: logits (B, C, H, W) float, or predicted classes (B, H, W) integer.
            target: (B, H, W) integers in [0, C) or `ignore_index`.

        Raises:
            ValueError: for shapes or dtypes that do not fit and, on the CPU, for a class out of
                range.
        """
        import torch

        from study.losses.histogram import sum_by_label

        pred, target = self._checked(pred_or_logits.detach(), target)
        batch, classes = target.shape[0], self.num_classes
        cells = classes * classes + 1  # the last is for ignored pixels
        cell = torch.where(target == self.ignore_index, cells - 1, target * classes + pred)
        cell = cell + torch.arange(batch, device=cell.device)[:, None] * cells
        table = sum_by_label(cell, batch * cells).long().view(batch, cells)[:, :-1]
        table = table.view(batch, classes, classes)
        hits = table.diagonal(dim1=1, dim2=2)
        self._keep(torch.stack([hits, table.sum(1) - hits, table.sum(2) - hits], 1))
        total = table.sum(0)
        self._confusion = total if self._confusion is None else self._confusion + total

    def _keep(self, counts: Tensor) -> None:
        """Append, in few tensors that double in size: many small ones that stay between the
        large tensors of a model fragment the memory."""
        import torch

        pieces = self._image_counts
        pieces.append(counts)
        while len(pieces) > 1 and len(pieces[-2]) <= len(pieces[-1]):
            pieces[-2:] = [torch.cat(pieces[-2:])]

    def _checked(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check both and return them as (B, P) int64."""
        import torch

        if pred.is_floating_point() and pred.ndim == 4 and pred.shape[1] == self.num_classes:
            logits, pred = pred, pred.argmax(1)
            if target.shape == pred.shape:
                self._watch(logits, pred, target)
        integer = not pred.is_floating_point() and not target.is_floating_point()
        if not integer or pred.ndim != 3 or pred.shape != target.shape:
            raise ValueError(
                f"update takes logits (B, {self.num_classes}, H, W) or integer classes (B, H, W), "
                f"and an integer target (B, H, W), got {pred.dtype} of {tuple(pred.shape)} "
                f"and {target.dtype} of {tuple(target.shape)}"
            )
        pred, target = pred.flatten(1).long(), target.flatten(1).long()
        valid = target != self.ignore_index
        for name, classes in (("pred", pred), ("target", target)):
            inside = ((classes >= 0) & (classes < self.num_classes)) | ~valid
            if classes.device.type != "cpu":
                torch._assert_async(inside.all())
            elif not bool(inside.all()):
                raise ValueError(
                    f"{name} must be in [0, {self.num_classes}) where target is not "
                    f"{self.ignore_index}, got {int(classes[~inside][0])}"
                )
        return pred, target

    def _watch(self, logits: Tensor, pred: Tensor, target: Tensor) -> None:
        """Remember a NaN at a valid pixel; argmax selects a NaN wherever there is one."""
        top = logits.gather(1, pred[:, None])[:, 0]
        found = (top.isnan() & (target != self.ignore_index)).any()
        self._diverged = found if self._diverged is None else self._diverged | found

    @property
    def confusion(self) -> Tensor:
        """The (C, C) int64 pixel counts; rows are the target, columns the prediction."""
        import torch

        if self._confusion is None:
            return torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)
        return self._confusion

    def image_counts(self) -> Tensor:
        """The true positives, false positives and misses of each image, (images, 3, C) int64."""
        import torch

        if not self._image_counts:
            return torch.zeros(0, 3, self.num_classes, dtype=torch.int64)
        return torch.cat(self._image_counts)

    def compute(self) -> dict[str, float]:
        """Compute all metrics of the batches so far.

        Returns:
            Each metric by its name, in 0..1 or NaN; `iou/<name>`, `recall/<name>` and
            `precision/<name>` for the classes with ground truth, and their number,
            `num_classes_present`.
        """
        counts = self.image_counts().cpu().numpy()
        total = counts.sum(0)
        values = {key: float(value) for key, value in metrics_from_counts(total).items()}
        values |= metrics_from_image_counts(counts)
        per_class = class_metrics(total)
        present = _present(total)
        for key, row in per_class.items():
            for name, value, shown in zip(self.class_names, row, present, strict=True):
                if shown:
                    values[f"{key}/{name}"] = float(value)
        if self._diverged is not None and bool(self._diverged):
            values = dict.fromkeys(values, float("nan"))
        return {**values, "num_classes_present": float(present.sum())}


def class_metrics(counts: NDArray[Any]) -> dict[str, Floats]:
    """iou, recall and precision (..., C) of summed counts (..., 3, C); 0 for 0 / 0."""
    tp, fp, fn = np.moveaxis(np.asarray(counts, dtype=np.float64), -2, 0)
    return {
        "iou": _ratio(tp, tp + fp + fn),
        "recall": _ratio(tp, tp + fn),
        "precision": _ratio(tp, tp + fp),
    }


def metrics_from_counts(counts: NDArray[Any]) -> dict[str, Floats]:
    """miou, macc, mprec, acc and fwiou of summed counts (..., 3, C), for every leading index.

    A bootstrap resamples images, sums their counts and calls this once on (resamples, 3, C).
    """
    counts = np.asarray(counts, dtype=np.float64)
    per_class, present = class_metrics(counts), _present(counts)
    pixels = counts[..., 0, :] + counts[..., 2, :]
    return {
        "miou": _mean(per_class["iou"], present),
        "macc": _mean(per_class["recall"], present),
        "mprec": _mean(per_class["precision"], present),
        "acc": _mean(per_class["recall"], pixels),
        "fwiou": _mean(per_class["iou"], pixels),
    }


def metrics_from_image_counts(counts: NDArray[Any]) -> dict[str, float]:
    """miou_image, miou_class and miou_worst5 of the counts (images, 3, C) of single images."""
    present = _present(counts)
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


def _present(counts: NDArray[Any]) -> NDArray[np.bool_]:
    """Which classes have ground truth, (..., C)."""
    return counts[..., 0, :] + counts[..., 2, :] > 0


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: Floats, weights: NDArray[Any]) -> Floats:
    """Weighted mean over the last axis; NaN if all weights are 0."""
    total = weights.sum(-1).astype(np.float64)
    nothing = np.full_like(total, np.nan)
    return np.divide((values * weights).sum(-1), total, out=nothing, where=total > 0)
