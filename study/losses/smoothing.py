"""Label smoothing: part of a pixel's label is spread evenly over the classes.

    s_p = (1 - e_p) * onehot(y_p) + e_p / C

everywhere  e_p = epsilon at every valid pixel
boundary    e_p = epsilon where the width x width window around p holds another class, 0 elsewhere,
            and 0 where it holds an ignored pixel; windows end at the border of the image

epsilon = `label_smoothing` in [0, 1); width odd, 3 or more. A soft label replaces the one-hot; its
y is the most probable class. Only the cross entropy reads s (and the Jaccard term with `target:
smoothed`): a, R and q depend on y.

Neutral: epsilon 0, whatever the region.

Normaliser: none; s sums to 1.

Sources: Szegedy et al., CVPR 2016, arXiv 1512.00567 (everywhere); Wang et al., NeurIPS 2023, arXiv
2302.05666 (boundary).

Differs: torch weighs each class's part of s by that class's weight, here the whole pixel has weight
a[y]. Wang's code compares one-hot maps with their min-pool, class by class: the same pixels, found
here from the largest and the smallest label in the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from study.losses.config import Boundary, LossConfig
from study.losses.targets import Labels


def smoothing(
    config: LossConfig, labels: Labels, size: Sequence[int], dtype: torch.dtype
) -> float | Tensor:
    """The e_p: one number, or (B, P) in `dtype`, 0 at ignored pixels. size: (H, W)."""
    epsilon, region = config.label_smoothing, config.smoothing_region
    if epsilon == 0 or not isinstance(region, Boundary):
        return epsilon
    image = labels.apart.unflatten(1, size)
    return boundary(image, labels.num_classes, region.width).flatten(1).to(dtype) * epsilon


def boundary(label: Tensor, num_classes: int, width: int) -> Tensor:
    """Where a window holds two classes and no ignored pixel, (B, H, W) bool.

    label: (B, H, W) integers in [0, num_classes], num_classes at ignored pixels.
    """
    label = label.to(torch.int32)
    highest = _over_windows(label, width // 2, torch.maximum)
    lowest = _over_windows(label, width // 2, torch.minimum)
    return (highest != lowest) & (highest < num_classes)


def _over_windows(values: Tensor, radius: int, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply `pick` over the square windows of a radius, one axis after the other."""
    for axis in (1, 2):
        picked, size = values.clone(), values.shape[axis]
        for shift in range(1, min(radius, size - 1) + 1):
            rest = size - shift
            for to, source in ((0, shift), (shift, 0)):
                part = picked.narrow(axis, to, rest)
                part.copy_(pick(part, values.narrow(axis, source, rest)))
        values = picked
    return values
