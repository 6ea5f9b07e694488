"""The Jaccard metric loss: a relaxation of 1 - IoU that is also correct for soft labels.

Per class, with p the softmax probabilities, t the labels in [0, 1] and |.| sums over kept pixels:

    tp = (|p| + |t| - |p - t|) / 2,   fp = |p| - tp,   fn = |t| - tp
    J  = (1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)) ^ power

alpha = beta = 1 is Jaccard, 1/2 Dice, any other pair Tversky (alpha weighs false positives, beta
misses). A power below 1 turns the loss to the classes that are nearly right, one above 1 to those
that are missed; where a class's loss rounds to 0 its gradient is 0. On hard labels tp is the sum of
p over the class's pixels, and with smooth 0 the loss of one-hot predictions is exactly 1 - IoU. On
soft labels the usual product form is not smallest at p = t; this one is 0 there and only there. An
empty denominator gives score 1 and gradient 0.
mix in [0, 1]; alpha, beta, smooth >= 0; power > 0.

average    batch: sums over the whole batch, mean over active classes
           image: mean over an image's active classes, then over the images that have one
           class: mean over the images where a class is active, then over the classes
           {batch: a, image: b, class: c}: (a D + b I + c C) / (a + b + c) of these three
classes    present: active where some kept pixel's label exceeds 0.01, before it is smoothed; all:
           every class, in every image that has a kept pixel

Neutral: mix 0.

Normaliser: number of active classes (and images). Its gradient at a pixel is of order 1 / union:
5 to 9 times smaller than cross entropy's at equal mix.

Source: Wang, Ning, Blaschko, "Jaccard Metric Losses", NeurIPS 2023, arXiv 2302.05666; the three
averages are those of the metrics mIoU^D, mIoU^I, mIoU^C of Wang et al., NeurIPS 2023 (datasets and
benchmarks), their mixture is that of the same authors' code. The power: Abraham & Khan, "A Novel
Focal Tversky Loss Function", ISBI 2019, arXiv 1810.07842, who write it 1 / gamma.

Differs: the reference code takes all classes of soft labels, unless told otherwise, and of hard
ones those present; here `classes` alone says it. An image without a kept pixel takes no part, under
`classes: all` neither. smooth is 1e-3, the paper's configs use 1. Abraham & Khan sum over classes,
and their alpha weighs misses, their beta false positives. Codes of the Jaccard loss have had the
power both ways, gamma and 1 / gamma; here it is the exponent of the loss. In libraries that keep
absent classes in the divisor the loss scales with the number of the others.

Examples:
    >>> import torch
    >>> from study.losses.jaccard import Jaccard, Overlap, jaccard_loss
    >>> hit, predicted, labelled = (torch.tensor([[n, 4.0]]) for n in (2.0, 3.0, 3.0))
    >>> overlap = Overlap(hit, predicted, labelled, torch.tensor([[True, False]]))
    >>> jaccard_loss(Jaccard(smooth=0.0), overlap).item()  # of the first class: 1 - 2 / 4
    0.5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from study.losses.axis import Axis, Config

if TYPE_CHECKING:
    from torch import Tensor

ACTIVE_ABOVE = 0.01


Name = Literal["batch", "image", "class"]
Average = Annotated[
    Annotated[Name, Tag("name")]
    | Annotated[dict[Name, Annotated[float, Field(ge=0)]], Field(min_length=1), Tag("mixture")],
    Discriminator(lambda value: "mixture" if isinstance(value, dict) else "name"),
]


class Jaccard(Config):
    """The Jaccard metric loss; mix is its weight in the whole loss, alpha weighs FP, beta FN."""

    mix: float = Field(0.0, ge=0, le=1)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(1.0, ge=0)
    smooth: float = Field(1.0e-3, ge=0)
    average: Average = "batch"
    classes: Literal["present", "all"] = "present"
    target: Literal["hard", "smoothed"] = "hard"
    power: float = Field(1.0, gt=0)

    @field_validator("average")
    @classmethod
    def _one_average_counts(cls, average: Average) -> Average:
        if not isinstance(average, str) and not sum(average.values()) > 0:
            raise ValueError("average must give one of batch, image and class a weight above 0")
        return average

    @property
    def averages(self) -> dict[str, float]:
        """The weight of each average that has one; they sum to 1."""
        if isinstance(self.average, str):
            return {self.average: 1.0}
        total = sum(self.average.values())
        return {name: weight / total for name, weight in self.average.items() if weight > 0}


def _short(config: Jaccard) -> str:
    if not config.mix:
        return ""
    average = "" if config.averages == {"batch": 1.0} else f" per {_in_words(config.averages)}"
    region = ""
    if (config.alpha, config.beta) != (1.0, 1.0):
        region = f" {config.alpha:.2g}/{config.beta:.2g}"
    power = f"^{config.power:.2g}" if config.power != 1 else ""
    return f"jaccard{power} {config.mix:.2g}{region}{average}"


def _in_words(averages: dict[str, float]) -> str:
    if len(averages) == 1:
        return next(iter(averages))
    return "/".join(f"{name} {weight:.2g}" for name, weight in averages.items())


NUMBERS = ("mix", "alpha", "beta", "smooth")


def _numbers(loss: Any) -> dict[str, Any]:
    return {key: getattr(loss.jaccard, key) for key in NUMBERS}


JACCARD = (
    Axis(
        name="jaccard",
        off={"jaccard": Jaccard()},
        is_on=lambda loss: loss.jaccard.mix > 0,
        words=lambda loss: (
            "the Jaccard metric loss",
            "Wang et al., NeurIPS 2023, arXiv 2302.05666",
        ),
        short=lambda loss: _short(loss.jaccard),
        parts=("JACCARD",),
        numbers=_numbers,
    ),
)


@dataclass(frozen=True)
class Overlap:
    """Sums over the kept pixels of each image and class, (B, C) each."""

    hit: Tensor  # tp
    predicted: Tensor  # |p|
    labelled: Tensor  # |t|
    active: Tensor  # bool

    def detached(self) -> Overlap:
        """The same without a graph."""
        hit, predicted, labelled = (
            one.detach() for one in (self.hit, self.predicted, self.labelled)
        )
        return Overlap(hit, predicted, labelled, self.active)


def active_classes(config: Jaccard, peak: Tensor, valid: Tensor) -> Tensor:
    """Which classes count in which image, (B, C) bool. peak: the largest label of a kept pixel."""
    if config.classes == "all":
        return valid.any(1, keepdim=True).expand_as(peak)
    return peak > ACTIVE_ABOVE


def jaccard_loss(config: Jaccard, overlap: Overlap) -> Tensor:
    """The loss of the sums, 0-dim; 0 if no class is active. Differentiable."""
    parts = [weight * _average(config, overlap, name) for name, weight in config.averages.items()]
    return sum(parts[1:], parts[0])


def _summed(overlap: Overlap, average: str) -> Overlap:
    """The sums of the whole batch in one row, where they are averaged so."""
    if average != "batch":
        return overlap
    sums = (overlap.hit, overlap.predicted, overlap.labelled)
    hit, predicted, labelled = (one.sum(0, keepdim=True) for one in sums)
    return Overlap(hit, predicted, labelled, overlap.active.any(0, keepdim=True))


def _average(config: Jaccard, overlap: Overlap, average: str) -> Tensor:
    found = _summed(overlap, average)
    weight = _weight_in_mean(found.active.to(found.hit.dtype), 0 if average == "class" else 1)
    return (weight * _losses(config, found)).sum()


def by_class(config: Jaccard, overlap: Overlap) -> Tensor:
    """The loss of each class, (C,): its mean over the images where it is active (of the whole
    batch, where that is averaged), NaN where it is in none. Unless images come before classes in
    the mean, `jaccard_loss` is the mean of these."""
    total = None
    for name, weight in config.averages.items():
        found = _summed(overlap, name)
        losses = _losses(config, found).where(found.active, 0).sum(0) / found.active.sum(0)
        total = weight * losses if total is None else total + weight * losses
    assert total is not None
    return total


def _losses(config: Jaccard, found: Overlap) -> Tensor:
    hit, predicted, labelled = found.hit, found.predicted, found.labelled
    above = hit + config.smooth
    below = above + config.alpha * (predicted - hit) + config.beta * (labelled - hit)
    empty = below <= 0
    losses = (1 - above / below.where(~empty, 1)).where(~empty, 0)
    if config.power != 1:
        away = ~(losses <= 0)  # NaN stays NaN
        losses = (losses.where(away, 1.0) ** config.power).where(away, 0.0)
    return losses


def partial_derivatives(config: Jaccard, overlap: Overlap) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its derivatives by `hit` and by `predicted`, (B, C) each; 0 if no class is
    active."""
    parts = [
        [weight * part for part in _derivatives(config, overlap, name)]
        for name, weight in config.averages.items()
    ]
    loss, by_hit, by_predicted = (sum(part[1:], part[0]) for part in zip(*parts, strict=True))
    return loss, by_hit, by_predicted


def _derivatives(config: Jaccard, overlap: Overlap, average: str) -> list[Tensor]:
    import torch

    found, shape = _summed(overlap, average), overlap.hit.shape
    hit, predicted, labelled = found.hit, found.predicted, found.labelled
    numerator = hit + config.smooth
    denominator = numerator + config.alpha * (predicted - hit) + config.beta * (labelled - hit)
    empty = denominator <= 0
    denominator = torch.where(empty, 1, denominator)
    score = torch.where(empty, 1, numerator / denominator)
    weight = _weight_in_mean(found.active.to(hit.dtype), 0 if average == "class" else 1)
    slope = torch.where(empty, 0, weight / denominator)
    losses = 1 - score
    if config.power != 1:
        away = ~(losses <= 0)  # NaN stays NaN
        losses = losses.where(away, 1.0)
        slope = (slope * config.power * losses ** (config.power - 1)).where(away, 0.0)
        losses = (losses**config.power).where(away, 0.0)
    by_hit = slope * (score * (1 - config.alpha - config.beta) - 1)
    by_predicted = slope * score * config.alpha
    return [(weight * losses).sum(), by_hit.expand(shape), by_predicted.expand(shape)]


def _weight_in_mean(active: Tensor, axis: int) -> Tensor:
    """The weight of each entry (1 if active, else 0) in a mean along `axis`, then over the rest."""
    counts = active.sum(axis, keepdim=True)
    return active / counts.clamp(min=1) / (counts > 0).sum().clamp(min=1)
