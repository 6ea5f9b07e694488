"""Colours of classes that have none of their own: as different as they can be, none black or white.

Each colour is the one farthest from all before it, and from black, white and grey, in Oklab
(B. Ottosson, 2020), of an even grid of RGB colours that are neither very dark nor very light.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_GRID = 14  # values of each channel
_LIGHTNESS = (0.4, 0.9)  # in Oklab, where black is 0 and white is 1
_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_APART = ((0, 0, 0), (128, 128, 128), (255, 255, 255))


def default_palette(num_classes: int) -> npt.NDArray[np.uint8]:
    """The (C, 3) colours of classes 0 to C - 1; the first ones are the same for every C."""
    return _colours(num_classes).copy()


@lru_cache(maxsize=1)
def _colours(number: int) -> npt.NDArray[np.uint8]:
    steps = np.linspace(0, 255, _GRID).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    places = oklab(grid)
    inside = (places[:, 0] >= _LIGHTNESS[0]) & (places[:, 0] <= _LIGHTNESS[1])
    grid, places = grid[inside], places[inside]
    others = oklab(np.array(_APART, np.uint8))
    nearest = np.linalg.norm(places[:, None] - others, axis=2).min(1)
    chosen = []
    for _ in range(number):
        chosen.append(int(nearest.argmax()))
        distance = np.linalg.norm(places - places[chosen[-1]], axis=1)
        nearest = np.minimum(nearest, distance)
    return grid[chosen]


def oklab(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Lightness, green-red and blue-yellow of sRGB colours (N, 3): equal distances look alike."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ np.array(_TO_LMS).T) @ np.array(_TO_LAB).T)
