"""Objects of a synthetic street, each with a distinct and an ambiguous look.

Sizes are in units of the camera's height above ground at the object's depth (`View.drop`).
`ambiguity` is the fraction of objects that get the ambiguous look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from study.data.synthetic.canvas import VOID, Canvas, FloatArray
from study.data.synthetic.scenery import (
    BICYCLIST,
    CAR,
    FENCE,
    GREY_POLE,
    LEAVES,
    PEDESTRIAN,
    POLE,
    SIGN,
    TREE,
    WALLS,
    View,
)

SKIN = (0.62, 0.47, 0.38)
TYRE = (0.10, 0.10, 0.11)
PLATES = np.array([[0.65, 0.12, 0.12], [0.12, 0.22, 0.6], [0.75, 0.65, 0.15]], np.float32)
BARK = np.array([0.30, 0.21, 0.13], np.float32)


@dataclass(frozen=True)
class Thing:
    """One object before it is drawn: its position and its own random numbers."""

    depth: float
    x: float
    draw: Callable[[Canvas, View, Thing], None]
    ambiguous: bool
    u: FloatArray  # (8,) uniform in 0..1: proportions and colours
    label: int | None


def draw_car(canvas: Canvas, view: View, car: Thing) -> None:
    s, y, u = view.drop(car.depth), view.y(car.depth), car.u
    length, height = s * (1.1 + 1.0 * u[0]), s * (0.75 + 0.2 * u[1])
    paint = np.full(3, 0.15 + 0.6 * u[2], np.float32)
    if not car.ambiguous:  # an ambiguous car is as grey as its surroundings
        paint = paint * 0.5 + 0.6 * (u[3:6] - 0.3)
    left, right = car.x - length / 2, car.x + length / 2
    canvas.darken(y, car.x, 0.18 * s, 0.6 * length, 0.45)
    cabin = (left + 0.16 * length, right - 0.2 * length)
    canvas.rectangle(y - height, y - 0.5 * height, *cabin, paint, car.label)
    glass = (cabin[0] + 0.06 * length, cabin[1] - 0.06 * length)
    canvas.rectangle(y - 0.92 * height, y - 0.58 * height, *glass, (0.2, 0.24, 0.28), car.label)
    canvas.rectangle(y - 0.62 * height, y - 0.15 * height, left, right, paint, car.label)
    for x in (left + 0.2 * length, right - 0.2 * length):
        canvas.ellipse(y - 0.16 * height, x, 0.18 * height, 0.18 * height, TYRE, car.label)


def draw_pedestrian(canvas: Canvas, view: View, person: Thing) -> None:
    s, y, u = view.drop(person.depth), view.y(person.depth), person.u
    height = s * (1.05 + 0.25 * u[0])
    coat = _vivid(u)
    if person.ambiguous:  # clothes in the colour of a wall
        coat = WALLS[int(u[1] * len(WALLS))] * (0.7 + 0.3 * u[2])
    width = height * (0.28 + 0.06 * u[5])
    if person.label is not None:
        canvas.darken(y, person.x, 0.08 * s, 0.25 * s, 0.6)
    legs, x = np.full(3, 0.12 + 0.15 * u[4]), person.x
    canvas.rectangle(y - 0.5 * height, y, x - 0.3 * width, x + 0.3 * width, legs, person.label)
    chest = (y - 0.86 * height, y - 0.45 * height)
    canvas.rectangle(*chest, x - 0.5 * width, x + 0.5 * width, coat, person.label)
    canvas.ellipse(y - 0.92 * height, x, 0.09 * height, 0.08 * height, SKIN, person.label)


def _vivid(u: FloatArray) -> FloatArray:
    """A colour with one strong channel, which no wall has."""
    colour = np.full(3, 0.08 + 0.15 * u[2], np.float32)
    colour[int(u[1] * 3)] = 0.55 + 0.35 * u[3]
    return colour


def draw_bicyclist(canvas: Canvas, view: View, rider: Thing) -> None:
    """Draw a rider from the side, or (ambiguous) from the front: a person above one thin wheel."""
    s, y, u = view.drop(rider.depth), view.y(rider.depth), rider.u
    height, x = s * 1.25, rider.x
    wheel = 0.2 * height
    canvas.darken(y, x, 0.08 * s, 0.4 * s, 0.6)
    if rider.ambiguous:
        canvas.rectangle(y - 2 * wheel, y, x - 0.03 * s, x + 0.03 * s, TYRE, rider.label)
    else:
        for centre in (x - 1.4 * wheel, x + 1.4 * wheel):
            canvas.ellipse(y - wheel, centre, wheel, wheel, TYRE, rider.label, hole=0.55)
        canvas.rectangle(
            y - 1.3 * wheel, y - wheel, x - wheel, x + wheel, 0.3 + 0.4 * u[:3], rider.label
        )
    sides = (x - 0.14 * height, x + 0.14 * height)
    canvas.rectangle(y - 0.74 * height, y - 1.2 * wheel, *sides, _vivid(u), rider.label)
    canvas.ellipse(y - 0.82 * height, x, 0.09 * height, 0.08 * height, SKIN, rider.label)


def draw_pole(canvas: Canvas, view: View, pole: Thing) -> None:
    """Draw a lamp post, or with u[1] < 0.32 the post of a sign."""
    s, y, u = view.drop(pole.depth), view.y(pole.depth), pole.u
    top = y - s * (2.1 + 1.4 * u[0])
    half = max(0.75, 0.09 * s * (0.7 + 0.6 * u[2]))
    grey = GREY_POLE * (0.75 + 0.6 * u[3] if pole.ambiguous else 0.25)
    canvas.rectangle(top, y, pole.x - half, pole.x + half, grey, pole.label)
    if u[1] < 0.32:
        _draw_plate(canvas, pole, top, s)


def draw_plate(canvas: Canvas, view: View, plate: Thing) -> None:
    """Draw a sign without a post, as on a wall."""
    s = view.drop(plate.depth)
    _draw_plate(canvas, plate, view.y(plate.depth) - s * (1.6 + 1.2 * plate.u[0]), s)


def _draw_plate(canvas: Canvas, plate: Thing, y: float, s: float) -> None:
    u, label = plate.u, None if plate.label is None else SIGN
    radius = max(1.5, s * (0.26 + 0.16 * u[4]))
    colour = PLATES[int(u[5] * len(PLATES))]
    if plate.ambiguous:  # seen from behind: as grey as the post
        colour = GREY_POLE * (0.8 + 0.4 * u[6])
    if u[7] < 0.5:
        canvas.ellipse(y, plate.x, radius, radius, colour, label)
        canvas.ellipse(y, plate.x, 0.45 * radius, 0.45 * radius, colour * 0.6 + 0.3, label)
    else:
        sides = (plate.x - 0.8 * radius, plate.x + 0.8 * radius)
        canvas.rectangle(y - 1.1 * radius, y + 1.1 * radius, *sides, colour, label)


def draw_tree(canvas: Canvas, view: View, tree: Thing) -> None:
    """Draw a crown on a trunk; an ambiguous trunk is as thin and grey as a pole."""
    s, y, u = view.drop(tree.depth), view.y(tree.depth), tree.u
    crown = s * (0.8 + 0.9 * u[0])
    top = y - s * (1.5 + 0.7 * u[1])
    half = max(0.5, (0.06 if tree.ambiguous else 0.13) * s)
    bark = GREY_POLE * (0.75 + 0.6 * u[3]) if tree.ambiguous else BARK
    canvas.rectangle(top - 0.5 * crown, y, tree.x - half, tree.x + half, bark, tree.label)
    leaves = LEAVES * (0.7 + 0.6 * u[2])
    canvas.darken(y, tree.x, 0.15 * s, 0.8 * crown, 0.6)
    canvas.ellipse(top - 0.6 * crown, tree.x, crown, 0.9 * crown, leaves, tree.label, ragged=0.35)


def draw_box(canvas: Canvas, view: View, box: Thing) -> None:
    """Draw an unlabelled thing: a bin, kiosk or pram."""
    s, y, u = view.drop(box.depth), view.y(box.depth), box.u
    half = s * (0.12 + 0.25 * u[0])
    sides = (box.x - half, box.x + half)
    canvas.rectangle(y - s * (0.25 + 0.8 * u[1]), y, *sides, u[2:5] * 0.8, VOID)


def draw_pipe(canvas: Canvas, view: View, pipe: Thing) -> None:
    """Draw a grey stripe on a wall, which differs from a pole only in its class."""
    s, y, u = view.drop(pipe.depth), view.y(pipe.depth), pipe.u
    half = max(0.75, 0.09 * s)
    colour = GREY_POLE * (0.75 + 0.6 * u[3])
    canvas.rectangle(y - s * (1.5 + 2 * u[0]), y, pipe.x - half, pipe.x + half, colour, None)


def draw_fence(canvas: Canvas, view: View, rng: np.random.Generator, ambiguity: float) -> None:
    """Draw a lattice along one outer pavement edge, between two depths."""
    side, near, stretch = rng.integers(2), rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.6)
    rise, pitch, bars = rng.uniform(0.45, 0.75), rng.uniform(7, 11), rng.uniform(0.35, 0.5)
    wall, green, u = WALLS[rng.integers(len(WALLS))], rng.uniform(0.0, 0.12), rng.random()
    rows = np.arange(canvas.height, dtype=np.float32)[:, None] + np.float32(0.5)
    columns = np.arange(canvas.width, dtype=np.float32)[None, :] + np.float32(0.5)
    t = (columns - view.centre) / (0.985 * (view.kerb[side] - view.centre))
    drop = t * (view.height - view.horizon)
    mask = (t > near * stretch) & (t < near)
    mask = mask & (rows <= view.horizon + drop) & (rows >= view.horizon + (1 - rise) * drop)
    gaps = (pitch / np.maximum(t, 0.02)) % 1.0 > bars
    colour = wall * 0.9 if u < ambiguity else np.array([0.16, 0.22 + green, 0.24], np.float32)
    shade = np.where(gaps, np.float32(1.25), np.float32(0.75))
    surface = np.broadcast_to((colour * shade[:, :, None]), canvas.image.shape)
    canvas.paint(mask, surface.astype(np.float32), FENCE)


LABELS: dict[Callable[[Canvas, View, Thing], None], int | None] = {
    draw_car: CAR,
    draw_pedestrian: PEDESTRIAN,
    draw_bicyclist: BICYCLIST,
    draw_pole: POLE,
    draw_tree: TREE,
    draw_box: VOID,
    draw_plate: None,
    draw_pipe: None,
}
