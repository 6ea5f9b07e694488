"""From the memory-mapped arrays of a split to batches on the trial's device.

On a GPU the copies are asynchronous: the host gathers the next batch while the GPU computes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from study.augment import Views, draw_views, jitter
from study.config import Augment

if TYPE_CHECKING:
    from study.data import SegmentationData, Split

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ORDER, AUGMENT = 0, 1  # random streams of a trial


def stream(seed: int, kind: int, index: int) -> torch.Generator:
    """A CPU generator that depends on its three numbers alone, so that any step can be redone."""
    state = np.random.SeedSequence([seed, kind, index]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class TrainOrder:
    """Which images each optimiser step sees: a fresh permutation in every pass over the split.

    The last batch of a pass may be smaller. A last batch of a single image is left out, because
    batch norm cannot learn from one (other images fall out in other passes); it stays when the
    batch size is 1 or the split holds one image.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        rest = num_images % batch_size
        whole = num_images // batch_size
        self.steps_per_pass = whole + (1 if rest > 1 or (rest == 1 and whole == 0) else 0)
        self._pass = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> np.ndarray:
        """Image indices (b,) of the step, counted from 0 over the whole training."""
        number, position = divmod(step, self.steps_per_pass)
        if number != self._pass:
            generator = stream(self.seed, ORDER, number)
            self._permutation = torch.randperm(self.num_images, generator=generator).numpy()
            self._pass = number
        first = position * self.batch_size
        return self._permutation[first : first + self.batch_size]


class Batches:
    """Normalised float batches of a data set, in channels-last order."""

    def __init__(self, data: SegmentationData, device: torch.device, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.ignore_index = data.ignore_index
        self._mean = torch.as_tensor(np.asarray(data.mean), dtype=torch.float32).to(device)
        std = torch.as_tensor(np.asarray(data.std), dtype=torch.float32).to(device)
        self._scale = (1 / std)[:, None, None]
        self._shift = (-self._mean / std)[:, None, None]

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which the model runs; fp32 changes nothing."""
        return torch.autocast(
            self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"
        )

    def train(
        self, split: Split, index: np.ndarray, config: Augment, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augmented images (b, 3, H, W) float32 and target (b, H, W) int64."""
        height, width = split.images.shape[1:3]
        views = draw_views(config, len(index), (height, width), generator)
        pixels, labels = self._to_device(*self._read(split, index, views))
        images, target = self._floats(*views.mirror(pixels, labels))  # as bytes: less to move
        images, target = views.show(images, target, mean=self._mean, ignore_index=self.ignore_index)
        return self._normalise(jitter(images, config.jitter, generator)), target

    def evaluation(self, split: Split, index: slice) -> tuple[Tensor, Tensor]:
        """Images (b, 3, H, W) float32 and target (b, H, W) int64 as they are."""
        pixels, labels = self._to_device(split.images[index], split.labels[index])
        images, target = self._floats(pixels, labels)
        return self._normalise(images), target

    @staticmethod
    def _read(split: Split, index: np.ndarray, views: Views) -> tuple[np.ndarray, np.ndarray]:
        """The pixels and labels that the views show something of."""
        parts = views.parts()
        if parts is None:
            return split.images[index], split.labels[index]
        pixels, labels = (
            np.stack([array[i, y, x] for i, (y, x) in zip(index, parts, strict=True)])
            for array in (split.images, split.labels)
        )
        return pixels, labels

    def _to_device(self, pixels: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
        images, target = (self._moved(array) for array in (pixels, labels))
        return images, target

    def _moved(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["O", "W"]))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @staticmethod
    def _floats(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(b, H, W, 3) and (b, H, W) bytes as (b, 3, H, W) floats, channels last, and labels."""
        return pixels.permute(0, 3, 1, 2).float().div_(255), labels.long()

    def _normalise(self, images: Tensor) -> Tensor:
        return torch.addcmul(self._shift, images, self._scale)  # (images - mean) / std
