"""Objects of labels: found, measured, and counted after resizing, against plain ways to do it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from study.data.objects import FACTORS, ObjectCounter, Survey, Surveyor, find_objects
from study.data.objects import Measured as Label

AROUND = np.ones((3, 3))


def noise(shape: tuple[int, int], num_classes: int, seed: int) -> np.ndarray:
    """Labels of every pixel by itself, some of them ignored."""
    values = np.random.default_rng(seed).integers(0, num_classes + 1, shape).astype(np.uint8)
    return np.where(values == num_classes, np.uint8(255), values)


def resized(label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))


@pytest.mark.parametrize("num_classes", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5), (30, 41)])
def test_objects_are_the_components_of_eight_neighbours(shape, num_classes):
    for seed in range(10):
        label = noise(shape, num_classes, seed)
        found = find_objects(label, num_classes)
        for index in range(num_classes):
            components, count = ndimage.label(label == index, AROUND)
            assert (found.classes == index).sum() == count
            boxes = ndimage.find_objects(components)
            sides = sorted(min(one.stop - one.start for one in box) for box in boxes)
            assert sorted(found.sides[0][found.classes == index]) == sides
            areas = sorted(np.bincount(components.ravel())[1:])
            assert sorted(found.areas[found.classes == index]) == areas


@pytest.mark.parametrize("size", [(7, 9), (12, 8), (40, 12), (31, 43)])
def test_an_object_survives_where_resizing_keeps_a_pixel_of_it(size):
    label = noise((37, 50), 3, seed=1)

    def shown(factor: float) -> tuple[int, int]:
        return round(factor * size[0]), round(factor * size[1])

    found = find_objects(label, 3, shown)
    for index in range(3):
        components, count = ndimage.label(label == index, AROUND)
        for place, factor in enumerate(FACTORS):
            left = np.unique(resized(components.astype(np.int32), shown(factor)))
            assert found.kept[place][found.classes == index].sum() == np.sum(left > 0), count


def drawn(*squares: tuple[int, int, int]) -> np.ndarray:
    """A label of 64x64 with squares of class 1: row, column, side."""
    label = np.zeros((64, 64), np.uint8)
    for row, column, side in squares:
        label[row : row + side, column : column + side] = 1
    return label


def test_known_objects_have_their_numbers_sides_and_sufficient_size():
    counter = ObjectCounter(3)
    squares = [(4 + 16 * row, 5 + 16 * column, 3) for row in range(4) for column in range(4)]
    for _ in range(5):
        label = drawn(*squares, (30, 60, 1))
        counter.add(find_objects(label, 3, lambda factor: (round(8 * factor), round(8 * factor))))
    found = counter.result()
    assert found.count.tolist() == [5, 85, 0]
    assert found.side[:2].tolist() == [64, 3]
    assert found.low_side[1] == 1
    assert found.task_side[:2].tolist() == [8, 0.375]
    assert found.pixel_side[:2].tolist() == [8, 0.375]
    assert np.isnan(found.side[2])
    assert found.kept[0].tolist() == [5, 0, 0]  # 8x8 samples at 4, 12, 20, ...: beside all squares
    assert found.factor(0) == 1
    assert found.factor(1) == 8  # one in 17 is a pixel, which only the whole size surely keeps


def test_the_size_that_keeps_95_percent_is_the_first_from_which_on_all_do():
    squares = [(4 + 7 * row, 5 + 9 * column, 3) for row in range(8) for column in range(6)]
    label = drawn(*squares)
    counter = ObjectCounter(2)
    counter.add(find_objects(label, 2, lambda factor: (round(8 * factor), round(8 * factor))))
    components, count = ndimage.label(label, AROUND)

    def share(factor: float) -> float:
        left = np.unique(resized(components.astype(np.int32), (round(8 * factor),) * 2))
        return float((left > 0).sum() / count)

    chosen = counter.result().factor(1)
    assert chosen is not None
    assert 8 * chosen < 64
    assert all(share(factor) >= 0.95 for factor in FACTORS if factor >= chosen)
    assert share(max(factor for factor in FACTORS if factor < chosen)) < 0.95


def test_specks_do_not_hide_the_size_of_what_most_pixels_are_in():
    counter = ObjectCounter(2)
    counter.add(find_objects(drawn((2, 2, 20), *((40 + 2 * n, 50, 1) for n in range(9))), 2))
    found = counter.result()
    assert (found.side[1], found.pixel_side[1]) == (1, 20)


def test_an_object_too_fine_for_every_size_that_is_tried_has_none():
    label = np.zeros((4096, 8), np.uint8)
    label[1, 3] = 1
    counter = ObjectCounter(2)
    counter.add(find_objects(label, 2, lambda factor: (round(8 * factor), 8)))
    assert counter.result().factor(1) is None


def test_a_survey_is_the_same_after_it_was_written():
    surveyor = Surveyor(2, of_files=True)
    for split in ("train", "val", "test"):
        objects = find_objects(drawn((3, 3, 5)), 2) if split == "train" else None
        surveyor.add(split, Label(np.array([4071, 25]), objects))
    found = surveyor.result()
    again = Survey.from_json(found.as_json())
    assert again.as_json() == found.as_json()
    assert found.images["val"].tolist() == [1, 1]
