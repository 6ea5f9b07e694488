"""Predictions of a picture through overlapping windows, of which only the middles are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 4  # windows in a batch
ALIGNED = 32  # pixels: windows begin where the coarsest grid of common encoders has a cell


@dataclass(frozen=True)
class Span:
    """One window along one axis: where it begins, and what is used of it, [first, end)."""

    start: int
    first: int
    end: int


def spans(length: int, window: int, margin: int) -> list[Span]:
    """Windows that together use each of `length` pixels once, `margin` pixels away from their own
    edges or at the edge of the picture. The last may reach beyond it.

    Raises:
        ValueError: if the margins leave no middle.
    """
    if length <= window:
        return [Span(0, 0, length)]
    step = window - 2 * margin
    if step >= ALIGNED:
        step -= step % ALIGNED
    if step < 1:
        raise ValueError(f"margin must be below half of the window ({window}), got {margin}")
    starts = [0]
    while starts[-1] + window < length:
        starts.append(starts[-1] + step)
    firsts = [0, *(start + margin for start in starts[1:])]
    return [
        Span(start, first, end)
        for start, first, end in zip(starts, firsts, [*firsts[1:], length], strict=True)
    ]


def windowed(
    logits_of: Callable[[Tensor], Tensor], image: Tensor, window: tuple[int, int], margin: int
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The logits of a picture, part by part.

    Where each output depends on no input farther away than `margin`, they are those of the whole
    picture at once.

    Args:
        logits_of: maps (B, 3, h, w) to logits (B, C, h, w).
        image: (3, H, W), normalised; beyond its edges there are zeros, the mean colour.
        window: (h, w).
        margin: pixels at each inner edge of a window that are not used.

    Yields:
        Rows, columns and their logits (C, rows, columns); each pixel once.
    """
    height, width = image.shape[-2:]
    places = [
        (down, right)
        for down in spans(height, window[0], margin)
        for right in spans(width, window[1], margin)
    ]
    for first in range(0, len(places), AT_ONCE):
        group = places[first : first + AT_ONCE]
        logits = logits_of(torch.stack([_cut(image, *place, window) for place in group]))
        for (down, right), found in zip(group, logits, strict=True):
            rows = slice(down.first - down.start, down.end - down.start)
            columns = slice(right.first - right.start, right.end - right.start)
            yield (
                slice(down.first, down.end),
                slice(right.first, right.end),
                found[:, rows, columns],
            )


def _cut(image: Tensor, down: Span, right: Span, window: tuple[int, int]) -> Tensor:
    part = image[:, down.start : down.start + window[0], right.start : right.start + window[1]]
    missing = window[0] - part.shape[1], window[1] - part.shape[2]
    return F.pad(part, (0, missing[1], 0, missing[0]))
