"""Classes that data lack: what stops a study, what is declared, what is warned of."""

from __future__ import annotations

import folder_data
import numpy as np
import pytest
import yaml
from file_trees import TREES, data
from PIL import Image
from pydantic import TypeAdapter
from tiny_task import run, tiny

from study.config.task import Data, FactoryData, FileData
from study.core.errors import InputError
from study.data import SegmentationData, data_faults, data_warnings, open_data
from study.data.__main__ import main


def save_labels(root, label, splits=("train", "val", "test")):
    for split in splits:
        for file in (root / "labels" / split).iterdir():
            Image.fromarray(label).save(file)


def test_labels_of_one_class_alone_stop_with_the_remedy(root, open_root):
    save_labels(root, np.ones(folder_data.quadrants().shape, np.uint8))
    with pytest.raises(InputError, match=r"all labelled pixels are of one class, 'car'.*0 and 1"):
        open_root(absent=["road", "pole"])


def test_one_class_in_train_and_another_in_test_is_not_one_class(root, open_root):
    save_labels(root, np.ones((12, 16), np.uint8), splits=["test"])
    save_labels(root, np.zeros((12, 16), np.uint8), splits=["train", "val"])
    with pytest.raises(InputError, match=r"2 of 3 classes .* `absent: \[car, pole\]`"):
        open_root()


def test_a_class_without_a_training_pixel_stops_unless_it_is_declared(root, open_root, tmp_path):
    (root / "classes.yaml").write_text("classes: [road, car, pole, 'yes']\n")
    with pytest.raises(InputError, match=r"`absent: \['yes'\]` in the task's data") as caught:
        open_root()
    declared = str(caught.value).partition("`")[2].partition("`")[0]
    before = sorted((tmp_path / "cache").iterdir())
    found = open_root(**yaml.safe_load(declared))
    assert any("in no image at all" in one and "yes" in one for one in data_warnings(found))
    assert sorted((tmp_path / "cache").iterdir()) == before


def test_a_second_class_that_is_lacking_is_added_to_those_that_are_declared(root, open_root):
    (root / "classes.yaml").write_text("classes: [road, car, pole, kerb, sign]\n")
    with pytest.raises(InputError, match=r"`absent: \[sign, kerb\]`"):
        open_root(absent=["sign"])


def test_a_class_that_nobody_has_cannot_be_declared(open_root):
    with pytest.raises(InputError, match="unknown class 'poles'; did you mean 'pole'"):
        open_root(absent=["poles"])


@pytest.mark.parametrize("name", TREES)
def test_it_holds_in_every_published_format(name, tmp_path):
    TREES[name].write(tmp_path / "root")
    config = TypeAdapter[Data](Data).validate_python(data(name, size=[8, 8], fit="pad"))
    assert isinstance(config, FileData)
    places = {"data_root": tmp_path / "root", "cache_dir": tmp_path / "cache"}
    found = open_data(config, **places, begun=True)
    lacking = [
        name
        for name, count in zip(found.class_names, found.train.class_counts.sum(0), strict=True)
        if not count
    ]
    if lacking:
        with pytest.raises(InputError, match="no training pixel"):
            open_data(config, **places)
    declared = config.model_copy(update={"absent": tuple(lacking)})
    assert open_data(declared, **places).fingerprint == found.fingerprint


def no_pole() -> SegmentationData:
    """Labels without the last of three classes."""
    labels = np.indices((4, 32, 48)).sum(0).astype(np.uint8) % 2
    images = np.arange(labels.size * 3, dtype=np.uint64).reshape(*labels.shape, 3) % 251
    parts = [((images + step).astype(np.uint8), labels) for step in range(3)]
    return SegmentationData.from_arrays(
        "arrays", ["road", "car", "pole"], train=parts[0], val=parts[1], test=parts[2]
    )


def test_it_holds_for_the_arrays_of_a_factory():
    given = {"factory": f"{__name__}:no_pole"}
    with pytest.raises(InputError, match=r"`absent: \[pole\]`"):
        open_data(FactoryData.model_validate(given))
    accepted = FactoryData.model_validate({**given, "absent": ["pole"]})
    assert data_faults(open_data(accepted), accepted) == []


def test_generated_data_may_lack_classes():
    config = tiny().task.data.model_copy(update={"num_train": 1, "rarity": 100.0})
    assert (open_data(config).train.class_counts.sum(0) == 0).any()


@pytest.mark.parametrize("rows", [7, 5])
def test_a_split_that_is_mostly_ignored_is_warned_of(root, open_root, rows):
    label = np.full((12, 16), 255, np.uint8)
    label[: 12 - rows] = np.arange(16) % 3
    save_labels(root, label, splits=["train", "test"])
    told = [one for one in data_warnings(open_root()) if "ignored, neither" in one]
    assert [one.partition(": ")[2] for one in told] == (
        ["train 58%, test 58%"] if rows == 7 else []
    )


def scribbles() -> SegmentationData:
    """Images of which a tenth of the pixels is labelled."""
    rng = np.random.default_rng(0)
    parts = []
    for count in (8, 4, 4):
        classes = rng.integers(0, 2, (count, 2, 3), np.uint8).repeat(16, 1).repeat(16, 2)
        images = np.repeat(classes[..., None] * 200, 3, 3) + rng.integers(0, 50, (count, 32, 48, 3))
        labels = np.where(rng.random(classes.shape) < 0.1, classes, np.uint8(255))
        parts.append((images.astype(np.uint8), labels))
    return SegmentationData.from_arrays(
        "scribbles", ["dark", "light"], train=parts[0], val=parts[1], test=parts[2]
    )


@pytest.mark.slow
def test_scribbles_are_learned_from_with_a_warning():
    config = tiny(data={"factory": f"{__name__}:scribbles"}, budget={"epochs": 6})
    found = open_data(config.task.data)
    assert any("ignored, neither" in one for one in data_warnings(found))
    assert run(config, found)[-1].metrics["val/miou"] > 0.6


def test_the_check_of_a_data_set_stops_too(root, capsys, tmp_path, tiny_task):
    (root / "classes.yaml").write_text("classes: [road, car, pole, kerb]\n")
    tiny_task["data"] = {"format": "folder", "size": [12, 16]}
    task = tmp_path / "town.yaml"
    task.write_text(yaml.safe_dump(tiny_task))
    assert main([str(task), "--data-root", str(root)]) == 2
    assert "`absent: [kerb]`" in capsys.readouterr().err
    tiny_task["data"]["absent"] = ["kerb"]
    task.write_text(yaml.safe_dump(tiny_task))
    assert main([str(task), "--data-root", str(root)]) == 0
