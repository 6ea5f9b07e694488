"""Imbalance-aware segmentation losses: four orthogonal axes on one cross entropy.

    from study.losses import build_loss

    loss = build_loss(
        {"recall": {"ema_momentum": 0.9}, "jaccard": {"mix": 0.3}}, num_classes=19
    )
    value = loss(logits, target)  # (B, 19, H, W) float, (B, H, W) int64

Importing this package does not import torch; building a loss does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from study.losses.config import LossConfig
from study.losses.family import family
from study.losses.presets import PRESETS, Preset

if TYPE_CHECKING:
    from study.losses.class_weights import Counts
    from study.losses.loss import SegmentationLoss

__all__ = ["PRESETS", "LossConfig", "Preset", "SegmentationLoss", "build_loss", "family"]


def build_loss(
    config: Mapping[str, Any] | LossConfig | None,
    *,
    num_classes: int,
    class_counts: Counts | None = None,
    ignore_index: int = 255,
) -> SegmentationLoss:
    """The loss of a config: a module whose forward(logits, target, keep=None) is a scalar.

    config: the `loss:` tree (a mapping or LossConfig); None or {} is cross entropy.
    class_counts: pixels of each class in the training split, (C,) or (images, C); needed by
    class-weight schemes only.

    Raises ValueError with one line that names the key where the config or the counts do not fit.
    """
    from study.core.errors import InputError
    from study.core.validation import validate
    from study.losses.loss import SegmentationLoss

    if config is not None and not isinstance(config, LossConfig | Mapping):
        hint = "PRESETS[name].config is one"
        raise InputError(f"loss must be a mapping, got {config!r}", hint=hint, key="loss")
    if not isinstance(config, LossConfig):
        config = validate(LossConfig, dict(config or {}), root="loss")
    return SegmentationLoss(
        config, num_classes=num_classes, class_counts=class_counts, ignore_index=ignore_index
    )


def __getattr__(name: str) -> Any:
    if name == "SegmentationLoss":
        from study.losses.loss import SegmentationLoss

        return SegmentationLoss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
