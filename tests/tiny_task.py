"""A task of seconds, for tests that train."""

from __future__ import annotations

from typing import Any

from study.config import TrialConfig

TINY: dict[str, Any] = {
    "data": {"format": "synthetic", "size": [32, 48], "num_train": 24, "num_val": 8, "num_test": 8},
    "augment": {"flip": 0.5, "scale": [0.8, 1.25], "jitter": 0.1},
    "model": {
        "arch": "unet",
        "encoder": "tu-mobilenetv3_small_050",
        "kwargs": {"encoder_depth": 3, "decoder_channels": [24, 16, 16]},
    },
    "optimizer": {"name": "adamw", "lr": 1.0e-2, "weight_decay": 1.0e-4},
    "lr_schedule": {"name": "poly", "warmup": 0.05},
    "batch_size": 4,
    "budget": {"epochs": 2},
}
# Every kind of state that a loss can have.
STATEFUL_LOSS: dict[str, Any] = {
    "class_weights": {"scheme": "inverse_frequency", "exponent": 0.5},
    "recall": {"ema_momentum": 0.9},
    "jaccard": {"mix": 0.3},
}
CONVOLUTION = {"factory": "tiny_task:convolution", "kwargs": {"dropout": 0.2}}


def tiny(loss: dict[str, Any] | None = None, seed: int = 0, **task: Any) -> TrialConfig:
    """The tiny trial with parts of its task replaced."""
    return TrialConfig.model_validate({"task": {**TINY, **task}, "loss": loss or {}, "seed": seed})


def convolution(num_classes: int, dropout: float = 0.0) -> Any:
    """The smallest model with batch norm and random numbers of its own."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(8, num_classes, 1),
    )
