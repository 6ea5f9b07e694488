"""The fixed part of a synthetic scene: camera geometry, sky, walls and ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.data.synthetic.canvas import Canvas, FloatArray, mixed, value_noise

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

WALLS = np.array(
    [[0.55, 0.38, 0.30], [0.62, 0.56, 0.46], [0.48, 0.47, 0.47], [0.40, 0.33, 0.29]], np.float32
)
ASPHALT = np.array([0.36, 0.36, 0.37], np.float32)
PAVING = np.array([0.53, 0.49, 0.46], np.float32)
LEAVES = np.array([0.22, 0.34, 0.15], np.float32)
GREY_POLE = np.array([0.42, 0.42, 0.43], np.float32)


@dataclass(frozen=True)
class View:
    """A level camera above a straight street.

    Depth is the fraction t in 0..1 of the way from horizon to lower edge. A thing at depth t is
    drawn at a scale of `drop(t)` pixels, the camera's height at that depth. All street lines meet
    at the vanishing point (horizon, centre).
    """

    height: int
    width: int
    horizon: float
    centre: float
    road: tuple[float, float]  # x of the left and right road edge at t = 1
    kerb: tuple[float, float]  # x of the outer pavement edges at t = 1
    light_from_left: bool

    @staticmethod
    def draw(rng: np.random.Generator, height: int, width: int) -> View:
        centre = width * rng.uniform(0.36, 0.64)
        half = width * rng.uniform(0.7, 1.05, 2)
        outer = half * rng.uniform(1.22, 1.6, 2)
        return View(
            height=height,
            width=width,
            horizon=height * rng.uniform(0.35, 0.45),
            centre=centre,
            road=(centre - half[0], centre + half[1]),
            kerb=(centre - outer[0], centre + outer[1]),
            light_from_left=bool(rng.random() < 0.5),
        )

    def y(self, t: float) -> float:
        return self.horizon + self.drop(t)

    def drop(self, t: float) -> float:
        return t * (self.height - self.horizon)

    def x(self, t: float, at_bottom: float) -> float:
        """The x at depth t of the street line that meets the lower edge at `at_bottom`."""
        return self.centre + (at_bottom - self.centre) * t


def paint_scenery(canvas: Canvas, view: View, rng: np.random.Generator, ambiguity: float) -> None:
    """Paint sky, far skyline, side walls, grass, pavement, and road with marks and shadows."""
    rows = np.arange(canvas.height, dtype=np.float32)[:, None] + np.float32(0.5)
    columns = np.arange(canvas.width, dtype=np.float32)[None, :] + np.float32(0.5)
    _sky(canvas, view, rng, rows)
    _skyline(canvas, view, rng, rows)
    _ground(canvas, view, rng, rows, columns, ambiguity)
    for side in (0, 1):
        _walls(canvas, view, rng, rows, columns, side)


def _sky(canvas: Canvas, view: View, rng: np.random.Generator, rows: FloatArray) -> None:
    zenith = mixed([0.32, 0.50, 0.80], [0.72, 0.74, 0.76], rng.random())
    haze = np.array([0.86, 0.88, 0.90], np.float32)
    down = np.clip(rows / view.horizon, 0, 1)[:, :, None]
    cloud = value_noise(rng, canvas.height, canvas.width, 5)[:, :, None] * rng.uniform(0.0, 0.07)
    everywhere = np.ones(canvas.label.shape, bool)
    canvas.paint(everywhere, zenith + (haze - zenith) * down + cloud, SKY, texture=0.0)


def _skyline(canvas: Canvas, view: View, rng: np.random.Generator, rows: FloatArray) -> None:
    """Paint far houses and far trees on the horizon."""
    tops = rng.uniform(0.01, 0.16, 10).repeat(-(-canvas.width // 10))[: canvas.width]
    top = view.horizon - canvas.height * tops.astype(np.float32)
    colour = mixed(WALLS[rng.integers(len(WALLS))], [0.7, 0.72, 0.75], 0.4)
    canvas.paint((rows >= top[None, :]) & (rows <= view.horizon + 1), colour, BUILDING)
    for x, size in zip(rng.uniform(0, canvas.width, 3), rng.uniform(0.03, 0.1, 3), strict=True):
        radius = size * canvas.height
        leaves = mixed(LEAVES, [0.5, 0.55, 0.5], 0.3)
        y = view.horizon - 0.5 * radius
        canvas.ellipse(y, x, radius, 1.3 * radius, leaves, TREE, ragged=0.3)


def _ground(
    canvas: Canvas,
    view: View,
    rng: np.random.Generator,
    rows: FloatArray,
    columns: FloatArray,
    ambiguity: float,
) -> None:
    t = (rows - view.horizon) / (view.height - view.horizon)
    below = t > 0
    bottom = view.centre + (columns - view.centre) / np.maximum(t, 1e-3)  # x at the lower edge

    asphalt = ASPHALT + np.float32(rng.uniform(-0.07, 0.07))
    # the kerb is a step of grey, which shrinks as ambiguity grows
    step = rng.uniform(0.6, 1.4) * (1.0 - 0.85 * ambiguity)
    paving = asphalt + (PAVING - ASPHALT) * np.float32(step)
    grass = rng.random() < 0.25
    side = mixed(LEAVES, [0.35, 0.38, 0.2], rng.random()) if grass else paving
    canvas.paint(below & np.ones_like(bottom, bool), side, TREE if grass else PAVEMENT, texture=0.1)
    canvas.paint(below & (bottom > view.kerb[0]) & (bottom < view.kerb[1]), paving, PAVEMENT)
    road = below & (bottom > view.road[0]) & (bottom < view.road[1])
    canvas.paint(road, asphalt, ROAD, texture=0.07)

    middle = view.centre + rng.uniform(-0.1, 0.1) * view.width
    depth = 1.0 / np.maximum(t, 1e-3)
    dashes = (depth * 2.0 + rng.random()) % 1.0 < 0.5
    if rng.random() < 0.7:
        marks = road & dashes & (np.abs(bottom - middle) < 0.025 * view.width)
        canvas.paint(marks, [0.75, 0.75, 0.72], ROAD)
    for _ in range(rng.integers(0, 3)):  # shadows of things outside the picture
        y, x = view.y(rng.uniform(0.2, 1.0)), rng.uniform(0, view.width)
        canvas.darken(y, x, 0.07 * view.height, rng.uniform(0.2, 0.5) * view.width, 0.6)


def _walls(
    canvas: Canvas,
    view: View,
    rng: np.random.Generator,
    rows: FloatArray,
    columns: FloatArray,
    side: int,
) -> None:
    """Paint a row of houses along the outer pavement edge, with a lattice of windows."""
    t = (columns - view.centre) / (view.kerb[side] - view.centre)  # depth of the wall, per column
    seen = t > 0.07
    depth = 1.0 / np.maximum(t, 0.07)
    number = np.minimum((np.log2(depth) * 2.2 + rng.random()).astype(int), 11).clip(0)
    heights = rng.uniform(1.2, 4.2, 12).astype(np.float32)
    heights[rng.random(12) < 0.15] = 0.0  # gaps, where the background shows
    colours = WALLS[rng.integers(len(WALLS), size=12)] + rng.uniform(-0.08, 0.08, (12, 1))
    lit = 1.1 if view.light_from_left == (side == 1) else 0.8
    drop = t * (view.height - view.horizon)
    wall = seen & (rows <= view.horizon + drop) & (rows >= view.horizon - heights[number] * drop)
    wall &= heights[number] > 0
    across = (depth * rng.uniform(3.0, 5.0)) % 1.0
    up = ((rows - view.horizon) / np.maximum(drop, 1e-3) * rng.uniform(1.2, 1.8)) % 1.0
    window = (across > 0.35) & (across < 0.8) & (up > 0.3) & (up < 0.75)
    shade = np.where(window, np.float32(rng.uniform(0.65, 0.9)), np.float32(1.0)) * np.float32(lit)
    canvas.paint(wall, (colours[number] * shade[:, :, None]).astype(np.float32), BUILDING)
