"""A task of seconds, for tests that train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from study.config.task import TrialConfig
from study.data import SegmentationData, open_data
from study.training.trainer import EpochReport, train

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
NOISY = {"factory": "tiny_task:noisy"}
CONVOLUTION = {"factory": "tiny_task:convolution", "kwargs": {"dropout": 0.2}}


def tiny(loss: dict[str, Any] | None = None, seed: int = 0, **task: Any) -> TrialConfig:
    """The tiny trial with parts of its task replaced."""
    return TrialConfig.model_validate({"task": {**TINY, **task}, "loss": loss or {}, "seed": seed})


def tiny_data() -> SegmentationData:
    """Its data, drawn once per session."""
    return open_data(tiny().trained_here.data)


def run(config: TrialConfig, data: SegmentationData, **options: Any) -> list[EpochReport]:
    """All reports of a training on the CPU."""
    return list(train(config, data=data, device="cpu", **options))


def timeless(report: EpochReport) -> dict[str, float]:
    """The metrics that a second run must have again."""
    return {key: value for key, value in report.metrics.items() if not key.startswith("time/")}


T = TypeVar("T")


@contextmanager
def noted(kind: type, note: Callable[[Any, Any, Any], T]) -> Iterator[list[T]]:
    """What `note` makes of each call of a module of this class in the block; it gets the module,
    its arguments and its result."""
    from torch.nn.modules.module import register_module_forward_hook

    found: list[T] = []

    def hook(module: Any, arguments: Any, result: Any) -> None:
        if type(module) is kind:
            found.append(note(module, arguments, result))

    handle = register_module_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


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


def small_images_only(num_classes: int) -> Any:
    """A model that takes 24 rows and no more."""
    from torch import nn

    class SmallImagesOnly(nn.Conv2d):
        def forward(self, images: Any) -> Any:
            if images.shape[-2] > 24:
                raise ValueError("at most 24 rows")
            return super().forward(images)

    return SmallImagesOnly(3, num_classes, 1)


def noisy(num_classes: int) -> Any:
    """A model that asks Python and numpy for its random numbers, at its start and in training."""
    import random

    import numpy as np
    from torch import nn

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, num_classes, 1)
            self.scale = random.random() + np.random.rand()

        def forward(self, images: Any) -> Any:
            noise = random.random() + np.random.rand() if self.training else 1.0
            return self.convolution(images) * self.scale * noise

    return Noisy()


def unsteady(num_classes: int) -> Any:
    """A convolution through an operation that torch has no deterministic kernel for."""
    import torch
    from torch import Tensor, nn

    class Unsteady(nn.Conv2d):
        def forward(self, images: Tensor) -> Tensor:
            index = torch.arange(2, device=images.device)
            torch.zeros(4, device=images.device).put_(index, torch.ones(2, device=images.device))
            return super().forward(images)

    return Unsteady(3, num_classes, 1)


def colours(num_classes: int, sharp: float = 2.0) -> Any:
    """A teacher that judges each pixel by its own colour: it commutes with flips and crops."""
    import torch
    from torch import nn

    model = nn.Conv2d(3, num_classes, 1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        model.weight.copy_(sharp * torch.randn(model.weight.shape, generator=generator))
    model.register_parameter("bias", None)
    return model


def smaller(num_classes: int) -> Any:
    """A model whose logits are smaller than its images."""
    from torch import nn

    return nn.Conv2d(3, num_classes, 3, stride=2)


def failing(num_classes: int) -> Any:
    """A factory that fails."""
    raise KeyError("no such network")


def with_heads(num_classes: int, kind: str = "right") -> Any:
    """A model with an auxiliary head, or with something else in its place."""
    import torch
    from torch import Tensor, nn

    class WithHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, padding=1)
            self.main, self.aux = (nn.Conv2d(8, num_classes, 1) for _ in range(2))

        def forward(self, images: Tensor) -> Any:
            features = torch.relu(self.body(images))
            main, aux = self.main(features), self.aux(features)
            if kind == "alone" or (not self.training and kind != "always"):
                return main
            if kind == "three":
                return main, aux, aux
            return main, aux[..., ::2, ::2] if kind == "smaller" else aux

    return WithHeads()


def ending(num_classes: int) -> Any:
    """A factory that ends its process."""
    import os

    os._exit(3)


def greedy(num_classes: int) -> Any:
    """A factory that a GPU has no memory for."""
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")
