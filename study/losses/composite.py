"""The whole loss: pixel term and Jaccard term, mixed.

    ce_p  = -sum_c s_p[c] log softmax(z_p)[c]
    ell_p = a[y_p] * (1 - R[y_p]) * (1 - q_p)^gamma * ce_p
    L     = (1 - mix) * Pool_p(ell) + mix * Jaccard(softmax z, target)

over the valid pixels p; s one-hot, smoothed or soft labels, q_p the softmax probability of y_p.
With every axis neutral this is exactly the mean cross entropy over valid pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from study.losses.class_weights import Counts, class_weights
from study.losses.config import LossConfig
from study.losses.family import has_class_weights
from study.losses.fused import FusedLoss
from study.losses.labels import compute_dtype, read_labels
from study.losses.recall import RecallState
from study.losses.smoothing import smoothing


class SegmentationLoss(nn.Module):
    """forward(logits (B, C, H, W) float, target, keep=None) -> scalar.

    target: (B, H, W) integers in [0, C) or `ignore_index`; or a soft target (B, C, H, W) whose
    pixels sum to 1. keep: (B, H, W) bool, pixels that count (with hard labels, besides
    `ignore_index`); None keeps all.

    float64 logits are computed in float64, all others in float32, under autocast too. Logits of
    ignored pixels are never read: their gradient is 0 even where they are NaN. A NaN at a valid
    pixel gives NaN. A batch without a valid pixel gives 0, attached to the graph.

    State: recall (one update per forward in training mode; in eval mode it is read). The class
    weights are a buffer, too, so both move with the module and are saved with it.

    Normaliser: `valid` divides by the number of valid pixels; `weight` first scales the pixel
    weights a * (1 - R) to average 1 over the valid pixels of the batch.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        config: LossConfig,
        *,
        num_classes: int,
        class_counts: Counts | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes: `1 <= num_classes` must hold, but got {num_classes}")
        self.config = config
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        weights = class_weights(config.class_weights, class_counts, num_classes)
        self.register_buffer("class_weights", weights)
        self.recall = (
            RecallState(config.recall.ema_momentum, num_classes) if config.recall else None
        )
        self._terms: dict[str, Tensor] = {}

    def forward(self, logits: Tensor, target: Tensor, keep: Tensor | None = None) -> Tensor:
        labels = read_labels(
            logits, target, keep, num_classes=self.num_classes, ignore_index=self.ignore_index
        )
        if any(buffer.device != logits.device for buffer in self.buffers()):
            self.to(logits.device)  # state follows the input
        with torch.autocast(logits.device.type, enabled=False):
            scores = logits.to(compute_dtype(logits)).flatten(2)
            epsilon = smoothing(self.config, labels, logits.shape[2:], scores.dtype)
            labels = replace(labels, epsilon=epsilon)
            value, self._terms = FusedLoss.apply(scores, labels, self)
        return value

    def weights(self) -> Tensor | None:
        """a * (1 - R), (C,) float64, as the pixels are weighed now; None where all weigh 1."""
        weights = self.class_weights if has_class_weights(self.config) else None
        if self.recall is None:
            return weights
        return self.recall.weights() * (1 if weights is None else weights)

    def terms(self) -> dict[str, Tensor]:
        """Parts of the last step's value, detached 0-dim tensors; nothing waits for the device
        until one is read. `cross_entropy` (unweighted) and `pixel` (pooled) unless mix is 1;
        `jaccard` unless mix is 0; `recall`, the mean R of the classes seen; `kept` or `capped`,
        the share of valid pixels that OHEM keeps or loss max-pooling holds at its cap."""
        return dict(self._terms)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, ignore_index={self.ignore_index}, {self.config}"
