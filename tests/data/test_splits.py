"""Data sets from arrays and from anyone's factory."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from study.config.task import FactoryData
from study.core.errors import InputError
from study.data import SegmentationData, open_data

FACTORY = """
import numpy as np
from study.data import SegmentationData

def blobs(num, size=8):
    labels = np.indices((num, size, size)).sum(0).astype(np.uint8) % 2
    pair = np.zeros((num, size, size, 3), np.uint8), labels
    return SegmentationData.from_arrays("blobs", ["a", "b"], train=pair, val=pair, test=pair)

def unlabelled(split):
    images, labels = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)
    pairs = dict.fromkeys(["train", "val", "test"], (images, labels))
    pairs[split] = images, labels + np.uint8(255)
    return SegmentationData.from_arrays("blobs", ["a", "b"], **pairs)

def arrays():
    return np.zeros(3)
"""


def pair(num=2, height=4, width=6):
    labels = np.arange(num * height * width).reshape(num, height, width) % 3
    return np.zeros((num, height, width, 3), np.uint8), labels.astype(np.uint8)


def build(**changes):
    given = {"class_names": ["a", "b", "c"], "train": pair(3), "val": pair(1), "test": pair(2)}
    return SegmentationData.from_arrays("mine", **(given | changes))


def test_arrays_become_a_data_set():
    data = build(groups={"test": [4, 4]}, mean=(0.1, 0.2, 0.3), std=(1, 1, 1))
    assert data.num_classes == 3
    assert data.train.class_counts.tolist() == [[8, 8, 8]] * 3
    assert data.test.groups.tolist() == [4, 4]
    assert data.val.groups.tolist() == [0]
    assert data.mean == (0.1, 0.2, 0.3)
    assert [len(split) for split in data.splits.values()] == [3, 1, 2]
    assert data.cache is None


def test_the_fingerprint_is_of_what_results_depend_on():
    same = build()
    assert build().fingerprint == same.fingerprint
    other = pair(1)
    other[1][0, 0, 0] = 2
    renamed = SegmentationData.from_arrays(
        "mine", ["a", "b", "x"], train=pair(3), val=pair(1), test=pair(2)
    )
    changed = [
        build(val=other),
        build(val=pair(2), test=pair(1)),
        build(mean=(0, 0, 0)),
        build(ignore_index=254),
        build(groups={"test": [0, 0]}),
        renamed,
    ]
    fingerprints = [data.fingerprint for data in changed]
    assert len({same.fingerprint, *fingerprints}) == 7


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"val": (pair()[0].astype(float), pair()[1])}, "data/val: images must be (N, H, W, 3)"),
        ({"val": (pair()[0][..., 0], pair()[1])}, "data/val: images must be (N, H, W, 3) uint8"),
        ({"val": (pair()[0], pair()[1].astype(int))}, "labels must be (2, 4, 6) uint8, got"),
        ({"val": (pair()[0], pair(3)[1])}, "labels must be (2, 4, 6) uint8, got (3, 4, 6)"),
        ({"val": (pair(0)[0], pair(0)[1])}, "data/val: labels must be (1, 4, 6) uint8"),
        ({"val": (pair()[0], pair()[1] + np.uint8(1))}, "labels must be below 3 or 255, got 3"),
        ({"val": pair(2, 5, 6)}, "all images must have one size, got [(4, 6), (5, 6)]"),
        ({"groups": {"test": [1]}}, "data/test: groups must be (2,), got (1,)"),
        ({"groups": {"tset": [1, 1]}}, "unknown split of groups 'tset'; did you mean 'test'?"),
        ({"class_names": ["a", "b", "a"]}, "class_names must be unique, got ['a', 'b', 'a']"),
        ({"class_names": ["a", "b\x1b[31m", "c"]}, "printable text, got 'b\\x1b[31m'"),
        ({"class_names": ["a", "b\u202e", "c"]}, "printable text, got 'b\\u202e'"),
        ({"class_names": ["a", "b\n", "c"]}, "printable text, got 'b\\n'"),
        ({"class_names": ["a", 3, "c"]}, "printable text, got 3"),
        ({"class_names": []}, "class_names must have 1 to 255 entries, got 0"),
        ({"ignore_index": 2}, "ignore_index must not be a class, 0 to 2, got 2"),
        ({"mean": (0.5, 0.5)}, "mean must be three numbers, got (0.5, 0.5)"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three numbers, got"),
        ({"std": (1, 0, 1)}, "std must be three numbers > 0, got (1, 0, 1)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(InputError, match=re.escape(says)):
        build(**changes)


@pytest.fixture
def factories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "data_factories.py").write_text(FACTORY)


def test_a_factory_gives_the_data(factories):
    data = open_data(FactoryData(factory="data_factories:blobs", kwargs={"num": 5}))
    assert (data.name, len(data.train)) == ("blobs", 5)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_a_labelled_pixel_is_refused(factories, split):
    config = FactoryData(factory="data_factories:unlabelled", kwargs={"split": split})
    with pytest.raises(InputError, match=f"^data/{split}: split {split} has no labelled pixel"):
        open_data(config)


@pytest.mark.parametrize(
    ("factory", "kwargs", "says"),
    [
        ("data_factories:arrays", {}, "must return a study.data.SegmentationData, got ndarray"),
        ("data_factories:blobs", {}, "blobs() raised TypeError*'num'"),
        ("data_factories:balls", {}, "no 'balls' in 'data_factories:balls'"),
        ("data_factory:blobs", {}, "no module named 'data_factory'; install it"),
        ("blobs", {}, "must have the form package.module:function, got 'blobs'"),
    ],
)
def test_a_factory_that_cannot_be_used_is_one_line(factories, factory, kwargs, says):
    pattern = re.escape(says).replace(r"\*", ".*")
    with pytest.raises(InputError, match=f"^data/factory: .*{pattern}"):
        open_data(FactoryData(factory=factory, kwargs=kwargs))
