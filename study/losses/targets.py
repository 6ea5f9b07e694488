"""Checked and flattened inputs: logits, labels, soft labels and valid pixels of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from study.core.errors import InputError
from study.losses.histogram import sum_by_label
from study.losses.ignored import in_words
from study.losses.looking import may_look, transforms_active

# How far the sum of a soft label may be from 1, by the dtype in which it came.
SLACK = {torch.float16: 5e-3, torch.bfloat16: 4e-2}
LEAST_SLACK = 1e-3


@dataclass(frozen=True)
class Labels:
    """A target, flattened to (B, P), P pixels an image; ignored pixels hold class 0.

    soft: (B, C, P) label distributions in the loss's dtype, 0 at ignored pixels; None for hard
    labels. some_ignored: False only if all pixels are known to be valid without asking an
    accelerator.
    """

    hard: Tensor | None  # (B, P) int64; None for soft labels
    valid: Tensor  # (B, P) bool
    soft: Tensor | None
    num_valid: Tensor  # 0-dim int64
    some_ignored: bool
    num_classes: int
    slack: float | None = None  # of the sums of soft labels; None where they are not checked
    epsilon: float | Tensor = 0.0  # label smoothing, for all pixels or (B, P)
    weight: Tensor | None = None  # (B, P), of each pixel's loss

    @cached_property
    def label(self) -> Tensor:
        """(B, P) int64; of a soft target the most probable class."""
        if self.hard is not None:
            return self.hard
        assert self.soft is not None
        label = most_probable(self.soft.detach())
        return label.masked_fill(self.ignored, 0) if self.some_ignored else label

    @cached_property
    def ignored(self) -> Tensor:
        """(B, P) bool, the opposite of valid."""
        return ~self.valid

    def check(self, soft: Tensor, valid: Tensor, axis: int) -> None:
        """Raise InputError where soft labels, or a part of them, are no distributions."""
        if self.slack is None or soft.numel() == 0:
            return
        least, totals = float(soft.amin()), soft.sum(axis)
        fits = ((totals - 1).abs() <= self.slack) | ~valid
        if least >= -self.slack and bool(fits.all()):
            return
        total = f"a sum of {float(totals[~fits][0]):g}" if not bool(fits.all()) else ""
        raise InputError(
            "a soft target must be a distribution over the classes at each pixel, got "
            f"{total or f'a value of {least:g}'}",
            hint="leave pixels out by keep=, or build the loss with validate=False",
        )

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


def refuse_probabilities(logits: Tensor, who: str) -> None:
    """Raise InputError where logits (B, C, ...) are above 0 and sum to 1 at each pixel, as what a
    softmax gives. Reads values: for a first batch."""
    readable = type(logits) is Tensor and logits.device.type != "meta" and not transforms_active()
    if not readable or logits.numel() == 0 or logits.shape[1] == 1:
        return
    values = logits.detach().float()
    if bool((values > 0).all() & ((values.sum(1) - 1).abs() < 0.01).all()):
        raise InputError(
            f"{who} was given probabilities, which sum to 1 at each pixel, and takes logits",
            hint="leave out the softmax at the end of the network",
        )


def in_shape(
    logits: Tensor, target: Tensor, keep: Tensor | None, num_classes: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits (B, C, ...), a target (B, ...) of integers or (B, C, ...) of floats, keep (B, ...).

    C is 2 for the one channel of a binary loss: its first class has logit 0.

    Raises:
        ValueError: unless the shapes and dtypes fit.
    """
    check_tensors(logits=logits, target=target)
    check_device(logits, target=target, keep=keep)
    floats = logits.is_floating_point()
    if logits.ndim < 3 or logits.shape[1] != num_classes or not floats:
        raise ValueError(
            f"logits must be floating-point of shape (B, {num_classes}, H, W), "
            f"got {logits.dtype} of {tuple(logits.shape)}; (B, {num_classes}, N) and "
            f"(B, {num_classes}, D, H, W) will do as well"
            + "; one channel is num_classes=1"
            * (num_classes == 2 and logits.shape[1:2] == (1,))
        )
    binary, shape = num_classes == 1, logits.shape
    pixels, one_channel = _pixels(shape), (shape[0], 1, *shape[2:])
    if keep is not None and keep.shape == one_channel != pixels:
        keep = keep[:, 0]
    if keep is not None and (keep.dtype != torch.bool or tuple(keep.shape) != pixels):
        raise ValueError(
            f"keep must be bool of shape {pixels} for logits of {tuple(shape)}, "
            f"got {keep.dtype} of {tuple(keep.shape)}"
        )
    if target.is_floating_point():
        if binary and tuple(target.shape) in (pixels, one_channel):
            target = target.reshape(one_channel)
            target = torch.cat([1 - target, target], 1)
        elif target.shape != shape:
            hard = tuple(target.shape) in (pixels, one_channel)
            raise ValueError(
                f"a soft target must have the logits' shape {tuple(shape)}, "
                f"got {tuple(target.shape)}"
                + (f" of {target.dtype}: labels of classes are integers, target.long()" * hard)
            )
    else:
        if tuple(target.shape) == one_channel:
            target = target[:, 0]
        if binary and target.dtype == torch.bool:
            target = target.long()
        if tuple(target.shape) != pixels or target.dtype == torch.bool or target.is_complex():
            raise ValueError(
                f"target must be integer of shape {pixels} or floating-point of shape "
                f"{tuple(shape)}, got {target.dtype} of {tuple(target.shape)}"
            )
    return two_classes(logits) if binary else logits, target, keep


def check_tensors(**inputs: object) -> None:
    """Raise ValueError, with its name, for what is no tensor."""
    for name, given in inputs.items():
        if not isinstance(given, Tensor):
            parts = f" of {', '.join(map(str, given))}" if isinstance(given, dict) else ""
            raise ValueError(f"{name} must be a tensor, got a {type(given).__name__}{parts}")


def check_device(logits: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError, with its name, for a tensor on another device than the logits."""
    for name, given in others.items():
        if given is not None and given.device != logits.device:
            raise ValueError(
                f"{name} must be on the device of the logits, {logits.device}, got {given.device}"
            )


def read_weight(
    weight: Tensor, logits: Tensor, valid: Tensor, dtype: torch.dtype, *, validate: bool
) -> Tensor:
    """A weight for each pixel of logits (B, C, ...), (B, P) in `dtype`; 0 at ignored pixels.

    Raises ValueError for another shape or dtype and, where looking makes nobody wait, for a weight
    that is negative or not finite at a valid pixel.
    """
    check_device(logits, weight=weight)
    pixels, shape = _pixels(logits.shape), tuple(weight.shape)
    if shape not in (pixels, (pixels[0], 1, *pixels[1:])) or not weight.is_floating_point():
        raise ValueError(
            f"weight must be floating-point of shape {pixels} for logits of "
            f"{tuple(logits.shape)}, got {weight.dtype} of {shape}"
        )
    flat = weight.flatten(1).to(dtype).where(valid, 0)
    if (
        validate
        and may_look(flat)
        and flat.numel()
        and not bool(((flat >= 0) & flat.isfinite()).all())
    ):
        raise ValueError("weight must be finite and >= 0 at every pixel that counts")
    return flat


def _pixels(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[0], *shape[2:])


def two_classes(logits: Tensor) -> Tensor:
    """Logits (B, 2, ...) of one channel (B, 1, ...): the softmax of 0 and z is the sigmoid of z."""
    return torch.cat([torch.zeros_like(logits), logits], 1)


def most_probable(soft: Tensor) -> Tensor:
    """argmax over the classes of (B, C, P), (B, P) int64; the first of equals.

    On a CPU an argmax over an inner dimension is many times slower than a pass over the classes.
    """
    if not may_look(soft):
        return soft.argmax(1)
    best, label = soft[:, 0].clone(), torch.zeros_like(soft[:, 0], dtype=torch.int64)
    for c in range(1, soft.shape[1]):
        better = soft[:, c] > best
        label.masked_fill_(better, c)
        torch.maximum(best, soft[:, c], out=best)
    return label


def read_labels(
    target: Tensor,
    keep: Tensor | None,
    num_classes: int,
    ignored: Sequence[int],
    dtype: torch.dtype,
    *,
    validate: bool = True,
) -> Labels:
    """Read a target of a checked shape; soft labels in `dtype`, attached to their graph.

    Raises ValueError, on the CPU, for a label out of range. Soft labels are checked by
    `Labels.check`, which is left to who reads them.
    """
    if target.is_floating_point():
        return _read_soft(target, keep, num_classes, dtype, validate)
    flat = target.flatten(1).long()
    valid = torch.ones_like(flat, dtype=torch.bool) if not ignored else flat != ignored[0]
    for index in ignored[1:]:
        valid = valid & (flat != index)
    if keep is not None:
        valid = valid & keep.flatten(1)
    labels = _labels(flat, valid, None, num_classes)
    _check_range(labels.label, num_classes, ignored)
    return labels


def _read_soft(
    target: Tensor, keep: Tensor | None, num_classes: int, dtype: torch.dtype, validate: bool
) -> Labels:
    soft = target.flatten(2).to(dtype)
    if keep is None:
        valid = torch.ones_like(soft[:, 0], dtype=torch.bool)
    else:
        valid = keep.flatten(1)
        soft = soft.masked_fill(~valid[:, None], 0)
    labels = _labels(None, valid, soft, num_classes)
    if not validate or not may_look(soft):
        return labels
    return replace(labels, slack=SLACK.get(target.dtype, LEAST_SLACK))


def _labels(hard: Tensor | None, valid: Tensor, soft: Tensor | None, num_classes: int) -> Labels:
    num_valid = valid.sum()
    some_ignored = not may_look(valid) or int(num_valid) < valid.numel()
    if some_ignored and hard is not None:
        hard = hard.masked_fill(~valid, 0)
    return Labels(hard, valid, soft, num_valid, some_ignored, num_classes)


def _check_range(label: Tensor, num_classes: int, ignored: Sequence[int]) -> None:
    if not may_look(label):
        if label.device.type != "cpu":
            torch._assert_async(((label >= 0) & (label < num_classes)).all())
        return
    if label.numel() == 0:
        return
    low, high = (int(bound) for bound in label.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels must be in [0, {num_classes}){in_words(tuple(ignored))}, "
            f"got {low if low < 0 else high}"
        )


def compute_dtype(logits: Tensor) -> torch.dtype:
    """float64 stays float64; everything else, half precision too, is computed in float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32
