"""Draws the synthetic street scenes from (seed, split, index) and three knobs.

There are eleven classes as in CamVid, void 255. Rare objects are thin and small, and look like
frequent classes: an ambiguous fraction of the trunks, pedestrians, signs, bicyclists and fences
cannot be told from poles, walls and persons, and walls carry posters and pipes. Where the evidence
is ambiguous, cross entropy predicts the frequent class and a reweighted loss the rare one, which is
the trade-off that a study of losses measures.

An image depends on (seed, split, index) and the knobs alone, never on the number of images:
  ambiguity  fraction of look-alikes, 0..1; among the labels it moves only the outlines of tree
             trunks and bicyclists, which are thinner where they are ambiguous
  noise      largest sd of the sensor noise on a scale of 0..1; labels do not depend on it
  rarity     divides the rates of poles, signs, pedestrians, bicyclists and fences
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from study.config.task import SyntheticData
from study.core.names import TEST, TRAIN, VAL
from study.data.objects import Measured, find_objects
from study.data.splits import Decoded, Source, SplitSource, count_classes
from study.data.synthetic import objects
from study.data.synthetic.canvas import Canvas, FloatArray, value_noise
from study.data.synthetic.objects import LABELS, Thing
from study.data.synthetic.scenery import BUILDING, View, paint_scenery

CLASS_NAMES = (
    "Sky",
    "Building",
    "Pole",
    "Road",
    "Pavement",
    "Tree",
    "SignSymbol",
    "Fence",
    "Car",
    "Pedestrian",
    "Bicyclist",
)
PALETTE = (  # CamVid's
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)
MEAN, STD = (0.43, 0.42, 0.42), (0.19, 0.18, 0.20)  # of the default train split
_SPLITS = {TRAIN: 0, VAL: 1, TEST: 2}

Draw = Callable[[Canvas, View, Thing], None]
Kinds = tuple[tuple[Draw, float], ...]

# mean objects per image; the second group is divided by rarity
_COMMON: Kinds = ((objects.draw_car, 1.5), (objects.draw_tree, 1.2), (objects.draw_box, 0.6))
_RARE: Kinds = (
    (objects.draw_pole, 1.1),
    (objects.draw_pedestrian, 0.8),
    (objects.draw_bicyclist, 0.15),
)
_FENCES = 0.3
_IRRATIONAL = np.sqrt([2.0, 3.0, 5.0, 7.0])  # for fences, then for each of _RARE
_DECOYS: Kinds = (
    (objects.draw_pedestrian, 1.0),
    (objects.draw_plate, 1.0),
    (objects.draw_pipe, 1.2),
)


# range of positions across the street: 0 outer pavement edge, 1 kerb, above 1 on the road
_POSITIONS: dict[Draw, tuple[float, float]] = {
    objects.draw_car: (1.0, 3.2),
    objects.draw_pedestrian: (-0.1, 1.4),
    objects.draw_bicyclist: (0.7, 2.0),
    objects.draw_pole: (0.5, 1.0),
    objects.draw_tree: (-0.1, 0.9),
    objects.draw_box: (0.1, 0.9),
}


def synthetic_source(config: SyntheticData) -> Source:
    """Return the three splits, whose images are drawn on request."""

    def split(name: str, count: int) -> SplitSource:
        return SplitSource(
            names=tuple(f"{name}_{index:05d}" for index in range(count)),
            groups=np.arange(count),
            read=lambda index: scene(name, index),
        )

    def scene(name: str, index: int) -> Decoded:
        image, label = draw_scene(config, name, index)
        objects = find_objects(label, len(CLASS_NAMES)) if name == TRAIN else None
        return Decoded(image, label, Measured(count_classes(label, len(CLASS_NAMES)), objects))

    return Source(
        name="synthetic",
        class_names=CLASS_NAMES,
        palette=np.array(PALETTE, np.uint8),
        ignore_index=255,
        mean=MEAN,
        std=STD,
        size=config.size,
        key=config.model_dump(mode="json"),
        splits={
            TRAIN: split(TRAIN, config.num_train),
            VAL: split(VAL, config.num_val),
            TEST: split(TEST, config.num_test),
        },
    )


def draw_scene(config: SyntheticData, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image (H, W, 3) uint8 and its labels (H, W) uint8, in 0..10 or 255."""

    def stream(purpose: int) -> np.random.Generator:
        # one stream per purpose, so that a knob changes nothing but what it names
        return np.random.default_rng([config.seed, _SPLITS[split], index, purpose])

    height, width = config.size
    layout, common, rare, decoys, camera = (stream(purpose) for purpose in range(5))
    fine = value_noise(layout, height, width, max(2, min(height, width) // 3))
    canvas = Canvas(height, width, 0.6 * fine + 0.6 * value_noise(layout, height, width, 7))
    view = View.draw(layout, height, width)
    paint_scenery(canvas, view, layout, config.ambiguity)
    _paint_decoys(canvas, view, decoys, config.ambiguity)
    offsets = np.random.default_rng([config.seed, _SPLITS[split]]).random(1 + len(_RARE))
    if _spread(index, 0, offsets) < _FENCES / config.rarity:
        objects.draw_fence(canvas, view, rare, config.ambiguity)
    things: list[Thing] = []
    for draw, rate in _COMMON:
        things += _things(view, common, draw, common.poisson(rate), config.ambiguity)
    for kind, (draw, rate) in enumerate(_RARE, start=1):
        count = _poisson_quantile(rate / config.rarity, _spread(index, kind, offsets))
        things += _things(view, rare, draw, count, config.ambiguity)
    for thing in sorted(things, key=lambda thing: thing.depth):
        thing.draw(canvas, view, thing)
    return _expose(canvas, view, camera, config.noise), canvas.label


def _spread(index: int, kind: int, offsets: np.ndarray) -> float:
    """A number in 0..1, even over any run of images (a Kronecker sequence): independent draws could
    leave a small split without a rare class."""
    return float((index * _IRRATIONAL[kind] + offsets[kind]) % 1.0)


def _poisson_quantile(rate: float, u: float) -> int:
    count, probability = 0, math.exp(-rate)
    below = probability
    while u > below and count < 100:
        count += 1
        probability *= rate / count
        below += probability
    return count


def _things(
    view: View, rng: np.random.Generator, draw: Draw, count: int, ambiguity: float
) -> list[Thing]:
    things = []
    for _ in range(count):
        depth = 0.16 + 0.6 * rng.random() ** 2  # most are far and small
        side = int(rng.integers(2))
        road, kerb = view.x(depth, view.road[side]), view.x(depth, view.kerb[side])
        x = kerb + rng.uniform(*_POSITIONS[draw]) * (road - kerb)
        ambiguous, u = bool(rng.random() < ambiguity), rng.random(8, np.float32)
        things.append(Thing(depth, x, draw, ambiguous, u, LABELS[draw]))
    return things


def _paint_decoys(canvas: Canvas, view: View, rng: np.random.Generator, ambiguity: float) -> None:
    """Paint posters of persons and signs, and drain pipes, on walls; they keep the wall's class."""
    before, walls = canvas.image.copy(), canvas.label == BUILDING
    for draw, rate in _DECOYS:
        for _ in range(rng.poisson(rate * ambiguity)):
            depth, side = rng.uniform(0.15, 0.8), int(rng.integers(2))
            x = view.x(depth, view.kerb[side])
            u = rng.random(8, np.float32)
            draw(canvas, view, Thing(depth, x, draw, bool(rng.random() < 0.5), u, None))
    canvas.image[~walls] = before[~walls]


def _expose(canvas: Canvas, view: View, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Simulate fog, lens and sensor: distance haze, vignetting, cast, gain, gamma, blur, noise."""
    image = canvas.image
    rows = np.arange(view.height, dtype=np.float32)[:, None, None] + np.float32(0.5)
    columns = np.arange(view.width, dtype=np.float32)[None, :, None] + np.float32(0.5)
    near = np.clip((rows - view.horizon) / (view.height - view.horizon), 0, 1)
    image += (0.8 - image) * np.float32(rng.uniform(0.0, 0.35)) * (1 - near) ** 3
    far = ((rows / view.height - 0.5) ** 2 + (columns / view.width - 0.5) ** 2) * 2
    image *= 1 - np.float32(rng.uniform(0.0, 0.35)) * far
    gain = np.exp(rng.normal(0, 0.15)) * (1 + rng.normal(0, 0.03, 3))
    image = np.clip(image * gain.astype(np.float32), 0, 1) ** np.float32(rng.uniform(0.8, 1.25))
    image = _blurred(image, np.float32(rng.uniform(0.05, 0.22)))
    sd = np.float32(noise * rng.uniform(0.4, 1.0))
    image = image + sd * rng.standard_normal(image.shape, np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _blurred(image: FloatArray, weight: np.float32) -> FloatArray:
    """Blur both axes: each pixel gives the fraction `weight` to either neighbour."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    padded = (1 - 2 * weight) * padded[1:-1] + weight * (padded[:-2] + padded[2:])
    return (1 - 2 * weight) * padded[:, 1:-1] + weight * (padded[:, :-2] + padded[:, 2:])
