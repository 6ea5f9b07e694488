"""Augmentation as batched tensor operations on the trial's device.

The random numbers of a batch are drawn on the CPU from one generator, so a batch is augmented
alike on every device. They are drawn before the images are read, so that of images that are cropped
no more is read and moved than is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from study.config.task import Augment

# Rec. 601 luma: the grey that saturation fades to.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Views:
    """What a batch shows of B images of (H, W): mirrored or not, through a window of `size`.

    mirrored: (B,) bool, None for none. zoom: (B, 2, 3) from the window to the mirrored image, both
    in [-1, 1]; None where pixels stay as they are, and then `places` (B, 2) are top and left of the
    part in the window. The part that is read of each image has `extent`, and its top and left in
    the mirrored image are `corners` (B, 2), 0 where all of it is.
    """

    full: tuple[int, int]
    size: tuple[int, int]
    extent: tuple[int, int]
    mirrored: Tensor | None = None
    zoom: Tensor | None = None
    corners: Tensor | None = None
    places: Tensor | None = None

    def parts(self) -> list[tuple[slice, slice]] | None:
        """Rows and columns to read of each image as it is stored; None where all are needed."""
        if self.corners is None or self.extent == self.full:
            return None
        left = self.corners[:, 1]
        if self.mirrored is not None:
            stored = self.full[1] - self.extent[1] - left
            left = torch.where(self.mirrored, stored, left)
        height, width = self.extent
        tops = self.corners[:, 0].tolist()
        return [
            (slice(y, y + height), slice(x, x + width))
            for y, x in zip(tops, left.tolist(), strict=True)
        ]

    def mirror(self, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Swap left and right of those drawn; (B, *extent, 3) and (B, *extent) of any dtype."""
        if self.mirrored is None:
            return images, target
        # Of a batch and its mirror image, one behind the other, the one or the other of each.
        index = torch.arange(len(images)) + len(images) * self.mirrored
        index = index.to(images.device, non_blocking=True)
        images, target = (
            torch.cat((each, each.flip(2))).index_select(0, index) for each in (images, target)
        )
        return images, target

    def show(
        self, images: Tensor, target: Tensor, *, mean: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        """The windows (B, 3, *size) and (B, *size) of the mirrored parts (B, 3, *extent) and
        (B, *extent)."""
        if self.zoom is not None:
            return self._zoomed(images, target, self.zoom, mean, ignore_index)
        if self.places is not None and self.extent != self.size:
            return self._placed(images, target, self.places, mean, ignore_index)
        return images, target

    def _zoomed(
        self, images: Tensor, target: Tensor, zoom: Tensor, mean: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        zoom = zoom.to(images.device, non_blocking=True)
        grid = F.affine_grid(zoom, [len(images), 3, *self.size], align_corners=False)
        # The border keeps edge pixels whole; what lies beyond the image is then painted over.
        outside = (grid.abs() > 1).any(dim=-1)
        if self.extent != self.full and self.corners is not None:
            full, extent = (torch.tensor(size[::-1]) for size in (self.full, self.extent))
            shift = (full - 2 * self.corners.flip(1)) / extent - 1
            shift, ratio = (
                each.to(images.device, grid.dtype, non_blocking=True)
                for each in (shift, full / extent)
            )
            grid = grid * ratio + shift[:, None, None]
        zoomed = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
        zoomed = torch.where(outside[:, None], mean[None, :, None, None], zoomed)
        labels = target[:, None].to(images.dtype)
        labels = F.grid_sample(labels, grid, "nearest", "border", align_corners=False)
        moved = labels[:, 0].to(target.dtype).masked_fill(outside, ignore_index)
        return zoomed.contiguous(memory_format=torch.channels_last), moved

    def _placed(
        self, images: Tensor, target: Tensor, places: Tensor, mean: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        windows = mean[None, :, None, None].expand(len(images), 3, *self.size)
        windows = windows.contiguous(memory_format=torch.channels_last)
        labels = target.new_full((len(images), *self.size), ignore_index)
        height, width = self.extent
        for index, (top, left) in enumerate(places.tolist()):
            inside = slice(top, top + height), slice(left, left + width)
            windows[index][:, inside[0], inside[1]] = images[index]
            labels[index][inside] = target[index]
        return windows, labels


def draw_views(
    config: Augment, num_images: int, full: tuple[int, int], generator: Generator
) -> Views:
    """Draw what a batch shows of its images of size `full`; an option that is off draws nothing."""
    mirrored = None
    if config.flip > 0:
        mirrored = torch.rand(num_images, generator=generator) < config.flip
    if config.scale is not None:
        return _draw_zoom(config, config.scale, num_images, full, mirrored, generator)
    if config.crop is not None:
        return _draw_crop(config.crop, num_images, full, mirrored, generator)
    return Views(full, full, full, mirrored)


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
    height, width = images.shape[-2:]
    views = draw_views(config, len(images), (height, width), generator)
    parts = views.parts()
    if parts is not None:
        images = torch.stack([one[:, y, x] for one, (y, x) in zip(images, parts, strict=True)])
        images = images.contiguous(memory_format=torch.channels_last)
        target = torch.stack([one[y, x] for one, (y, x) in zip(target, parts, strict=True)])
    if views.mirrored is not None:
        images, target = views.mirror(images.permute(0, 2, 3, 1), target)
        images = images.permute(0, 3, 1, 2)
    images, target = views.show(images, target, mean=mean, ignore_index=ignore_index)
    return jitter(images, config.jitter, generator), target


def _draw_zoom(
    config: Augment,
    limits: tuple[float, float],
    num_images: int,
    full: tuple[int, int],
    mirrored: Tensor | None,
    generator: Generator,
) -> Views:
    """Zoom each image by a log-uniform factor and show a window of `size` at a uniform position.

    What the window does not fill of the zoomed image is cropped, what it has beyond it is padded.
    Images are read bilinearly, targets at the nearest pixel.
    """
    size = config.crop or full
    low, high = (torch.tensor(limit).log() for limit in limits)
    uniform = torch.rand(3, num_images, generator=generator)
    factor = (low + (high - low) * uniform[0]).exp()
    # In normalised coordinates the window has this half-width; it may slide by the slack.
    half = torch.stack(
        [extent / (whole * factor) for extent, whole in zip(size, full, strict=True)]
    )
    slack = (1 - half).abs()
    zoom = torch.zeros(num_images, 2, 3)
    zoom[:, 0, 0], zoom[:, 1, 1] = half[1], half[0]
    zoom[:, 0, 2] = (2 * uniform[1] - 1) * slack[1]
    zoom[:, 1, 2] = (2 * uniform[2] - 1) * slack[0]
    if config.crop is None:
        return Views(full, full, full, mirrored, zoom)
    centre = zoom[:, [1, 0], 2]
    whole = torch.tensor(full)
    # One pixel more on each side: bilinear reading takes the next pixel, too.
    first = ((centre - half.T + 1) * whole / 2).floor() - 1
    last = ((centre + half.T + 1) * whole / 2).ceil() + 1
    first, last = first.long().clamp(min=0), last.long().minimum(whole)
    extent = (last - first).amax(0)
    corners = first.minimum(whole - extent)
    height, width = extent.tolist()
    return Views(full, size, (height, width), mirrored, zoom, corners)


def _draw_crop(
    size: tuple[int, int],
    num_images: int,
    full: tuple[int, int],
    mirrored: Tensor | None,
    generator: Generator,
) -> Views:
    """A window of each image at a uniform position; where it is larger than the image, the image
    at a uniform position in it."""
    slack = torch.tensor(full) - torch.tensor(size)
    uniform = torch.rand(num_images, 2, generator=generator).double()
    offset = (uniform * (slack.abs() + 1)).long()
    extent = (min(full[0], size[0]), min(full[1], size[1]))
    corners, places = offset * (slack >= 0), offset * (slack < 0)
    return Views(full, size, extent, mirrored, corners=corners, places=places)


def jitter(images: Tensor, strength: float, generator: Generator) -> Tensor:
    """Brightness, contrast and saturation, each by its own factor in [1 - s, 1 + s] per image."""
    if strength == 0:
        return images
    draws = torch.rand(3, len(images), 1, 1, 1, generator=generator)
    brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).to(
        images.device, non_blocking=True
    )
    images = images * brightness
    images = torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast)
    red, green, blue = (images[:, c : c + 1] * weight for c, weight in enumerate(_LUMA))
    grey = red + green + blue
    return torch.lerp(grey, images, saturation).clamp(0, 1)
