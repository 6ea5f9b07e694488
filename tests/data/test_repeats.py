"""An image in two splits is found by its pixels, and by nothing else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import folder_data
import numpy as np
import pytest
import yaml
from file_trees import TREES, data
from PIL import Image
from pydantic import TypeAdapter

from study.config.task import Data, FactoryData, FileData
from study.core.errors import InputError
from study.data import SegmentationData, data_warnings, open_data, scan_files
from study.data.__main__ import main

FOUND = r"test/000\.png: the image is in two splits, train and test: .*images/train/002\.(png|jpg);"


def link(one: Path, other: Path) -> None:
    os.link(one, other)


def copy(one: Path, other: Path) -> None:
    shutil.copyfile(one, other)


def other_compression(one: Path, other: Path) -> None:
    Image.open(one).save(other, compress_level=0)


def with_exif(one: Path, other: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.open(one).save(other, exif=exif)


def as_rgba(one: Path, other: Path) -> None:
    Image.open(one).convert("RGBA").save(other)


def as_grey(one: Path, other: Path) -> None:
    grey = Image.open(one).convert("L")
    grey.convert("RGB").save(one)
    grey.save(other)


def jpeg_and_png(one: Path, other: Path) -> None:
    Image.open(one).save(one.with_suffix(".jpg"))
    one.unlink()
    Image.open(one.with_suffix(".jpg")).save(other)


@pytest.mark.parametrize(
    "repeat", [link, copy, other_compression, with_exif, as_rgba, as_grey, jpeg_and_png]
)
def test_an_image_in_two_splits_is_found_under_any_name_and_encoding(
    root, open_root, repeat: Callable[[Path, Path], None]
):
    (root / "images/test/000.png").unlink()
    repeat(root / "images/train/002.png", root / "images/test/000.png")
    for _ in ("decoded now", "from the cache"):
        with pytest.raises(InputError, match=FOUND) as caught:
            open_root()
        assert str(caught.value).startswith(str(root))


def test_an_image_shared_by_all_splits_is_counted_once_for_each_later_one(root, open_root):
    for place in ("train/001", "val/000", "test/001"):
        copy(root / "images/train/000.png", root / f"images/{place}.png")
    found = open_root(duplicates="warn").repeats
    assert [one.splits for one in found] == [("train", "val"), ("train", "test")]
    assert {one.names[0] for one in found} == {str(root / "images/train/000.png")}


def test_frames_that_only_resizing_makes_equal_are_two_images(root, open_root):
    frame = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    for place in ("train/000", "test/000"):
        Image.fromarray(frame).save(root / f"images/{place}.png")
        label = Image.fromarray(folder_data.quadrants()).resize((160, 120), 0)
        label.save(root / f"labels/{place}.png")
        frame[7, 9, 1] ^= 1
    found = open_root()
    assert np.array_equal(found.train.images[0], found.test.images[0])
    assert found.repeats == ()


def test_an_image_that_repeats_within_its_split_is_left_alone(root, open_root):
    copy(root / "images/train/000.png", root / "images/train/001.png")
    assert open_root().repeats == ()


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_images_of_one_colour_may_repeat_with_a_warning(root, open_root, fit):
    for place in ("train/000", "train/001", "test/000", "test/001"):
        Image.new("RGB", (16, 12)).save(root / f"images/{place}.png")
    warning = next(one for one in data_warnings(open_root(fit=fit)) if "splits" in one)
    names = [str(root / f"images/{place}.png") for place in ("train/000", "test/000")]
    assert warning == f"images of one colour in two splits: 2, as {names[0]} and {names[1]}"


def test_accepted_images_are_warned_of_and_need_no_new_cache(root, open_root, tmp_path):
    copy(root / "images/train/002.png", root / "images/test/000.png")
    with pytest.raises(InputError, match="`duplicates: warn`"):
        open_root()
    before = sorted((tmp_path / "cache").iterdir())
    found = open_root(duplicates="warn")
    assert any(one.startswith("images in two splits: 1, as ") for one in data_warnings(found))
    assert sorted((tmp_path / "cache").iterdir()) == before


@pytest.mark.parametrize("name", TREES)
def test_it_is_found_in_every_published_format(name, tmp_path):
    TREES[name].write(tmp_path / "root")
    config = TypeAdapter[Data](Data).validate_python(data(name))
    assert isinstance(config, FileData)
    splits = scan_files(config, tmp_path / "root").source().splits
    shutil.copyfile(splits["train"].files[-1], splits["test"].files[0])
    with pytest.raises(InputError, match="in two splits, train and test"):
        open_data(config, data_root=tmp_path / "root", cache_dir=tmp_path / "cache")


def shared_arrays() -> SegmentationData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 8, 12, 32, 3), np.uint8)
    images[2, 4] = images[0, 6]
    pairs = [(part, (part[..., 0] > 127).astype(np.uint8)) for part in images]
    return SegmentationData.from_arrays(
        "arrays", ["a", "b"], train=pairs[0], val=pairs[1], test=pairs[2]
    )


def test_it_is_found_in_the_arrays_of_a_factory():
    given = {"factory": f"{__name__}:shared_arrays"}
    with pytest.raises(
        InputError, match=r"test_00004: .* train and test: .* train_00006;"
    ) as caught:
        open_data(FactoryData.model_validate(given))
    assert caught.value.key == "data"
    accepted = open_data(FactoryData.model_validate({**given, "duplicates": "warn"}))
    assert len(accepted.repeats) == 1


def test_the_check_of_a_data_set_lists_all(root, capsys, tmp_path, tiny_task):
    tiny_task["data"] = {"format": "folder", "size": [12, 16]}
    task = tmp_path / "town.yaml"
    task.write_text(yaml.safe_dump(tiny_task))
    for name in ("000", "001"):
        copy(root / f"images/train/{name}.png", root / f"images/test/{name}.png")
    assert main([str(task), "--data-root", str(root)]) == 2
    told = capsys.readouterr().err
    assert "the data have 2 faults" in told
    for name in ("000", "001"):
        line = f"  images/test/{name}.png: the image is in two splits, train and test: its pixels "
        assert line in told
    tiny_task["data"]["duplicates"] = "warn"
    task.write_text(yaml.safe_dump(tiny_task))
    assert main([str(task), "--data-root", str(root)]) == 0
    assert "warning: images in two splits: 2, as " in capsys.readouterr().out
