"""Class weights a_c from the pixel counts of the training split.

With n_c pixels of class c, N = sum n_c and f_c = n_c / N the schemes are

    inverse_frequency   f_c ** -exponent
    median_frequency    median(F) / F_c,   F_c = n_c / pixels of the images that contain c
    effective_number    (1 - beta) / (1 - beta ** n_c),   beta = 1 - 1 / (kappa * N)
    enet                1 / ln(c + f_c)

Each is then scaled so that sum_c f_c a_c = 1: a randomly drawn pixel has mean weight 1, so schemes
differ in shape and not in learning rate. Classes without pixels have weight 0. exponent in [0, 1],
c > 1; kappa > 0 with kappa * N > 1, towards inf it is inverse frequency. `manual` weights (C
numbers >= 0) are used unscaled. Counts are (C,) or (images, C); median_frequency needs the latter.

Neutral: scheme none, or exponent 0.

Normaliser: n, the valid pixels, not the batch's sum of weights (`normalizer: weight` for that).

Sources: Eigen & Fergus 2015, arXiv 1411.4734 (median frequency); Paszke et al. 2016, arXiv
1606.02147 (ENet); Cui et al. 2019, arXiv 1901.05555 (effective number).

Differs: torch divides by the batch's sum of weights. Cui's beta is meant for counts of images; on
pixel counts every fixed beta saturates to equal weights, so here beta is relative to N.

Examples:
    >>> from study.losses.class_weights import InverseFrequency, class_weights
    >>> inverse = InverseFrequency(scheme="inverse_frequency")
    >>> class_weights(inverse, [900, 90, 10], 3).round(decimals=3).tolist()
    [0.37, 3.704, 33.333]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict

from study.core.errors import InputError
from study.losses.axis import Axis, Config, has_pixel_term

if TYPE_CHECKING:
    from torch import Tensor


class NoClassWeights(Config):
    """Neutral: every class has weight 1."""

    scheme: Literal["none"] = "none"


class InverseFrequency(Config):
    """a_c proportional to f_c ** -exponent; 0 is neutral, 1 is inverse frequency."""

    scheme: Literal["inverse_frequency"]
    exponent: float = Field(1.0, ge=0, le=1)


class MedianFrequency(Config):
    """a_c = median(F) / F_c, F_c = pixels of c over pixels of the images that contain c."""

    scheme: Literal["median_frequency"]


class EffectiveNumber(Config):
    """a_c = (1 - beta) / (1 - beta ** n_c) with beta = 1 - 1 / (kappa * N)."""

    scheme: Literal["effective_number"]
    kappa: float = Field(1.0, gt=0)


class Enet(Config):
    """a_c = 1 / ln(c + f_c)."""

    scheme: Literal["enet"]
    c: float = Field(1.02, gt=1)


class ManualWeights(Config):
    """The user's own weights, one per class, used unscaled."""

    scheme: Literal["manual"]
    weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Strict(False)]


ClassWeights = Annotated[
    NoClassWeights | InverseFrequency | MedianFrequency | EffectiveNumber | Enet | ManualWeights,
    Field(discriminator="scheme"),
]

_WORDS: dict[type[Config], tuple[str, str]] = {
    InverseFrequency: ("class weights by inverse frequency", ""),
    MedianFrequency: (
        "median frequency balancing of the classes",
        "Eigen & Fergus, ICCV 2015, arXiv 1411.4734",
    ),
    EffectiveNumber: (
        "class weights by effective numbers",
        "Cui et al., CVPR 2019, arXiv 1901.05555",
    ),
    Enet: ("ENet's class weights", "Paszke et al. 2016, arXiv 1606.02147"),
}


def has_class_weights(config: ClassWeights) -> bool:
    """False if every class that occurs has weight 1."""
    match config:
        case NoClassWeights() | InverseFrequency(exponent=0):
            return False
    return True


def _short(config: ClassWeights) -> str:
    match config:
        case InverseFrequency(exponent=exponent):
            return f"inverse frequency^{exponent:.2g}" if exponent else ""
        case MedianFrequency():
            return "median frequency"
        case EffectiveNumber(kappa=kappa):
            return f"effective number {kappa:.2g}"
        case Enet(c=c):
            return f"enet {c:.4g}"
        case ManualWeights():
            return "manual weights"
    return ""


CLASS_WEIGHTS = (
    Axis(
        name="class_weights",
        off={"class_weights": NoClassWeights()},
        is_on=lambda loss: has_class_weights(loss.class_weights) and has_pixel_term(loss),
        words=lambda loss: _WORDS.get(type(loss.class_weights), ("given class weights", "")),
        short=lambda loss: _short(loss.class_weights),
        needs_counts=lambda loss: (
            not isinstance(loss.class_weights, NoClassWeights | ManualWeights)
        ),
        parts=("WEIGHTS",),
    ),
)

Counts = Sequence[Any] | Any  # (C,) or (images, C), anything torch.as_tensor reads


def class_weights(config: ClassWeights, counts: Counts | None, num_classes: int) -> Tensor | None:
    """Compute the weights (C,) float64 of a scheme; None for the neutral scheme.

    Raises ValueError if required counts are missing or do not fit the classes.
    """
    import torch

    if isinstance(config, NoClassWeights):
        return None
    if isinstance(config, ManualWeights):
        if len(config.weights) != num_classes:
            raise InputError(
                f"weights must have one entry per class ({num_classes}), got {len(config.weights)}",
                key="class_weights/weights",
            )
        return torch.tensor(config.weights, dtype=torch.float64)
    if counts is None:
        raise InputError(
            f"scheme {config.scheme} needs class_counts",
            hint="pass the training split's pixel counts",
            key="class_weights/scheme",
        )
    table = read_counts(counts, num_classes)
    pixels = table.sum(0) if table.ndim == 2 else table
    weights = torch.where(pixels > 0, _shape(config, table, pixels), torch.zeros_like(pixels))
    return weights / (weights * pixels).sum() * pixels.sum()


def read_counts(counts: Counts, num_classes: int) -> Tensor:
    """Pixel counts as a tensor (C,) or (images, C), float64. Raises ValueError if they do not fit
    the classes."""
    import torch

    try:
        table = torch.as_tensor(counts).detach().to("cpu", torch.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"class_counts must be an array of numbers: {error}") from error
    if table.ndim not in (1, 2) or table.shape[-1] != num_classes:
        raise ValueError(
            f"class_counts must have shape ({num_classes},) or (images, {num_classes}), "
            f"got {tuple(table.shape)}"
        )
    if not bool(torch.isfinite(table).all()) or bool((table < 0).any()):
        raise ValueError("class_counts must be finite and >= 0 for every class")
    if not bool((table > 0).any()):
        raise ValueError("class_counts must not all be 0")
    return table


def _shape(config: ClassWeights, table: Tensor, pixels: Tensor) -> Tensor:
    import torch

    total = pixels.sum()
    frequency = pixels / total
    match config:
        case InverseFrequency():
            return frequency.pow(-config.exponent)
        case MedianFrequency():
            if table.ndim != 2:
                raise InputError(
                    "scheme median_frequency needs class_counts of shape (images, C), "
                    f"got {tuple(table.shape)}",
                    key="class_weights/scheme",
                )
            image_pixels = ((table > 0) * table.sum(1, keepdim=True)).sum(0)
            return image_pixels / pixels  # the scaling cancels the median, a common factor
        case EffectiveNumber():
            if bool((pixels != pixels.round()).any()):
                raise InputError(
                    f"scheme effective_number needs whole numbers of pixels, got {pixels.tolist()}",
                    hint="pass the pixels of each class, not their shares",
                    key="class_weights/scheme",
                )
            scale = min(config.kappa * float(total), 1e300)  # finite; as good as inverse frequency
            if scale <= 1:
                raise InputError(
                    f"kappa times the number of pixels must be > 1, got {scale:g}",
                    key="class_weights/kappa",
                )
            step = torch.tensor(-1 / scale, dtype=torch.float64).log1p()
            return 1 / (scale * -torch.expm1(pixels * step))
        case Enet():
            return 1 / torch.log(config.c + frequency)
    raise AssertionError(config)
