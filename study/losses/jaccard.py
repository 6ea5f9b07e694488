"""The Jaccard metric loss: a relaxation of 1 - IoU that is also correct for soft labels.

Per class, with p the softmax probabilities, t the labels in [0, 1] and |.| sums over kept pixels:

    tp = (|p| + |t| - |p - t|) / 2,   fp = |p| - tp,   fn = |t| - tp
    J  = 1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth)

alpha = beta = 1 is Jaccard, 1/2 Dice, any other pair Tversky (alpha weighs false positives, beta
misses). On hard labels tp is the sum of p over the class's pixels, and with smooth 0 the loss of
one-hot predictions is exactly 1 - IoU. On soft labels the usual product form is not smallest at
p = t; this one is 0 there and only there. An empty denominator gives score 1 and gradient 0.
mix in [0, 1]; alpha, beta, smooth >= 0.

average    batch: sums over the whole batch, mean over active classes
           image: mean over an image's active classes, then over the images that have one
           class: mean over the images where a class is active, then over the classes
classes    present: active where some kept pixel's label exceeds 0.01; all: every class, in every
           image that has a kept pixel

Neutral: mix 0.

Normaliser: number of active classes (and images). Its gradient at a pixel is of order 1 / union:
5 to 9 times smaller than cross entropy's at equal mix.

Source: Wang, Ning, Blaschko, "Jaccard Metric Losses", NeurIPS 2023, arXiv 2302.05666; the three
averages are those of the metrics mIoU^D, mIoU^I, mIoU^C of Wang et al., NeurIPS 2023 (datasets and
benchmarks).

Differs: smooth is 1e-3, the paper's configs use 1. In libraries that keep absent classes in the
divisor the loss scales with the number of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from study.losses.axis import Axis, Config

if TYPE_CHECKING:
    from torch import Tensor

ACTIVE_ABOVE = 0.01


class Jaccard(Config):
    """The Jaccard metric loss; mix is its weight in the whole loss, alpha weighs FP, beta FN."""

    mix: float = Field(0.0, ge=0, le=1)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(1.0, ge=0)
    smooth: float = Field(1.0e-3, ge=0)
    average: Literal["batch", "image", "class"] = "batch"
    classes: Literal["present", "all"] = "present"
    target: Literal["hard", "smoothed"] = "hard"


def _short(config: Jaccard) -> str:
    if not config.mix:
        return ""
    average = "" if config.average == "batch" else f" per {config.average}"
    region = ""
    if (config.alpha, config.beta) != (1.0, 1.0):
        region = f" {config.alpha:.2g}/{config.beta:.2g}"
    return f"jaccard {config.mix:.2g}{region}{average}"


def _numbers(loss: Any) -> dict[str, Any]:
    return {key: getattr(loss.jaccard, key) for key in ("mix", "alpha", "beta", "smooth")}


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


def active_classes(config: Jaccard, peak: Tensor, valid: Tensor) -> Tensor:
    """Which classes count in which image, (B, C) bool. peak: the largest label of a kept pixel."""
    if config.classes == "all":
        return valid.any(1, keepdim=True).expand_as(peak)
    return peak > ACTIVE_ABOVE


def jaccard_loss(config: Jaccard, overlap: Overlap) -> Tensor:
    """The loss of the sums, 0-dim; 0 if no class is active. Differentiable."""
    hit, predicted, labelled = overlap.hit, overlap.predicted, overlap.labelled
    active = overlap.active
    if config.average == "batch":
        hit, predicted, labelled = (s.sum(0, keepdim=True) for s in (hit, predicted, labelled))
        active = active.any(0, keepdim=True)
    above = hit + config.smooth
    below = above + config.alpha * (predicted - hit) + config.beta * (labelled - hit)
    losses = 1 - above / below.where(below > 0, 1)
    weight = _weight_in_mean(active.to(hit.dtype), 0 if config.average == "class" else 1)
    return (weight * losses.where(below > 0, 0)).sum()


def partial_derivatives(config: Jaccard, overlap: Overlap) -> tuple[Tensor, Tensor, Tensor]:
    """The loss and its derivatives by `hit` and by `predicted`, (B, C) each; 0 if no class is
    active."""
    hit, predicted, labelled = overlap.hit, overlap.predicted, overlap.labelled
    import torch

    active, shape = overlap.active, overlap.hit.shape
    if config.average == "batch":
        hit, predicted, labelled = (s.sum(0, keepdim=True) for s in (hit, predicted, labelled))
        active = active.any(0, keepdim=True)
    numerator = hit + config.smooth
    denominator = numerator + config.alpha * (predicted - hit) + config.beta * (labelled - hit)
    empty = denominator <= 0
    denominator = torch.where(empty, 1, denominator)
    score = torch.where(empty, 1, numerator / denominator)
    weight = _weight_in_mean(active.to(hit.dtype), 0 if config.average == "class" else 1)
    slope = torch.where(empty, 0, weight / denominator)
    by_hit = slope * (score * (1 - config.alpha - config.beta) - 1)
    by_predicted = slope * score * config.alpha
    loss = (weight * (1 - score)).sum()
    return loss, by_hit.expand(shape), by_predicted.expand(shape)


def _weight_in_mean(active: Tensor, axis: int) -> Tensor:
    """The weight of each entry (1 if active, else 0) in a mean along `axis`, then over the rest."""
    counts = active.sum(axis, keepdim=True)
    return active / counts.clamp(min=1) / (counts > 0).sum().clamp(min=1)
