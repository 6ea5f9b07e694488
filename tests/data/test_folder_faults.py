"""Folder data sets: every way in which files can be wrong."""

from __future__ import annotations

import re
import shutil

import folder_data
import numpy as np
import pytest
from PIL import Image

from study.core.errors import InputError


def save_label(root, label, split="train"):
    Image.fromarray(label).save(root / "labels" / split / "001.png")


def _missing_label(root):
    for name in ("000", "002"):
        (root / "labels" / "train" / f"{name}.png").unlink()


def _missing_image(root):
    (root / "images" / "val" / "001.png").unlink()


def _no_folder(root):
    shutil.rmtree(root / "labels" / "val")


def _no_classes(root):
    (root / "classes.yaml").unlink()


def _empty(root):
    for file in root.glob("*/test/*.png"):
        file.unlink()


def _twice(root):
    shutil.copy(root / "images" / "train" / "000.png", root / "images" / "train" / "000.jpg")


def _cut_image(root):
    for name in ("000", "001"):
        file = root / "images" / "train" / f"{name}.png"
        file.write_bytes(file.read_bytes()[:200])


def _no_image(root):
    (root / "images" / "test" / "001.png").write_text("<html>not found</html>")


def _no_label(root):
    (root / "labels" / "test" / "001.png").write_bytes(b"")


def _outside(root):
    for split in ("train", "test"):
        label = folder_data.quadrants()
        label[3, 4] = 3
        save_label(root, label, split=split)


def _sizes(root):
    save_label(root, np.zeros((12, 15), np.uint8))


def _colour_label(root):
    label = np.zeros((12, 16, 3), np.uint8)
    label[4] = 255, 0, 16
    save_label(root, label)


def _deep_image(root):
    Image.fromarray(np.zeros((12, 16), np.uint16)).save(root / "images" / "val" / "000.png")


def _upside_down(root):
    image = Image.open(root / "images" / "train" / "000.png").copy()
    folder_data.save_turned(root, 3, image.transpose(Image.Transpose.ROTATE_180))


def _flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 64
    file.write_bytes(content)


def _damaged_label(root):
    """One bit in the compressed pixels, which decode to another label all the same."""
    label = folder_data.quadrants()
    file = root / "labels" / "train" / "000.png"
    for place in range(42, file.stat().st_size - 20):
        Image.fromarray(label).save(file)
        _flip(file, place)
        try:
            if not np.array_equal(Image.open(file), label):
                return
        except (OSError, SyntaxError):
            continue
    raise AssertionError("no bit that Pillow does not see")


def _tail_of_zeros(root):
    file = root / "labels" / "train" / "000.png"
    content = file.read_bytes()
    file.write_bytes(content[:-16] + bytes(16))


def _lossy_label(root):
    Image.fromarray(folder_data.quadrants()).save(root / "labels/train/000.png", format="JPEG")


def _strange_format(root):
    image = Image.open(root / "images" / "train" / "000.png")
    image.save(root / "images" / "train" / "000.png", format="PCX")


def _links_to_nothing(root):
    for folder in ("images", "labels"):
        file = root / folder / "train" / "000.png"
        file.unlink()
        file.symlink_to(root / "elsewhere" / file.name)


def _folder_for_a_label(root):
    (root / "labels" / "train" / "000.png").unlink()
    (root / "labels" / "train" / "000.png").mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            _damaged_label,
            "labels/train/000.png: cannot read the label (SyntaxError: *",
        ),
        (_tail_of_zeros, "labels/train/000.png: cannot read the label (*"),
        (_lossy_label, "labels/train/000.png: a label of lossy compression has blurred values; *"),
        (
            _strange_format,
            "images/train/000.png: cannot read the image (not of a known format: PNG, JPEG, *",
        ),
        (_links_to_nothing, "images/train/000.png: cannot read the file (F"),
        (_folder_for_a_label, "labels/train/000.png: cannot read the label (IsADir*"),
        (_missing_label, "images/train/000.png: no matching label in */labels/train (and 1 more)"),
        (_missing_image, "labels/val/001.png: no matching image in *images/val"),
        (_no_folder, "town/labels/val: the folder does not exist"),
        (_no_classes, "town/classes.yaml: file not found"),
        (_empty, "images/test: the folder has no test images (.jpg, .jpeg, .png)"),
        (_twice, "images/train/000.png: another file has the same name: 000.jpg"),
        (_cut_image, "images/train/000.png: cannot read the image (* (and 1 more)"),
        (_no_image, "images/test/001.png: cannot read the image (not of a known format: PNG, *)"),
        (_no_label, "labels/test/001.png: cannot read the label (*)"),
        (_outside, "labels/train/001.png: labels must be 0 to 2 or 255, got 3 (and 1 more)"),
        (_sizes, "labels/train/001.png: label must be as large as its image, 12x16, got 12x15"),
        (_colour_label, "labels/train/001.png: the label is painted *: '#000000', '#ff0010'; `lab"),
        (_upside_down, "images/train/000.png: EXIF orientation 3 is ambiguous, *upright"),
        (_deep_image, "images/val/000.png: image must have 8 bits per channel, got mode I;16"),
    ],
)
def test_a_fault_is_one_line_that_names_the_file(root, open_root, tmp_path, spoil, says):
    spoil(root)
    pattern = re.escape(says).replace(r"\*", ".*")
    with pytest.raises(InputError, match=pattern) as caught:
        open_root()
    assert str(caught.value).startswith(str(root))
    assert "\n" not in str(caught.value)
    left = [path for path in (tmp_path / "cache").glob("*") if path.suffix != ".lock"]
    assert left == []  # nothing half-written


def test_an_image_too_large_to_be_trusted_is_named(root, open_root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match=r"train/000.png: cannot read the image .* \(and 6 more"):
        open_root()
