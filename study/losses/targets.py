"""Checked and flattened targets: the labels, soft labels and valid pixels of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from study.losses.histogram import sum_by_label


@dataclass(frozen=True)
class Labels:
    """A target, flattened to (B, P) with P = H * W pixels; ignored pixels hold class 0.

    soft: (B, C, P) label distributions in the loss's dtype, 0 at ignored pixels; None for hard
    labels. some_ignored: False only if all pixels are known to be valid without asking an
    accelerator.
    """

    label: Tensor  # (B, P) int64; of a soft target the most probable class
    valid: Tensor  # (B, P) bool
    soft: Tensor | None
    num_valid: Tensor  # 0-dim int64
    some_ignored: bool
    num_classes: int
    epsilon: float | Tensor = 0.0  # label smoothing, for all pixels or (B, P)

    @cached_property
    def ignored(self) -> Tensor:
        """(B, P) bool, the opposite of valid."""
        return ~self.valid

    @cached_property
    def apart(self) -> Tensor:
        """(B, P): the label, or num_classes at ignored pixels."""
        if not self.some_ignored:
            return self.label
        return self.label.masked_fill(self.ignored, self.num_classes)

    @cached_property
    def _apart_by_image(self) -> Tensor:
        """(B, P): as `apart`, with num_classes + 1 separate labels for each image."""
        image = torch.arange(self.label.shape[0], device=self.label.device)[:, None]
        return self.apart + image * (self.num_classes + 1)

    def sum_by_image(self, values: Tensor | None = None) -> Tensor:
        """Count the valid pixels of each image and class, or sum `values` (B, P) there: (B, C)."""
        batch, bins = self.label.shape[0], self.num_classes + 1
        sums = sum_by_label(self._apart_by_image, batch * bins, values)
        return sums.view(batch, bins)[:, :-1]


def check_shapes(logits: Tensor, target: Tensor, keep: Tensor | None, num_classes: int) -> None:
    """Raise ValueError unless the shapes and dtypes fit."""
    if logits.ndim != 4 or logits.shape[1] != num_classes or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating-point of shape (B, {num_classes}, H, W), "
            f"got {logits.dtype} of {tuple(logits.shape)}"
        )
    batch, _, height, width = logits.shape
    pixels = (batch, height, width)
    if keep is not None and (keep.dtype != torch.bool or tuple(keep.shape) != pixels):
        raise ValueError(
            f"keep must be bool of shape {pixels} for logits of {tuple(logits.shape)}, "
            f"got {keep.dtype} of {tuple(keep.shape)}"
        )
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise ValueError(
                f"a soft target must have the logits' shape {tuple(logits.shape)}, "
                f"got {tuple(target.shape)}"
            )
    elif tuple(target.shape) != pixels or target.dtype == torch.bool or target.is_complex():
        raise ValueError(
            f"target must be integer of shape {pixels} or floating-point of shape "
            f"{tuple(logits.shape)}, got {target.dtype} of {tuple(target.shape)}"
        )


def read_labels(
    target: Tensor, keep: Tensor | None, num_classes: int, ignore_index: int, dtype: torch.dtype
) -> Labels:
    """Read a target of a checked shape; soft labels in `dtype`.

    Raises ValueError, on the CPU, for a label out of range.
    """
    if target.is_floating_point():
        return _read_soft(target, keep, num_classes, dtype)
    flat = target.flatten(1).long()
    valid = flat != ignore_index
    if keep is not None:
        valid = valid & keep.flatten(1)
    labels = _labels(flat, valid, None, num_classes)
    _check_range(labels.label, num_classes, ignore_index)
    return labels


def _read_soft(target: Tensor, keep: Tensor | None, num_classes: int, dtype: torch.dtype) -> Labels:
    soft = target.detach().flatten(2).to(dtype)
    if keep is None:
        valid = torch.ones_like(soft[:, 0], dtype=torch.bool)
    else:
        valid = keep.flatten(1)
        soft = soft.masked_fill(~valid[:, None], 0)
    return _labels(soft.argmax(1), valid, soft, num_classes)


def _labels(label: Tensor, valid: Tensor, soft: Tensor | None, num_classes: int) -> Labels:
    num_valid = valid.sum()
    some_ignored = valid.device.type != "cpu" or int(num_valid) < valid.numel()
    if some_ignored:
        label = label.masked_fill(~valid, 0)
    return Labels(label, valid, soft, num_valid, some_ignored, num_classes)


def _check_range(label: Tensor, num_classes: int, ignore_index: int) -> None:
    if label.device.type != "cpu":
        torch._assert_async(((label >= 0) & (label < num_classes)).all())
        return
    if label.numel() == 0:
        return
    low, high = (int(bound) for bound in label.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels must be in [0, {num_classes}) or {ignore_index} (ignored), "
            f"got {low if low < 0 else high}"
        )


def compute_dtype(logits: Tensor) -> torch.dtype:
    """float64 stays float64; everything else, half precision too, is computed in float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
