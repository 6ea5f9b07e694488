"""Batches on the trial's device, read from the memory-mapped arrays of a split.

On a GPU the next batch is read and copied while the GPU computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from study.config.task import Augment
from study.training.augment import ALL, Views, draw_views, jitter
from study.training.prefetch import prefetched

if TYPE_CHECKING:
    from study.data import SegmentationData, Split

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ORDER, AUGMENT = 0, 1  # random streams of a trial
DRAWN_AT_ONCE = 1024  # steps whose random streams are begun together


def stream(seed: int, kind: int, index: int) -> torch.Generator:
    """A CPU generator that depends only on its three numbers, so that any step can be repeated."""
    state = np.random.SeedSequence([seed, kind, index]).generate_state(2, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


class TrainOrder:
    """Which images each optimiser step sees: a new permutation in every pass over the split.

    The last batch of a pass may be smaller. A last batch of one image is dropped, because batch
    norm cannot learn from one (other passes drop other images), unless the batch size is 1 or the
    split holds one image.
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

    def size(self, step: int) -> int:
        """How many images a step sees."""
        first = step % self.steps_per_pass * self.batch_size
        return min(self.batch_size, self.num_images - first)

    def indices(self, step: int) -> np.ndarray:
        """Image indices (b,) of a step; steps are counted from 0 over the whole training."""
        number, position = divmod(step, self.steps_per_pass)
        if number != self._pass:
            generator = stream(self.seed, ORDER, number)
            self._permutation = torch.randperm(self.num_images, generator=generator).numpy()
            self._pass = number
        first = position * self.batch_size
        return self._permutation[first : first + self.batch_size]


def draw(
    order: TrainOrder, first: int, end: int, *, at_once: int = DRAWN_AT_ONCE
) -> Iterator[tuple[np.ndarray, torch.Generator]]:
    """Image indices and the augmentation's stream of the steps from `first` to before `end`.

    at_once: steps whose streams are begun together; one at a time takes longer.
    """
    for start in range(first, end, at_once):
        yield from [
            (order.indices(step), stream(order.seed, AUGMENT, step))
            for step in range(start, min(start + at_once, end))
        ]


@dataclass(frozen=True)
class _Loaded:
    """The bytes of a batch, on the device or being copied to it: pixels (b, H, W, 3), labels
    (b, H, W) and, where there are any, soft labels (b, H, W, C)."""

    parts: tuple[Tensor, ...]
    arrival: torch.cuda.Event | None


class Batches:
    """Normalised float batches of a data set, in channels-last order.

    reads_ahead: whether the next batch is read, and copied to the device, while the model works on
    one. Only on a GPU: a trial on the CPU has no spare thread.
    """

    def __init__(self, data: SegmentationData, device: torch.device, precision: str) -> None:
        self.device = device
        self.precision = precision
        self.ignore_index = data.ignore_index
        self.reads_ahead = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._mean = torch.as_tensor(np.asarray(data.mean), dtype=torch.float32).to(device)
        std = torch.as_tensor(np.asarray(data.std), dtype=torch.float32).to(device)
        self._scale = (1 / std)[:, None, None]
        self._shift = (-self._mean / std)[:, None, None]

    def autocast(self) -> AbstractContextManager[None]:
        """A context that runs the model in the trial's precision; fp32 changes nothing."""
        return torch.autocast(
            self.device.type, _DTYPES[self.precision], enabled=self.precision != "fp32"
        )

    def train(
        self,
        split: Split,
        draws: Iterable[tuple[np.ndarray, torch.Generator]],
        config: Augment,
        soft: np.ndarray | None = None,
        share: Callable[[int], slice] = lambda count: ALL,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield the augmented batch of each draw: images (b, 3, H, W) float32, target (b, H, W)
        int64, and soft labels (b, C, H, W) float32 or None.

        draws: indices (b,) of the images, and a generator for their augmentation. soft: the log
        probabilities (N, H, W, C) of a teacher for the images of the split; they are flipped,
        scaled and cropped with their image. share: which images of a batch of so many are yielded;
        the random numbers are drawn for all of them.
        """
        full = split.images.shape[1:3]

        def load(
            draw: tuple[np.ndarray, torch.Generator],
        ) -> tuple[_Loaded, Views, int, torch.Generator]:
            index, generator = draw
            part = share(len(index))
            views = draw_views(config, len(index), full, generator).of(part)
            loaded = self._load(*self._read(arrays, index[part], views))
            return loaded, views, len(index), generator

        arrays = [split.images, split.labels, *([] if soft is None else [soft])]
        for loaded, views, count, generator in prefetched(load, draws, ahead=self.reads_ahead):
            pixels, labels, *logs = views.mirror(*self._arrived(loaded))  # as bytes: less to move
            images, target = self._floats(pixels, labels)
            images, target = views.show(
                images, target, mean=self._mean, ignore_index=self.ignore_index
            )
            images = jitter(images, config.jitter, generator, count, share(count))
            images = self._normalise(images)
            yield images, target, self._shown(logs[0], views) if logs else None

    @staticmethod
    def _shown(logs: Tensor, views: Views) -> Tensor:
        """The probabilities (b, C, *size) of log probabilities (b, *extent, C)."""
        shown = views.show_soft(logs.permute(0, 3, 1, 2).float().exp())
        return shown / shown.sum(1, keepdim=True)

    def evaluation(
        self, split: Split, batch_size: int, share: slice = ALL
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images (b, 3, H, W) float32 and targets (b, H, W) int64, in order and
        unaugmented; of a share those images alone."""

        def load(start: int) -> _Loaded:
            part = slice(start, min(start + batch_size, end))
            return self._load(split.images[part], split.labels[part])

        first, end, _ = share.indices(len(split.images))
        starts = range(first, end, batch_size)
        for loaded in prefetched(load, starts, ahead=self.reads_ahead):
            pixels, labels = self._arrived(loaded)
            images, target = self._floats(pixels, labels)
            yield self._normalise(images), target

    @staticmethod
    def _read(arrays: Sequence[np.ndarray], index: np.ndarray, views: Views) -> list[np.ndarray]:
        """Read what the views show of each array."""
        parts = views.parts()
        if parts is None:
            return [array[index] for array in arrays]
        return [
            np.stack([array[i, y, x] for i, (y, x) in zip(index, parts, strict=True)])
            for array in arrays
        ]

    def _load(self, *arrays: np.ndarray) -> _Loaded:
        """Start the copy to the device; on a GPU in a separate stream, parallel to its
        computations."""
        # Copies memory-mapped arrays, but not those that indexing has gathered already.
        held = [torch.from_numpy(np.require(a, requirements=["O", "W"])) for a in arrays]
        if self._copies is None:
            return _Loaded(tuple(each.to(self.device) for each in held), None)
        with torch.cuda.stream(self._copies):
            parts = tuple(each.pin_memory().to(self.device, non_blocking=True) for each in held)
            return _Loaded(parts, self._copies.record_event())

    def _arrived(self, loaded: _Loaded) -> tuple[Tensor, ...]:
        """Make the current stream wait for the copy; return the bytes. The host does not wait."""
        if loaded.arrival is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(loaded.arrival)
            for tensor in loaded.parts:
                tensor.record_stream(now)  # else the next copy may reuse its memory too early
        return loaded.parts

    @staticmethod
    def _floats(pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Convert bytes (b, H, W, 3) and (b, H, W) to floats (b, 3, H, W), channels last, and
        labels."""
        return pixels.permute(0, 3, 1, 2).float().div_(255), labels.long()

    def _normalise(self, images: Tensor) -> Tensor:
        return torch.addcmul(self._shift, images, self._scale)  # (images - mean) / std
