"""Augmentation as batched tensor operations on the trial's device.

A CPU generator draws the random numbers of a batch, so a batch is augmented identically on every
device. They are drawn before the images are read, so only the visible part of a cropped image is
read and moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from study.config.task import Augment

# Rec. 601 luma: a saturation factor blends each pixel with this grey.
_LUMA = (0.299, 0.587, 0.114)
ALL = slice(None)


@dataclass(frozen=True)
class Views:
    """The part of each of B images (H, W) that a batch shows through a window of `size`.

    Attributes:
        full: (H, W) of the images.
        size: (h, w) of the window.
        extent: (h, w) of the part that is read of each image.
        mirrored: (B,) bool, images to mirror left to right; None for none.
        zoom: (B, 2, 3), affine map from the window to the mirrored image, both in [-1, 1]; None if
            pixels stay as they are.
        corners: (B, 2), top and left of the part in the mirrored image, 0 if all of it is read.
        offsets: (B, 2), top and left of the part in the window; only without zoom.
    """

    full: tuple[int, int]
    size: tuple[int, int]
    extent: tuple[int, int]
    mirrored: Tensor | None = None
    zoom: Tensor | None = None
    corners: Tensor | None = None
    offsets: Tensor | None = None

    def of(self, share: slice) -> Views:
        """The views of some images of the batch."""
        names = ("mirrored", "zoom", "corners", "offsets")
        drawn = {name: getattr(self, name) for name in names}
        return replace(self, **{k: v[share] for k, v in drawn.items() if v is not None})

    def parts(self) -> list[tuple[slice, slice]] | None:
        """Rows and columns to read of each stored image; None if all of them are needed."""
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

    def mirror(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Mirror the selected parts: images (B, *extent, 3), targets (B, *extent), soft labels
        (B, *extent, C), of any dtype."""
        if self.mirrored is None:
            return parts
        # Concatenate the batch and its mirror image, then select one version of each image.
        index = torch.arange(len(parts[0])) + len(parts[0]) * self.mirrored
        index = index.to(parts[0].device, non_blocking=True)
        return tuple(torch.cat((each, each.flip(2))).index_select(0, index) for each in parts)

    def show(
        self, images: Tensor, target: Tensor, *, mean: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        """Cut the windows (B, 3, *size) and (B, *size) from the mirrored parts (B, 3, *extent) and
        (B, *extent)."""
        if self.zoom is not None:
            return self._zoomed(images, target, self.zoom, mean, ignore_index)
        if self.offsets is not None and self.extent != self.size:
            return self._placed(images, target, mean, ignore_index)
        return images, target

    def show_soft(self, labels: Tensor) -> Tensor:
        """Cut the windows (B, C, *size) of soft labels from mirrored parts (B, C, *extent), as
        images are cut. Beyond the image, where the target is ignored, they are of no meaning."""
        if self.zoom is not None:
            grid, _ = self._grid(self.zoom, labels)
            return F.grid_sample(labels, grid, "bilinear", "border", align_corners=False)
        if self.offsets is not None and self.extent != self.size:
            windows = labels.new_full((*labels.shape[:2], *self.size), 1 / labels.shape[1])
            for window, part, inside in zip(windows, labels, self._insides(), strict=True):
                window[:, inside[0], inside[1]] = part
            return windows
        return labels

    def _insides(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each window that show its image."""
        assert self.offsets is not None
        height, width = self.extent
        for top, left in self.offsets.tolist():
            yield slice(top, top + height), slice(left, left + width)

    def _grid(self, zoom: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Where in its part each pixel of a window lies, (B, *size, 2) in [-1, 1], and which lie
        beyond the image, (B, *size) bool."""
        zoom = zoom.to(images.device, non_blocking=True)
        grid = F.affine_grid(zoom, [len(images), 3, *self.size], align_corners=False)
        # Border mode keeps edge pixels unblended; pixels beyond the image are overwritten below.
        outside = (grid.abs() > 1).any(dim=-1)
        if self.extent != self.full and self.corners is not None:
            full, extent = (torch.tensor(size[::-1]) for size in (self.full, self.extent))
            shift = (full - 2 * self.corners.flip(1)) / extent - 1
            shift, ratio = (
                each.to(images.device, grid.dtype, non_blocking=True)
                for each in (shift, full / extent)
            )
            grid = grid * ratio + shift[:, None, None]
        return grid, outside

    def _zoomed(
        self, images: Tensor, target: Tensor, zoom: Tensor, mean: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        grid, outside = self._grid(zoom, images)
        zoomed = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
        zoomed = torch.where(outside[:, None], mean[None, :, None, None], zoomed)
        labels = target[:, None].to(images.dtype)
        labels = F.grid_sample(labels, grid, "nearest", "border", align_corners=False)
        moved = labels[:, 0].to(target.dtype).masked_fill(outside, ignore_index)
        return zoomed.contiguous(memory_format=torch.channels_last), moved

    def _placed(
        self, images: Tensor, target: Tensor, mean: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor]:
        windows = mean[None, :, None, None].expand(len(images), 3, *self.size)
        windows = windows.contiguous(memory_format=torch.channels_last)
        labels = target.new_full((len(images), *self.size), ignore_index)
        for index, inside in enumerate(self._insides()):
            windows[index][:, inside[0], inside[1]] = images[index]
            labels[index][inside] = target[index]
        return windows, labels


def draw_views(
    config: Augment, num_images: int, full: tuple[int, int], generator: Generator
) -> Views:
    """Draw the views of a batch of images of size `full`; disabled options draw no numbers."""
    mirrored = None
    if config.flip > 0:
        mirrored = torch.rand(num_images, generator=generator) < config.flip
    if config.scale is not None:
        return _draw_zoom(config, config.scale, num_images, full, mirrored, generator)
    if config.crop is not None:
        return _draw_crop(config.crop, num_images, full, mirrored, generator)
    return Views(full, full, full, mirrored)


def padding(config: Augment, full: tuple[int, int]) -> float:
    """The least fraction of a window that lies beyond the image: a crop that is larger than images
    of size `full`, also at their largest scale, shows mean colour and ignored labels there."""
    zoom = 1.0 if config.scale is None else max(1.0, config.scale[1])
    size = config.crop or full
    height, width = (min(1.0, whole * zoom / one) for whole, one in zip(full, size, strict=True))
    return 1 - height * width


def augment(
    images: Tensor,
    target: Tensor,
    config: Augment,
    *,
    mean: Tensor,
    ignore_index: int,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Flip, zoom, crop and jitter a batch; a neutral config returns it unchanged.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        target: (B, H, W) integer.
        config: the options, applied in the order flip, scale, crop, jitter; a disabled one draws no
            random numbers.
        mean: (3,) colour that fills the area beyond the image, where the target is ignore_index.
        ignore_index: label of ignored pixels.
        generator: on the CPU.

    Returns:
        images and target; with a crop (h, w) of shapes (B, 3, h, w) and (B, h, w).
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

    Crops the part of the zoomed image beyond the window; pads the part of the window beyond the
    image. Images are sampled bilinearly, targets at the nearest pixel.
    """
    size = config.crop or full
    low, high = (torch.tensor(limit).log() for limit in limits)
    uniform = torch.rand(3, num_images, generator=generator)
    factor = (low + (high - low) * uniform[0]).exp()
    # Half the window's size in normalised coordinates; the window may slide by the slack.
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
    # One pixel more on each side: bilinear sampling also reads the next pixel.
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
    """Show a window of each image at a uniform position; a larger window shows the whole image at a
    uniform position in it."""
    slack = torch.tensor(full) - torch.tensor(size)
    uniform = torch.rand(num_images, 2, generator=generator).double()
    offset = (uniform * (slack.abs() + 1)).long()
    extent = (min(full[0], size[0]), min(full[1], size[1]))
    corners, offsets = offset * (slack >= 0), offset * (slack < 0)
    return Views(full, size, extent, mirrored, corners=corners, offsets=offsets)


def jitter(
    images: Tensor,
    strength: float,
    generator: Generator,
    count: int | None = None,
    share: slice = ALL,
) -> Tensor:
    """Scale brightness, contrast and saturation, each by its own factor in [1 - s, 1 + s] per
    image. count, share: of the batch that these images are a share of; the factors are drawn for
    the whole batch."""
    if strength == 0:
        return images
    drawn = len(images) if count is None else count
    draws = torch.rand(3, drawn, 1, 1, 1, generator=generator)[:, share]
    brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).to(
        images.device, non_blocking=True
    )
    images = images * brightness
    images = torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, contrast)
    red, green, blue = (images[:, c : c + 1] * weight for c, weight in enumerate(_LUMA))
    grey = red + green + blue
    return torch.lerp(grey, images, saturation).clamp(0, 1)
