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
    """Flip, zoom and jitter a batch; a neutral config returns it untouched.

    images: (B, 3, H, W) float in [0, 1]. target: (B, H, W) integer. mean: (3,) colour that fills
    what a zoom-out leaves empty; there the target is ignore_index. generator: on the CPU.
    The options act in the order flip, scale, jitter; one that is off draws no numbers.
    """
    if config.flip > 0:
        images, target = _flip(images, target, config.flip, generator)
    if config.scale is not None:
        images, target = _scale(images, target, config.scale, mean, ignore_index, generator)
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
    mean: Tensor,
    ignore_index: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Zoom each image by a log-uniform factor, at a uniform position, back into (H, W).

    factor > 1 crops, factor < 1 pads. Images are read bilinearly, targets at the nearest pixel.
    """
    low, high = (torch.tensor(limit).log() for limit in limits)
    uniform = torch.rand(3, len(images), generator=generator)
    factor = (low + (high - low) * uniform[0]).exp()
    # In normalised coordinates the window has half-width 1/factor; it may slide by the slack.
    slack = (1 - 1 / factor).abs()
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factor
    theta[:, 0, 2] = (2 * uniform[1] - 1) * slack
    theta[:, 1, 2] = (2 * uniform[2] - 1) * slack
    theta = theta.to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # The border keeps edge pixels whole; what lies beyond the image is then painted over.
    outside = (grid.abs() > 1).any(dim=-1)
    zoomed = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
    zoomed = torch.where(outside[:, None], mean[None, :, None, None], zoomed)
    labels = target[:, None].to(images.dtype)
    labels = F.grid_sample(labels, grid, "nearest", "border", align_corners=False)
    moved = labels[:, 0].to(target.dtype).masked_fill(outside, ignore_index)
    return zoomed.contiguous(memory_format=torch.channels_last), moved


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
