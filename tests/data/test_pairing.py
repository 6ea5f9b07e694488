"""Labels that do not belong to their images are told from those that do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from file_trees import HEIGHT, WIDTH

from study.config.task import SyntheticData
from study.data import SegmentationData, data_warnings, open_data
from study.data.pairing import UNRELATED, relation

FORTY = SyntheticData(format="synthetic", size=(32, 48), num_train=40, num_val=20, num_test=4)


def mixed_up(data: SegmentationData, split: str, seed: int = 0) -> SegmentationData:
    """The same with the labels of a split in another order."""
    part = data.splits[split]
    order = np.random.default_rng(seed).permutation(len(part))
    wrong = replace(part, labels=part.labels[order], class_counts=part.class_counts[order])
    parts = {**data.splits, split: wrong}
    return replace(data, train=parts["train"], val=parts["val"], test=parts["test"])


def pairing(data: SegmentationData) -> list[str]:
    return [one for one in data_warnings(data) if "look unrelated" in one]


def test_pairs_that_are_mixed_up_are_warned_of_by_split():
    data = open_data(FORTY)
    assert pairing(data) == []
    for split in ("train", "val"):
        (told,) = pairing(mixed_up(data, split))
        assert told.rpartition(": ")[2].startswith(f"{split} (z = ")


def test_related_labels_are_far_from_the_threshold_and_mixed_up_ones_below_it():
    data = open_data(FORTY)
    found = relation(data.train, data.num_classes)
    assert found is not None
    assert found > 2 * UNRELATED
    wrong = [relation(mixed_up(data, "train", seed).train, data.num_classes) for seed in range(9)]
    values = np.array(wrong, float)
    assert np.median(np.abs(values)) < 2
    assert values.max() < UNRELATED


def drawn(labels: np.ndarray, images: np.ndarray) -> SegmentationData:
    parts = [(images[start::3], labels[start::3]) for start in range(3)]
    return SegmentationData.from_arrays(
        "drawn", ["a", "b"], train=parts[0], val=parts[1], test=parts[2]
    )


def test_classes_of_one_colour_are_told_by_the_direction_of_their_texture():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :64]
    edge = rng.integers(10, 54, 90)
    labels = (columns > edge[:, None, None]).astype(np.uint8) ^ rng.integers(
        0, 2, (90, 1, 1), np.uint8
    )
    phase = rng.uniform(0, 6, (90, 1, 1))
    stripes = np.where(labels == 0, np.sin(rows / 2 + phase), np.sin(columns / 2 + phase))
    grey = 128 + 60 * stripes + rng.normal(0, 15, stripes.shape)
    images = np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 3)
    data = drawn(labels, images)
    assert pairing(data) == []
    assert len(pairing(mixed_up(data, "train"))) == 1


@pytest.mark.parametrize("differ", [0, 1])
def test_labels_that_are_all_alike_tell_nothing(differ):
    rng = np.random.default_rng(0)
    labels = np.zeros((90, HEIGHT, WIDTH), np.uint8)
    labels[:, :, 8:] = 1
    labels[np.arange(90), rng.integers(0, HEIGHT, 90), 7] = differ
    images = rng.integers(0, 256, (90, HEIGHT, WIDTH, 3), np.uint8)
    assert pairing(drawn(labels, images)) == []


def test_a_few_images_tell_nothing():
    data = open_data(FORTY.model_copy(update={"num_train": 19, "num_val": 4}))
    assert pairing(mixed_up(data, "train")) == []


def test_a_defect_of_nine_pixels_is_enough():
    rng = np.random.default_rng(0)
    labels = np.zeros((90, 128, 128), np.uint8)
    images = rng.integers(80, 120, (90, 128, 128, 3), np.uint8)
    for label, image, (row, column) in zip(
        labels, images, rng.integers(0, 125, (90, 2)), strict=True
    ):
        label[row : row + 3, column : column + 3] = 1
        image[row : row + 3, column : column + 3] = 255
    data = drawn(labels, images)
    assert pairing(data) == []
    assert len(pairing(mixed_up(data, "test"))) == 1
