"""The family of a loss: the names of its active axes."""

from __future__ import annotations

from study.core.names import CE
from study.losses.config import (
    Boundary,
    FactoryLoss,
    InverseFrequency,
    LossConfig,
    MaxPooling,
    NoClassWeights,
    Ohem,
)


def family(config: LossConfig | FactoryLoss) -> str:
    """Join the names of the axes that are not neutral with "+", in the order of the formula; "ce"
    if none.

    An axis that is set but changes nothing is neutral: inverse frequency with exponent 0, loss
    max-pooling with p = inf or ratio = 1, OHEM that keeps all. The normaliser is not an axis. A
    loss of the user's own is the family "factory".
    """
    if isinstance(config, FactoryLoss):
        return "factory"
    soft_only = config.distillation is not None and config.distillation.mix == 1
    jaccard_only = config.jaccard.mix == 1 or soft_only  # the pixel term, with its axes, weighs 0
    smooths = config.label_smoothing > 0 and not soft_only
    smooths = smooths and (not jaccard_only or config.jaccard.target == "smoothed")
    at_boundaries = isinstance(config.smoothing_region, Boundary)
    axes = {
        "label_smoothing": smooths and not at_boundaries,
        "boundary_smoothing": smooths and at_boundaries,
        "focal": config.focal_gamma > 0 and not jaccard_only,
        "class_weights": has_class_weights(config) and not jaccard_only,
        "recall": config.recall is not None and not jaccard_only,
        "max_pooling": isinstance(config.pooling, MaxPooling)
        and pools(config)
        and not jaccard_only,
        "ohem": isinstance(config.pooling, Ohem) and pools(config) and not jaccard_only,
        "jaccard": config.jaccard.mix > 0,
        "distillation": config.distillation is not None,
    }
    return "+".join(name for name, on in axes.items() if on) or CE


def has_class_weights(config: LossConfig) -> bool:
    """False if every class that occurs has weight 1."""
    match config.class_weights:
        case NoClassWeights() | InverseFrequency(exponent=0):
            return False
    return True


def pools(config: LossConfig) -> bool:
    """False if pooling is the mean, whatever the data."""
    match config.pooling:
        case MaxPooling(p=p, ratio=ratio):
            return (p == 1 or p / (p - 1) > 1) and ratio < 1  # p is infinite where q rounds to 1
        case Ohem(min_kept=min_kept):
            return min_kept < 1
    return False
