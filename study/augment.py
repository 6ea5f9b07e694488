"""Augmentation as batched tensor operations on the trial's device.

The random numbers of a batch are drawn on the CPU from one generator, so a batch is augmented
alike on every device.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from study.config import Augment

# Rec. 601 luma: the grey that saturation fades to.
_LUMA = (0.299, 0.587, 0.114)


def augment(
    images: Tensor,
    target: Tensor,
    config: Augment,
    *,
    mean: Tensor,
    ignore_index: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Flip, zoom, crop and jitter a batch; a neutral config returns it untouched.

    images: (B, 3, H, W) float in [0, 1]. target: (B, H, W) integer. mean: (3,) colour that fills
    what lies beyond the image, where the target is ignore_index. generator: on the CPU.
    The options act in the order flip, scale, crop, jitter; one that is off draws no numbers. With
    a crop (h, w) the result is (B, 3, h, w) and (B, h, w).
    """
    if config.flip > 0:
        images, target = _flip(images, target, config.flip, generator)
    if config.scale is not None:
        size = config.crop or (images.shape[-2], images.shape[-1])
        images, target = _scale(images, target, config.scale, size, mean, ignore_index, generator)
    elif config.crop is not None:
        images, target = _crop(images, target, config.crop, mean, ignore_index, generator)
    if config.jitter > 0:
        images = _jitter(images, config.jitter, generator)
    return images, target


def _flip(
    images: Tensor, target: Tensor, probability: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mirror left and right, each image with the given probability."""
    chosen = torch.rand(len(images), generator=generator) < probability
    chosen = chosen.to(images.device, non_blocking=True)
    images = torch.where(chosen[:, None, None, None], images.flip(-1), images)
    return images, torch.where(chosen[:, None, None], target.flip(-1), target)


def _scale(
    images: Tensor,
    target: Tensor,
    limits: tuple[float, float],
    size: tuple[int, int],
    mean: Tensor,
    ignore_index: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Zoom each image by a log-uniform factor and show a window of `size` at a uniform position.

    What the window does not fill of the zoomed image is cropped, what it has beyond it is padded.
    Images are read bilinearly, targets at the nearest pixel.
    """
    low, high = (torch.tensor(limit).log() for limit in limits)
    uniform = torch.rand(3, len(images), generator=generator)
    factor = (low + (high - low) * uniform[0]).exp()
    # In normalised coordinates the window has this half-width; it may slide by the slack.
    half = torch.stack(
        [extent / (full * factor) for extent, full in zip(size, images.shape[-2:], strict=True)]
    )
    slack = (1 - half).abs()
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = half[1], half[0]
    theta[:, 0, 2] = (2 * uniform[1] - 1) * slack[1]
    theta[:, 1, 2] = (2 * uniform[2] - 1) * slack[0]
    theta = theta.to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, [len(images), 3, *size], align_corners=False)
    # The border keeps edge pixels whole; what lies beyond the image is then painted over.
    outside = (grid.abs() > 1).any(dim=-1)
    zoomed = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
    zoomed = torch.where(outside[:, None], mean[None, :, None, None], zoomed)
    labels = target[:, None].to(images.dtype)
    labels = F.grid_sample(labels, grid, "nearest", "border", align_corners=False)
    moved = labels[:, 0].to(target.dtype).masked_fill(outside, ignore_index)
    return zoomed.contiguous(memory_format=torch.channels_last), moved


def _crop(
    images: Tensor,
    target: Tensor,
    size: tuple[int, int],
    mean: Tensor,
    ignore_index: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """A window of each image at a uniform position; where it is larger than the image, the image
    at a uniform position in it."""
    shape = (len(images), 3, *size)
    windows = mean[None, :, None, None].expand(shape).contiguous(memory_format=torch.channels_last)
    labels = target.new_full((len(images), *size), ignore_index)
    uniform = torch.rand(len(images), 2, generator=generator).tolist()
    for index, draws in enumerate(uniform):
        rows, columns = (
            _overlap(draw, full, extent)
            for draw, full, extent in zip(draws, images.shape[-2:], size, strict=True)
        )
        windows[index][:, rows[1], columns[1]] = images[index][:, rows[0], columns[0]]
        labels[index][rows[1], columns[1]] = target[index][rows[0], columns[0]]
    return windows, labels


def _overlap(draw: float, full: int, extent: int) -> tuple[slice, slice]:
    """Along one axis: what is seen of the image, and where in the window."""
    offset = int(draw * (abs(full - extent) + 1))
    common = slice(0, min(full, extent)), slice(offset, offset + min(full, extent))
    return (common[1], common[0]) if full >= extent else common


def _jitter(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Brightness, contrast and saturation, each by its own factor in [1 - s, 1 + s] per image."""
    draws = torch.rand(3, len(images), 1, 1, 1, generator=generator)
    brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).to(
        images.device, non_blocking=True
    )
    images = images * brightness
    images = torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast)
    luma = images.new_tensor(_LUMA)[None, :, None, None]
    grey = (images * luma).sum(dim=1, keepdim=True)
    return torch.lerp(grey, images, saturation).clamp(0, 1)
