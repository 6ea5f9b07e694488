"""A canvas that paints an image and its label map together, from far to near."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Colour = Sequence[float] | FloatArray  # (3,) RGB in 0..1

VOID = 255


class Canvas:
    """An image (H, W, 3) float32 in 0..1 and its labels (H, W) uint8, both painted in place.

    Coordinates are pixels, y down; shapes may lie partly or wholly outside. `grain` (H, W) is the
    surface texture, about 0 +- 1, that modulates every shape.
    """

    def __init__(self, height: int, width: int, grain: FloatArray) -> None:
        self.height, self.width = height, width
        self.image: FloatArray = np.zeros((height, width, 3), np.float32)
        self.label = np.full((height, width), VOID, np.uint8)
        self.grain = grain

    def paint(
        self,
        mask: Mask,
        colour: Colour | FloatArray,
        label: int | None,
        *,
        texture: float = 0.05,
        at: tuple[slice, slice] | None = None,
    ) -> None:
        """Colour the pixels of `mask`; with label None they keep their class.

        colour: (3,), or (H, W, 3) for a shaded surface. at: the window that `mask` covers.
        """
        at = (slice(None), slice(None)) if at is None else at
        shade = 1.0 + texture * self.grain[at][mask]
        colour = np.asarray(colour, np.float32)
        flat = colour[at][mask] if colour.ndim == 3 else colour
        self.image[at][mask] = flat * shade[:, None]
        if label is not None:
            self.label[at][mask] = label

    def rectangle(
        self,
        top: float,
        bottom: float,
        left: float,
        right: float,
        colour: Colour,
        label: int | None,
    ) -> None:
        """Paint a rectangle, at least one pixel wide and high, so that thin things never vanish."""
        y0, x0 = round(top), round(left)
        y1, x1 = max(y0 + 1, round(bottom)), max(x0 + 1, round(right))
        at = self._window(y0, y1, x0, x1)
        if at is not None:
            self.paint(np.ones(self.label[at].shape, bool), colour, label, at=at)

    def ellipse(
        self,
        y: float,
        x: float,
        radius_y: float,
        radius_x: float,
        colour: Colour,
        label: int | None,
        *,
        ragged: float = 0.0,
        hole: float = 0.0,
    ) -> None:
        """Paint an ellipse.

        ragged: how far the grain moves the outline; hole: inner radius as a fraction of the outer.
        """
        reach = 1.0 + ragged
        at = self._window(
            int(y - reach * radius_y),
            int(np.ceil(y + reach * radius_y)) + 1,
            int(x - reach * radius_x),
            int(np.ceil(x + reach * radius_x)) + 1,
        )
        if at is None:
            return
        mask = _ellipse(self._rows(at[0]), self._columns(at[1]), y, x, radius_y, radius_x)
        if ragged:
            mask = mask + ragged * self.grain[at]
        inside = (mask <= 1.0) & (mask >= hole * hole) if hole else mask <= 1.0
        self.paint(inside, colour, label, at=at)

    def darken(self, y: float, x: float, radius_y: float, radius_x: float, factor: float) -> None:
        """Darken an ellipse with soft edges, as a shadow does."""
        at = self._window(
            int(y - radius_y), int(y + radius_y) + 2, int(x - radius_x), int(x + radius_x) + 2
        )
        if at is not None:
            rows, columns = self._rows(at[0]), self._columns(at[1])
            inside = np.clip(1.5 - _ellipse(rows, columns, y, x, radius_y, radius_x), 0.0, 1.0)
            self.image[at] *= (1.0 - (1.0 - factor) * inside)[:, :, None]

    def _window(self, y0: int, y1: int, x0: int, x1: int) -> tuple[slice, slice] | None:
        y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1, self.height), min(x1, self.width)
        return (slice(y0, y1), slice(x0, x1)) if y0 < y1 and x0 < x1 else None

    def _rows(self, rows: slice) -> FloatArray:
        return np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5)

    def _columns(self, columns: slice) -> FloatArray:
        return np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] + np.float32(0.5)


def _ellipse(
    rows: FloatArray, columns: FloatArray, y: float, x: float, radius_y: float, radius_x: float
) -> FloatArray:
    """Squared distance to the centre, 1 on the outline."""
    dy, dx = (rows - y) / max(radius_y, 0.5), (columns - x) / max(radius_x, 0.5)
    return np.asarray(dy * dy + dx * dx, np.float32)


def mixed(first: Colour, second: Colour, fraction: float) -> FloatArray:
    """Blend two colours: (1 - fraction) * first + fraction * second."""
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return np.asarray(a + np.float32(fraction) * (b - a), np.float32)


def value_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> FloatArray:
    """Smooth noise (height, width), mean 0, sd about 1: a random grid, enlarged bilinearly."""
    grid = rng.standard_normal((cells + 1, cells + 1), np.float32)
    return np.asarray(1.5 * _bilinear(height, cells) @ grid @ _bilinear(width, cells).T, np.float32)


@lru_cache(maxsize=32)
def _bilinear(length: int, cells: int) -> FloatArray:
    """Interpolation weights (length, cells + 1)."""
    position = (np.arange(length, dtype=np.float32) + 0.5) / length * cells
    nodes = np.arange(cells + 1, dtype=np.float32)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - nodes[None, :]))
