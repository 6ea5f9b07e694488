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

Examples:
    >>> import torch
    >>> from study.losses.label_smoothing import smoothed
    >>> smoothed(torch.tensor([[[1.0], [0.0]]]), 0.1).flatten().tolist()  # (B, C, P)
    [0.949999988079071, 0.05000000074505806]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from study.core.errors import InputError
from study.losses.axis import Axis, Config, has_hard_part, has_pixel_term

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Everywhere(Config):
    """Neutral: smooths the label of every pixel."""

    kind: Literal["everywhere"] = "everywhere"


class Boundary(Config):
    """Smooths only pixels whose width x width window holds another class."""

    kind: Literal["boundary"]
    width: int = Field(3, ge=3, le=2**15, json_schema_extra={"not": {"multipleOf": 2}})

    @field_validator("width")
    @classmethod
    def check_width(cls, width: int) -> int:
        if width % 2 == 0:
            raise ValueError(f"width must be odd, got {width}")
        return width


SmoothingRegion = Annotated[Everywhere | Boundary, Field(discriminator="kind")]


def _smooths(loss: Any) -> bool:
    smooths_jaccard = loss.jaccard.target == "smoothed" and has_hard_part(loss)
    return loss.label_smoothing > 0 and (has_pixel_term(loss) or smooths_jaccard)


def _at_boundaries(loss: Any) -> bool:
    return isinstance(loss.smoothing_region, Boundary)


LABEL_SMOOTHING = (
    Axis(
        name="label_smoothing",
        off={"label_smoothing": 0.0},
        is_on=lambda loss: _smooths(loss) and not _at_boundaries(loss),
        words=lambda loss: ("label smoothing", "Szegedy et al., CVPR 2016, arXiv 1512.00567"),
        short=lambda loss: (
            f"smoothing {loss.label_smoothing:.2g}"
            if loss.label_smoothing and not _at_boundaries(loss)
            else ""
        ),
        after=True,
        parts=("SMOOTHING",),
        numbers=lambda loss: {"label_smoothing": loss.label_smoothing},
    ),
    Axis(
        name="boundary_smoothing",
        off={"label_smoothing": 0.0},
        is_on=lambda loss: _smooths(loss) and _at_boundaries(loss),
        words=lambda loss: (
            "label smoothing at class boundaries",
            "Wang et al., NeurIPS 2023, arXiv 2302.05666",
        ),
        short=lambda loss: (
            f"boundary smoothing({loss.label_smoothing:.2g}, width {loss.smoothing_region.width})"
            if loss.label_smoothing and _at_boundaries(loss)
            else ""
        ),
        after=True,
        under="smoothing_region",
        parts=("SMOOTHING", "BOUNDARY"),
        numbers=lambda loss: {
            "label_smoothing": loss.label_smoothing,
            "boundary_width": loss.smoothing_region.width,
        },
    ),
)


def smoothed(sharp: Tensor, epsilon: float | Tensor) -> Tensor:
    """The label s of label distributions (B, C, P); epsilon a number, or (B, P)."""
    share = epsilon if isinstance(epsilon, float) else epsilon[:, None]
    return (1 - share) * sharp + share / sharp.shape[1]


def amount(
    epsilon: float,
    region: SmoothingRegion,
    apart: Tensor,
    num_classes: int,
    size: Sequence[int],
    dtype: torch.dtype,
) -> float | Tensor:
    """The e_p: one number, or (B, P) in `dtype`, 0 at ignored pixels.

    apart: labels (B, P), num_classes at ignored pixels; size: that of an image, (H, W) where the
    region is the boundary.
    """
    if epsilon == 0 or not isinstance(region, Boundary):
        return epsilon
    if len(size) != 2:
        raise InputError(
            f"boundaries are those of images (H, W), got a size of {tuple(size)}",
            hint="kind: everywhere smooths labels of any shape",
            key="smoothing_region/kind",
        )
    image = apart.unflatten(1, list(size))
    return boundary(image, num_classes, region.width).flatten(1).to(dtype) * epsilon


def boundary(label: Tensor, num_classes: int, width: int) -> Tensor:
    """Where a window holds two classes and no ignored pixel, (B, H, W) bool.

    label: (B, H, W) integers in [0, num_classes], num_classes at ignored pixels.
    """
    import torch

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
