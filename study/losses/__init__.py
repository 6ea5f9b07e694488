"""Segmentation losses for rare classes: orthogonal axes on one cross entropy.

    from study.losses import build_loss

    loss = build_loss(
        {"recall": {"ema_momentum": 0.9}, "jaccard": {"mix": 0.3}}, num_classes=19
    )
    value = loss(logits, target)  # (B, 19, H, W) float, (B, H, W) int64

Importing this package does not import torch; building a loss does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from study.losses.config import LossConfig
from study.losses.family import family
from study.losses.presets import PRESETS, Preset

if TYPE_CHECKING:
    from study.losses.class_weights import Counts
    from study.losses.counts import class_counts
    from study.losses.module import SegmentationLoss

__all__ = [
    "PRESETS",
    "LossConfig",
    "Preset",
    "SegmentationLoss",
    "build_loss",
    "class_counts",
    "family",
]


def build_loss(
    config: Mapping[str, Any] | LossConfig | str | None,
    *,
    num_classes: int,
    class_counts: Counts | None = None,
    ignore_index: int | Sequence[int] | None = 255,
    validate: bool = True,
) -> SegmentationLoss:
    """Build the loss that a config describes.

        ce_p  = -sum_c s_p[c] log softmax(z_p)[c]
        ell_p = a[y_p] * (1 - R[y_p]) * (1 - q_p)^gamma * ce_p
        L     = (1 - mix) * Pool_p(ell) + mix * Jaccard(softmax z, target)

    over the valid pixels p, with s_p the one-hot, smoothed or soft label, y_p its class, q_p the
    softmax probability of y_p, a the class weights and R the running recall.

    Args:
        config: the `loss:` tree, a mapping or a LossConfig; or the name of a preset, such as "jml",
            for `PRESETS["jml"].config`. None or {} is cross entropy.
        num_classes: C, at least 2; or 1 for a binary loss of one channel. Its class 0 has logit 0,
            and its counts and weights are those of both classes.
        class_counts: pixels of each class in the training split, (C,) or (images, C), >= 0. Only
            class-weight schemes and logit adjustment need them; `median_frequency` needs them per
            image.
        ignore_index: label of the ignored pixels, or several; None ignores none.
        validate: on the CPU, refuse soft targets that are no distributions; False skips the check.

    Returns:
        A module whose forward(logits, target, keep=None) is a scalar; see SegmentationLoss. With
        `distillation` it is also called with teacher=probabilities.

    Raises:
        ValueError: one line that names the key, if the config or the counts do not fit.

    Examples:
        >>> import torch
        >>> from study.losses import build_loss
        >>> loss = build_loss(
        ...     {
        ...         "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
        ...         "recall": {"ema_momentum": 0.9},
        ...     },
        ...     num_classes=3,
        ...     class_counts=[900, 90, 10],
        ... )
        >>> logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
        >>> target = torch.full((2, 8, 8), 255)
        >>> target[:, :4] = 1
        >>> value = loss(logits, target)
        >>> value.backward()
        >>> value.shape, bool((logits.grad[:, :, 4:] == 0).all())  # ignored pixels: no gradient
        (torch.Size([]), True)
    """
    from study.core.errors import InputError, did_you_mean
    from study.core.validation import validate as check
    from study.losses.module import SegmentationLoss

    given: object = config
    if isinstance(config, str):
        if config not in PRESETS:
            hint = did_you_mean(config, PRESETS) or f"allowed: {', '.join(PRESETS)}"
            raise InputError(f"no preset is named {given!r}", hint=hint, key="loss")
        config = PRESETS[config].config
    elif given is not None and not isinstance(given, LossConfig | Mapping):
        hint = "or the name of a preset"
        raise InputError(f"loss must be a mapping, got {given!r}", hint=hint, key="loss")
    if not isinstance(config, LossConfig):
        config = check(LossConfig, _plain(config or {}), root="loss")
    kind = SegmentationLoss
    if config.distillation is not None:
        from study.losses.distilled import DistilledLoss

        kind = DistilledLoss
    return kind(
        config,
        num_classes=num_classes,
        class_counts=class_counts,
        ignore_index=ignore_index,
        validate=validate,
    )


def _plain(tree: Any) -> Any:
    """A tree with the numbers and lists of Python in place of those of numpy and torch."""
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    return tree.tolist() if hasattr(tree, "tolist") else tree


def __getattr__(name: str) -> Any:
    if name == "SegmentationLoss":
        from study.losses.module import SegmentationLoss

        return SegmentationLoss
    if name == "class_counts":
        from study.losses.counts import class_counts

        return class_counts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
