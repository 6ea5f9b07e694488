"""Warns of labels that look unrelated to their images, as where the pairs are mixed up.

For image i and label j of a split let T_ij be the fraction of the variance within image i, of its
colours and of the strength of its edges by direction, that the classes of label j explain. With d
the matrix T less its row and column means, the pairs as they are compare to all others by

    z = sum_i d_ii / sqrt(sum_ij d_ij^2 / (N - 1)),

which has mean 0 and variance 1 over random pairings (Hoeffding 1951, "A Combinatorial Central Limit
Theorem"). What all images have in common, such as a sky above a road, is in the means and does not
count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from study.data.splits import SegmentationData, Split, UInt8Array

UNRELATED = 4.0  # z below which labels look unrelated
FEWEST, MOST_IMAGES = 20, 50
ALIKE = 0.8  # agreement (Cohen's kappa) of labels from which they are too alike to tell
_GRID = 32  # cells along each side
_FINE = 256  # rows and columns of a label that are enough
FloatArray = npt.NDArray[np.float64]


def pairing_warnings(data: SegmentationData) -> list[str]:
    """Warn of splits whose labels fit their own images no better than others."""
    found = {name: relation(split, data.num_classes) for name, split in data.splits.items()}
    told = [f"{name} (z = {z:.1f})" for name, z in found.items() if z is not None and z < UNRELATED]
    if not told:
        return []
    return [
        "labels look unrelated to their images, as if pairs were mixed up: they explain colours "
        f"and edges of their own image no better than of others: {', '.join(told)}"
    ]


def relation(split: Split, num_classes: int) -> float | None:
    """How well labels fit their own images, z; None where it cannot be told."""
    places = np.linspace(0, len(split) - 1, MOST_IMAGES).round().astype(int)
    chosen = [i for i in np.unique(places).tolist() if (split.class_counts[i] > 0).sum() > 1]
    if len(chosen) < FEWEST:
        return None
    labels = np.stack([_fractions(split.labels[i], num_classes) for i in chosen])
    if _agreement(labels) > ALIKE:
        return None
    images = np.stack([_features(split.images[i]) for i in chosen])
    explained = np.stack([_explained(images, label) for label in labels], 1)
    d = explained - explained.mean(0) - explained.mean(1, keepdims=True) + explained.mean()
    sd = np.sqrt((d**2).sum() / (len(chosen) - 1))
    return float(np.trace(d) / sd) if sd > 0 else None


def _cells(values: FloatArray | npt.NDArray[np.float32]) -> FloatArray:
    """The means of the cells of a grid over an image (H, W), (cells,)."""
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((_GRID, _GRID), Image.Resampling.BOX), float).ravel()


def _fractions(label: UInt8Array, num_classes: int) -> FloatArray:
    """The fraction of each class in each cell, (C, cells)."""
    step = max(1, min(label.shape) // _FINE)
    label = label[::step, ::step]
    return np.stack([_cells((label == index).astype(float)) for index in range(num_classes)])


def _agreement(labels: FloatArray) -> float:
    """Cohen's kappa between different labels (N, C, cells), the mean over all pairs."""
    number, area = len(labels), labels.sum((1, 2)).mean()
    flat = labels.reshape(number, -1)
    same = flat @ flat.T
    observed = (same.sum() - np.trace(same)) / (number * (number - 1)) / area
    by_chance = float(((labels.sum((0, 2)) / labels.sum()) ** 2).sum())
    return float((observed - by_chance) / (1 - by_chance))


def _features(image: UInt8Array) -> FloatArray:
    """Colours and the strength of edges in four directions, (F, cells)."""
    grey = image.astype(float).mean(2)
    down, right = np.gradient(grey) if min(grey.shape) > 1 else np.zeros((2, *grey.shape))
    edges = (down**2, right**2, (down + right) ** 2, (down - right) ** 2)
    colours = [_cells(channel.astype(float)) for channel in np.moveaxis(image, 2, 0)]
    return np.stack([*colours, *(np.log1p(_cells(edge)) for edge in edges)])


def _explained(images: FloatArray, label: FloatArray) -> FloatArray:
    """The fraction of the variance of each image's features (N, F, cells) that the classes of one
    label (C, cells) explain, the mean over the features, (N,)."""
    label = label[label.sum(1) > 0]
    weights = label.sum(1)
    labelled, total = label.sum(0), weights.sum()
    mean = images @ labelled / total
    variance = images**2 @ labelled / total - mean**2
    within_classes = images @ label.T / weights
    between = within_classes**2 @ weights / total - mean**2
    return np.asarray((between / np.maximum(variance, 1e-9)).mean(1))
