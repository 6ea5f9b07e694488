"""classes.yaml: what is needed, what may be left out, what is refused."""

from __future__ import annotations

import re

import pytest

from study.core.errors import InputError
from study.data.formats.folder_classes import read_classes
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
    assert classes.palette.tolist() == [[0, 0, 0], [128, 0, 0]]
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
        ("classes: [road", "classes.yaml:1: the file must be YAML"),
        ("- road", "a mapping must stand here, but got a list"),
        ("name: town", "classes: must be a list of names or of {id, name, color}, but got None"),
        ("classes: []", "classes: must be a list"),
        ("classes: {road: 0}", "classes: must be a list"),
        ("classes: [road, no]", "classes/1/name: must be text (quote yes, no, on, off)"),
        ("classes:\n- road\n- 3", "classes.yaml:3: classes/1/name: must be text"),
        ("classes: [road, road]", "classes/1/name: must name one class only, but got 'road'"),
        ("classes: [{id: 1, name: a}]", "classes/0/id: must be 0 to 0, each once, but got 1"),
        ("classes: [{id: 0, name: a}, {id: 0, name: b}]", "classes/1/id: must be 0 to 1"),
        ("classes: [{name: a, color: [0, 0, 256]}]", "color: must be [r, g, b] in 0..255"),
        ("classes: [a]\nnum_classes: 2", "num_classes: must be 1, the number of classes listed"),
        ("classes: [a, b]\nignore_index: 1", "ignore_index: must be a whole number from 2"),
        ("classes: [a]\nignore_index: -1", "ignore_index: must be a whole number from 1"),
        ("classes: [a]\nignor_index: 9", "unknown key; did you mean `ignore_index`?"),
        ("classes: [a]\nmean: [104, 117, 123]", "mean: must be three numbers in 0..1 (RGB)"),
        ("classes: [a]\nstd: [0, 1, 1]", "std: must be above 0"),
        ("classes: [a]\nlabel_dir: labels", "label_dir: must contain {split}, but got 'labels'"),
        ('classes: ["a\\0"]', "classes/0/name: must be text that can be printed, but got 'a"),
        ('classes: ["\\ud800"]', "classes/0/name: must be text that can be printed, but got"),
        ('classes: [a]\nname: "a\\0b"', "name: must be text that can be printed, but got 'a"),
        ("classes: [a]\nlabel_suffix: .tif", "label_suffix: must end in .png, as labels are"),
        ("classes: [a]\nimage_suffix: 3", "image_suffix: must be text, but got 3"),
    ],
)
def test_what_cannot_be_meant_is_one_line_with_file_and_key(write, text, says):
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        read_classes(write(text))
    assert "classes.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"classes.yaml: the file must exist"):
        read_classes(tmp_path / "classes.yaml")
