"""The generated street scenes: a pure function of seed, split, index and knobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from study.config.task import SyntheticData
from study.data.synthetic.scenery import (
    BICYCLIST,
    BUILDING,
    FENCE,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIGN,
    TREE,
)
from study.data.synthetic.source import CLASS_NAMES, PALETTE, draw_scene, synthetic_source

NUM = 40
RARE = [POLE, SIGN, FENCE, PEDESTRIAN, BICYCLIST]


def config(**changes: Any) -> SyntheticData:
    given = {"format": "synthetic", "size": [64, 80], "num_train": NUM, "num_val": 2, "num_test": 2}
    return SyntheticData.model_validate(given | changes)


def draw(num: int = NUM, split: str = "train", **changes: Any) -> tuple[np.ndarray, np.ndarray]:
    scenes = [draw_scene(config(**changes), split, index) for index in range(num)]
    images, labels = zip(*scenes, strict=True)
    return np.stack(images).astype(float), np.stack(labels)


@pytest.fixture(scope="module")
def default() -> tuple[np.ndarray, np.ndarray]:
    return draw()


def shares(labels: np.ndarray) -> np.ndarray:
    counts = np.bincount(labels.ravel(), minlength=256)[: len(CLASS_NAMES)]
    return counts / counts.sum()


def test_a_scene_does_not_depend_on_what_else_is_drawn(default):
    image, label = draw_scene(config(num_train=7, num_val=1, num_test=9), "train", 5)
    assert np.array_equal(image, default[0][5])
    assert np.array_equal(label, default[1][5])


def test_splits_indices_and_seeds_give_different_scenes(default):
    labels = [default[1][0], default[1][1], draw(1, "val")[1][0], draw(1, seed=1)[1][0]]
    roads = [label == ROAD for label in labels]
    for i, first in enumerate(roads):
        assert all((first != second).mean() > 0.03 for second in roads[i + 1 :])


@pytest.mark.slow
def test_rare_classes_come_evenly_along_a_split():
    shown = np.flatnonzero((draw(150)[1] == BICYCLIST).any((1, 2)))
    assert np.diff(shown, prepend=-1, append=150).max() <= 15


@pytest.mark.slow
def test_class_shares_run_from_40_percent_down_to_a_tenth_of_a_percent():
    labels = draw(150)[1]
    share = shares(labels)
    assert 0.35 < share.max() < 0.45
    assert 0.0005 < share.min() < 0.0015
    assert (share[RARE] < 0.015).all()
    assert (labels == 255).any()


@pytest.mark.parametrize("split", ["train", "val"])
def test_even_24_images_show_every_class(split):
    assert (shares(draw(24, split)[1]) > 0).all()


def test_ambiguity_changes_looks_and_no_label_but_trunks_and_bicyclists(default):
    labels = draw(ambiguity=1.0)[1]
    moved = labels != default[1]
    thinner = np.isin(labels, [TREE, BICYCLIST]) | np.isin(default[1], [TREE, BICYCLIST])
    assert thinner[moved].all()


@pytest.mark.slow
def test_ambiguity_hangs_posters_and_pipes_on_walls():
    (plain, labels), (images, _) = draw(noise=0.0, ambiguity=0.0), draw(noise=0.0, ambiguity=1.0)
    strange = np.abs(images - plain).max(-1) > 60
    assert strange[labels == BUILDING].mean() > 0.002


@pytest.mark.slow
def test_ambiguity_makes_rare_things_harder_to_tell_from_walls_by_colour():
    def overlap(ambiguity: float) -> float:
        """Area that the saturation histograms of persons and of walls have in common."""
        images, labels = draw(60, ambiguity=ambiguity, noise=0.0)
        spread = images.max(-1) - images.min(-1)
        walls, persons = (
            np.histogram(spread[labels == index], bins=16, range=(0, 255))[0]
            for index in (BUILDING, PEDESTRIAN)
        )
        return float(np.minimum(walls / walls.sum(), persons / persons.sum()).sum())

    assert overlap(1.0) > overlap(0.0) + 0.1


@pytest.mark.slow
def test_noise_changes_no_label_and_is_as_strong_as_stated(default):
    clean, labels = draw(noise=0.0)
    assert np.array_equal(labels, default[1])
    for noise in (0.02, 0.05):
        middle = (clean > 64) & (clean < 192)  # where nothing is clipped
        error = (draw(noise=noise)[0] - clean)[middle] / 255
        assert 0.4 * noise < error.std() < noise


def test_rarity_thins_out_rare_classes_and_leaves_the_street(default):
    labels = draw(rarity=4.0)[1]
    rare = np.isin(labels, RARE).mean() / np.isin(default[1], RARE).mean()
    assert 0.05 < rare < 0.5
    sky = (default[1] == 0) & ~np.isin(default[1], RARE)
    assert (labels[sky] == 0).mean() > 0.999


@pytest.mark.parametrize("size", [(8, 8), (33, 17), (90, 120)])
def test_every_size_is_drawn(size):
    image, label = draw_scene(config(size=size), "test", 3)
    assert image.shape == (*size, 3)
    assert label.shape == size
    assert image.dtype == label.dtype == np.uint8


@pytest.mark.slow
def test_objects_keep_their_share_when_the_picture_grows():
    small, large = shares(draw(24, size=[64, 80])[1]), shares(draw(24, size=[128, 160])[1])
    assert np.abs(small - large).max() < 0.03


def test_the_source_describes_what_it_draws():
    source = synthetic_source(config())
    assert [len(split.names) for split in source.splits.values()] == [NUM, 2, 2]
    assert len(source.palette) == len(PALETTE) == len(CLASS_NAMES) == 11
    image, label, _ = source.splits["val"].read(1)
    expected = draw_scene(config(), "val", 1)
    assert np.array_equal(image, expected[0])
    assert np.array_equal(label, expected[1])
