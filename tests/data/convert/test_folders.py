"""`convert folders`: which labels belong to which image, by the words and numbers of paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from study.data.first_look.gather import gather

SHAPE = (24, 32)
COUNT = 6


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (*SHAPE, 3), np.uint8)
    Image.fromarray(noise).save(path)


def label(path: Path, number: int, value: int = 255, size: tuple[int, int] = SHAPE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.zeros(size, np.uint8)
    drawn[2 + 2 * number : 9 + 2 * number, 3 : 9 + 3 * number] = value
    Image.fromarray(drawn).save(path)


def masks(root: Path) -> Path:
    """Binary masks, of which some images have none; and images that nobody has labelled."""
    for number in range(COUNT):
        photo(root / f"a. Train/pictures/{number}.png")
        photo(root / f"b. Test/pictures/{number}.png")
        photo(root / f"spare/{number + 100}.png")
        for part in ("a. Train", "b. Test"):
            if number:
                label(root / f"truth/{part}/Edema/{number:04d}_ED.png", number)
    return root


def test_an_image_without_a_mask_is_background_beside_others_that_have_one(convert, tmp_path):
    converted = convert("folders", masks(tmp_path / "src"))
    assert converted.names == ["background", "foreground"]
    assert not converted.label("0", "train").any()
    assert converted.mask("foreground", "3", "test").sum() == 7 * 15
    assert "note: images without a mask, all of them background: 2" in converted.printed
    assert "note: images in folders without labels, left out: 6" in converted.printed
    assert yaml.safe_load((converted.root / "classes.yaml").read_text())["splits"] == {"val": 0.15}


def test_folders_of_labels_tell_the_splits_of_images_that_lie_together(convert, tmp_path):
    root = tmp_path / "src"
    for number in range(COUNT):
        photo(root / f"images/{number}.png")
        split = "train" if number < 4 else "test/agreed"
        label(root / f"labels/{split}/{number}_merged.png", number, value=number + 1)
    converted = convert("folders", root)
    assert "images: train 4, test 2" in converted.printed
    assert (converted.root / "labels/test/5.png").is_file()


def test_smaller_masks_lie_on_larger_ones(convert, tmp_path):
    root = tmp_path / "src"
    for number in range(COUNT):
        photo(root / f"cases/{number}/scan.png")
        for kind, part in (("core", slice(4, 8)), ("whole", slice(2, 20))):
            drawn = np.zeros(SHAPE, np.uint8)
            drawn[part, part] = 255
            path = root / f"drawn/{number}/{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn).save(path)
    converted = convert("folders", root)
    name = sorted(one.stem for one in (converted.root / "labels").iterdir())[0]
    assert converted.mask("core", name).sum() == 16
    assert converted.mask("whole", name).sum() == 18 * 18 - 16


@pytest.mark.parametrize("form", ["{:06d}_1", "part1_{:06d}", "{}"])
def test_an_images_number_is_told_from_others(tmp_path, form):
    root = tmp_path / "src"
    for number in (1, 11, 21, 111):
        photo(root / f"images/{number}.png")
        label(root / f"labels/{form.format(number)}.png", 1, value=number)
    found = gather(root)
    own = {image.stem: some[0][1].stem for image, some in found.labels.items()}
    assert own == {str(one): form.format(one) for one in (1, 11, 21, 111)}


def other_numbers(root: Path) -> None:
    for number in range(COUNT):
        photo(root / f"images/{number + 4}.png")
        label(root / f"labels/{number}.png", number)


def two_cameras(root: Path) -> None:
    for number in range(COUNT):
        for side in ("left", "right"):
            photo(root / f"{side}/{number}.png")
        label(root / f"truth/{number}.png", number)


def two_annotators(root: Path) -> None:
    for number in range(COUNT):
        photo(root / f"images/{number}.png")
        label(root / f"truth/first/{number}.png", number)
        label(root / f"truth/second/{number}.png", number + 2)


def images_alone(root: Path) -> None:
    for number in range(COUNT):
        photo(root / f"images/{number}.png")


def names_of_another_kind(root: Path) -> None:
    for number in range(COUNT):
        photo(root / f"images/{'abcdef'[number]}.png")
        label(root / f"labels/{number}.png", number)


def smaller_masks(root: Path) -> None:
    for number in range(COUNT):
        photo(root / f"images/{number}.png")
        for kind in "xy":
            label(root / f"{kind}{kind}/{number}.png", 3 * (kind == "y"), size=(20, 28))


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (other_numbers, "labels have no image with the same words and numbers; rename them like"),
        (two_cameras, "left/0.png and right/0.png; `--images 'left'` chooses those whose path"),
        (two_annotators, "first/0.png and truth/second/0.png; `--labels 'first'` chooses those"),
        (images_alone, "found only pictures that look like images"),
        (names_of_another_kind, "no label has the words and numbers of an image's name"),
        (smaller_masks, "0.png: the mask is 20x28 and the image 24x32"),
    ],
)
def test_what_cannot_be_told_is_one_line(
    refused: Callable[..., str], tmp_path: Path, write: Callable[[Path], None], says: str
) -> None:
    write(tmp_path / "src")
    assert says in refused("folders", tmp_path / "src")


def test_a_choice_gathers_what_could_not_be_told(convert, tmp_path):
    two_cameras(tmp_path / "src")
    converted = convert("folders", tmp_path / "src", "--images", "left")
    assert len([*(converted.root / "images").iterdir()]) == COUNT
