"""Short descriptions of a loss, for tables and run names."""

from __future__ import annotations

from study.core.names import CE
from study.losses.config import (
    Boundary,
    EffectiveNumber,
    Enet,
    InverseFrequency,
    LossConfig,
    ManualWeights,
    MaxPooling,
    MedianFrequency,
    Ohem,
)


def describe(loss: LossConfig) -> str:
    """Describe a loss, as in ``inverse frequency^0.62 + recall(ema 0.93) + jaccard 0.41``;
    ``ce`` if neutral."""
    parts = [_class_weights(loss), _recall(loss), _pooling(loss), _jaccard(loss)]
    parts.append(_smoothing(loss))
    parts.append(_distillation(loss))
    if loss.focal_gamma:
        parts.append(f"focal {loss.focal_gamma:.2g}")
    return " + ".join(part for part in parts if part) or CE


def _class_weights(loss: LossConfig) -> str:
    match loss.class_weights:
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


def _recall(loss: LossConfig) -> str:
    if loss.recall is None:
        return ""
    momentum = loss.recall.ema_momentum
    return f"recall(ema {momentum:.3g})" if momentum else "recall"


def _pooling(loss: LossConfig) -> str:
    match loss.pooling:
        case MaxPooling(p=p, ratio=ratio):
            return f"max-pooling(p {p:.2g}, ratio {ratio:.2g})"
        case Ohem(threshold=threshold, min_kept=min_kept):
            return f"ohem({threshold:.2g}, {min_kept:.2g})"
    return ""


def _smoothing(loss: LossConfig) -> str:
    epsilon = loss.label_smoothing
    if not epsilon:
        return ""
    if isinstance(loss.smoothing_region, Boundary):
        return f"boundary smoothing({epsilon:.2g}, width {loss.smoothing_region.width})"
    return f"smoothing {epsilon:.2g}"


def _jaccard(loss: LossConfig) -> str:
    if not loss.jaccard.mix:
        return ""
    average = "" if loss.jaccard.average == "batch" else f" per {loss.jaccard.average}"
    region = ""
    if (loss.jaccard.alpha, loss.jaccard.beta) != (1.0, 1.0):
        region = f" {loss.jaccard.alpha:.2g}/{loss.jaccard.beta:.2g}"
    return f"jaccard {loss.jaccard.mix:.2g}{region}{average}"


def _distillation(loss: LossConfig) -> str:
    if loss.distillation is None:
        return ""
    temperature = loss.distillation.temperature
    at = f" at T {temperature:.2g}" if temperature != 1 else ""
    return f"distilled {loss.distillation.mix:.2g}{at}"
