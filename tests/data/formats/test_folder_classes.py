"""classes.yaml: what is needed, what may be left out, what is refused."""

from __future__ import annotations

import re

import pytest

from study.core.errors import InputError
from study.data.formats.folder_classes import read_classes
from study.data.palette import default_palette
from study.data.splits import IMAGENET_MEAN, IMAGENET_STD


@pytest.fixture
def write(tmp_path):
    def write(text):
        file = tmp_path / "classes.yaml"
        file.write_text(text)
        return file

    return write


@pytest.mark.parametrize("key", ["classes", "names"])
def test_names_are_enough(write, key):
    classes = read_classes(write(f"{key}: [road, car]"))
    assert classes.names == ("road", "car")
    assert classes.ignore_index == 255
    assert (classes.mean, classes.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert classes.palette.tolist() == default_palette(2).tolist()
    assert classes.image_suffixes == (".jpg", ".jpeg", ".png")


def test_everything_that_is_stated_is_read(write):
    text = """
        name: town
        ignore_index: 11
        num_classes: 2
        image_dir: pictures/{split}
        label_dir: "{split}/masks"
        image_suffix: _rgb.png
        label_suffix: _ids.png
        mean: [0.1, 0.2, 0.3]
        std: [0.4, 0.5, 1]
        classes: [{id: 1, name: car, color: [1, 2, 3]}, {id: 0, name: road, color: [4, 5, 6]}]
        licence: notes like this one are left alone
    """
    classes = read_classes(write(text))
    assert classes.name == "town"
    assert classes.names == ("road", "car")
    assert classes.palette.tolist() == [[4, 5, 6], [1, 2, 3]]
    assert classes.ignore_index == 11
    assert classes.mean == (0.1, 0.2, 0.3)
    assert classes.std == (0.4, 0.5, 1.0)
    assert (classes.image_dir, classes.label_dir) == ("pictures/{split}", "{split}/masks")
    assert (classes.image_suffixes, classes.label_suffix) == (("_rgb.png",), "_ids.png")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("classes: [road", "classes.yaml:1: invalid YAML"),
        ("- road", "the file must hold a mapping, got a list"),
        ("name: town", "classes: classes must be a list of names or of {id, name, color}"),
        ("classes: []", "classes: classes must be a list"),
        ("classes: {road: 0}", "classes: classes must be a list"),
        ("classes: [road, no]", "name must be text, got false; quote yes, no, on and off"),
        ("classes:\n- road\n- 3", "classes.yaml:3: classes/1/name: name must be text"),
        ("classes: [road, road]", "classes/1/name: duplicate class 'road'"),
        ("classes: [{id: 1, name: a}]", "id must be a whole number in [0, 0], got 1"),
        ("classes: [{id: 0, name: a}, {id: 0, name: b}]", "classes/1/id: duplicate id 0"),
        (
            "classes: [{name: a, color: [0, 0, 256]}]",
            "color must be three whole numbers in [0, 255]",
        ),
        ("classes: [a]\nnum_classes: 2", "num_classes must be 1, the number of listed classes"),
        ("classes: [a, b]\nignore_index: 1", "ignore_index must be a whole number in [2, 255]"),
        ("classes: [a]\nignore_index: -1", "ignore_index must be a whole number in [1, 255]"),
        ("classes: [a]\nignor_index: 9", "unknown key 'ignor_index'; did you mean 'ignore_index'?"),
        (
            "classes: [a]\nmean: [104, 117, 123]",
            "mean must be three numbers in [0, 1] (RGB), got [1",
        ),
        ("classes: [a]\nstd: [0, 1, 1]", "std: std must be > 0, got [0, 1, 1]"),
        ("classes: [a]\nlabel_dir: labels", "label_dir must contain {split}, got 'labels'"),
        ('classes: ["a\\0"]', "classes/0/name: name must be printable text, got 'a"),
        ('classes: ["\\ud800"]', "classes/0/name: name must be printable text, got"),
        ('classes: [a]\nname: "a\\0b"', "name: name must be printable text, got 'a"),
        ("classes: [a]\nlabel_suffix: .tif", "label_suffix must end in .png, got '.tif'"),
        ("classes: [a]\nimage_suffix: 3", "image_suffix must be text that is not empty, got 3"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_file_and_key(write, text, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        read_classes(write(text))
    assert "classes.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"classes.yaml: file not found"):
        read_classes(tmp_path / "classes.yaml")
