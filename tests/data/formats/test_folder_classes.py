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
    assert (classes.stated.mean, classes.stated.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert classes.palette.tolist() == default_palette(2).tolist()
    assert classes.meaning.values == {0: 0, 1: 1, 255: 255}


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
    stated = classes.stated
    assert stated.name == "town"
    assert classes.names == ("road", "car")
    assert classes.palette.tolist() == [[4, 5, 6], [1, 2, 3]]
    assert classes.ignore_index == 11
    assert stated.mean == (0.1, 0.2, 0.3)
    assert stated.std == (0.4, 0.5, 1.0)
    assert (stated.image_dir, stated.label_dir) == ("pictures/{split}", "{split}/masks")
    assert (stated.image_suffix, stated.label_suffix) == ("_rgb.png", "_ids.png")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("classes: [{id: 1, name: b}, {id: 0, name: a}]", {0: "a", 1: "b", 255: None}),
        ("classes: [{id: 201, name: b}, {id: 0, name: a}]", {0: "a", 201: "b", 255: None}),
        ("classes: {0: a, 100: b}", {0: "a", 100: "b", 255: None}),
        ("names: {1: a, 0: b}", {0: "b", 1: "a", 255: None}),
        ("classes: [a, b]\nignore_index: 0", {1: "a", 2: "b", 0: None}),
        ("classes: [a, b]\nignore: [0, 255]", {1: "a", 2: "b", 0: None, 255: None}),
        ("classes: [a, b]\nignore: 1", {0: "a", 1: None, 2: "b", 255: None}),
        (
            "classes: [a, b]\nignore: 250..252",
            {0: "a", 1: "b", 250: None, 251: None, 252: None, 255: None},
        ),
        ("classes: [a, b]\nlabels: {255: b}", {0: "a", 255: "b"}),
        ("classes: [a, b]\nlabels: {7: b, 9: b}", {0: "a", 7: "b", 9: "b", 255: None}),
        ("classes: [a, {id: 1, name: b}]\nlabels: {2: b}", {0: "a", 1: "b", 2: "b", 255: None}),
        ("labels: {0: a, 255: b}", {0: "a", 255: "b"}),
        ("labels: {3..4: a, 9: ignore, 5: b}", {3: "a", 4: "a", 9: None, 5: "b", 255: None}),
    ],
)
def test_what_stands_for_each_class(write, text, values):
    classes = read_classes(write(text))
    found = {
        value: None if index == classes.ignore_index else classes.names[index]
        for value, index in classes.meaning.values.items()
    }
    assert found == values


def test_colours_are_lists_or_hexadecimal(write):
    text = "classes: [{name: a, color: '#0102ff'}, {name: b, color: [4, 5, 6]}]"
    classes = read_classes(write(text))
    assert classes.meaning.colours == {(1, 2, 255): 0, (4, 5, 6): 1}
    text = "classes: [{name: a, color: '#0102ff'}, b]\nlabels: {'4, 5, 6': b, '#000000': ignore}"
    classes = read_classes(write(text))
    assert classes.meaning.colours == {(1, 2, 255): 0, (4, 5, 6): 1, (0, 0, 0): 255}


@pytest.mark.parametrize(
    "text",
    [
        "classes: [{name: a, color: [1, 2, 3]}, b]",
        "classes: [{name: a, color: [1, 2, 3]}, {name: b, color: [1, 2, 3]}]",
    ],
)
def test_colours_that_do_not_tell_all_classes_apart_only_draw_them(write, text):
    classes = read_classes(write(text))
    assert not classes.meaning.colours
    assert classes.palette[0].tolist() == [1, 2, 3]


def test_masks_lie_on_the_class_without_one(write):
    classes = read_classes(write("masks: {crack: a, hole: b}"))
    assert classes.names == ("background", "crack", "hole")
    assert (classes.masks, classes.unmasked) == (((1, "a"), (2, "b")), 0)
    classes = read_classes(write("classes: [crack, road]\nmasks: {crack: a}"))
    assert (classes.masks, classes.unmasked) == (((0, "a"),), 1)
    text = "classes: [crack, hole]\nmasks: {crack: a, hole: b}\nmissing_label: ignore"
    assert read_classes(write(text)).unmasked == 255


def test_whole_numbers_under_splits_are_a_note(write):
    assert read_classes(write("classes: [a]\nsplits: {train: 367, val: 101}")).stated.splits == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("classes: [road", "classes.yaml:1: invalid YAML"),
        ("- road", "the file must hold a mapping, got a list"),
        ("name: town", "classes: classes must be a list of names or of {id, name, color}"),
        ("classes: []", "classes: classes must be a list"),
        ("classes: {road: 0}", "classes: classes must be a list"),
        ("classes: [road, no]", "name must be text that is not empty, got false; quote yes, no"),
        ("classes:\n- road\n- 3", "classes.yaml:3: classes/1: name must be text"),
        ("classes: [road, road]", "classes/1/name: duplicate class 'road'"),
        ("classes: [{id: 65536, name: a}]", "classes/0/id: id must be in [0, 65535], got 65536"),
        ("classes: [{id: 1.5, name: a}]", "classes/0/id: id must be a whole number, got 1.5"),
        ("classes: [{id: 0, nam: a}]", "classes/0/nam: unknown key 'nam'; did you mean 'name'?"),
        ("classes: [{id: 0, name: a}, {id: 0, name: b}]", "classes/1/id: duplicate id 0"),
        (
            "classes: [{name: a, color: [0, 0, 256]}]",
            "color must be three whole numbers in [0, 255]",
        ),
        ("classes: [a]\nnum_classes: 2", "num_classes must be 1, the number of listed classes"),
        ("classes: [a]\nignore_index: -1", "ignore_index must be in [0, 255], got -1"),
        (
            "classes: [{id: 0, name: a}, {id: 1, name: b}]\nignore_index: 1",
            "classes.yaml:2: ignore_index: 1 is the id of class 'b'; an ignored value is no class",
        ),
        ("classes: [a, b]\nlabels: {0: c}", "labels/0: unknown class 'c' (allowed: a, b, ignore)"),
        ("classes: [a, b]\nlabels: {1: a}", "labels/1: 1 is the value of class 'b' already; map"),
        ("labels: {0: a, 0..9: b}", "labels/0..9: 0 is mapped twice, here and in labels/0"),
        (
            "labels: {9..0: a}",
            "labels/9..0: must be from low to high, in [-32768, 65535], got '9..0'",
        ),
        ("labels: {red: a}", "labels/red: must be a value (255), a range (128..255), a colour ('"),
        ("labels: {0: a, 1: b}\nignore: 1", "ignore: 1 is mapped twice, here and in labels/1"),
        ("classes: [a]\nlabels:\n  #ff0000: a", "labels must be a mapping, got nothing; quote a"),
        ("classes: [a]\nlabels: {[1, 2, 3]: a}", "a key must be plain text"),
        ("labels: {'#010203': a, '1,2,3': b}", "(1, 2, 3) is mapped twice"),
        (
            "classes: [{name: a, color: [1, 2, 3]}, b]\nlabels: {'#010203': b}",
            "labels/#010203: (1, 2, 3) is the colour of class 'a' already",
        ),
        ("classes: [ignore, b]\nlabels: {9: ignore}", "'ignore' is a class here, and the word"),
        ("classes: [a, b]\nmissing_label: c", "missing_label: unknown class 'c'"),
        ("classes: [a, b]\nread: color", "read: invalid read 'color'; did you mean 'colour'?"),
        ("classes: [a, b]\nmasks: {c: d}", "masks/c: unknown class 'c'"),
        (
            "classes: [a, b]\nmasks: {a: m, b: n}",
            "the pixels of no mask need one class, got all have a mask; `missing_label: NAME`",
        ),
        ("classes: [a, b, c]\nmasks: {a: m}", "got classes without a mask: b, c; `missing_label"),
        ("masks: {a: m}\nlabels: {0: a}", "labels: labels has no meaning beside `masks`"),
        ("classes: [a]\nthreshold: 9", "threshold: threshold is for `masks`; `labels: {0..127"),
        ("classes: [a]\nsplits: {val: 15}\nmean: 3", "mean must be three numbers"),
        ("classes: [a]\nimage_path: a/b.png", "image_path must contain {name}, got 'a/b.png'"),
        (
            "classes: [a]\nlabel_path: '{name}.png'\nlabel_dir: x",
            "classes.yaml:3: label_dir: label_dir has no meaning beside label_path",
        ),
        (
            "classes: [a]\nsplits: {val: [a, 3]}",
            "val must be a list of names (.txt, .csv, .json), a fo",
        ),
        ("classes: [a]\nsplits: {vla: 0.1}", "splits: unknown split 'vla'; did you mean 'val'?"),
        (
            "classes: [a]\nsplits: {val: 1.5}",
            "val must be a list of names (.txt, .csv, .json), a folder",
        ),
        ("classes: [a]\nsplits: {train: 0.5}", "train is the rest; give the ratios of val and te"),
        ("classes: [a]\nsplits: {val: 0.5, test: 0.5}", "must add up to less than 1"),
        ("classes: [a]\nignor_index: 9", "unknown key 'ignor_index'; did you mean 'ignore_index'?"),
        (
            "classes: [a]\nmean: [104, 117, 123]",
            "mean must be three numbers in [0, 1] (RGB), got [1",
        ),
        ("classes: [a]\nstd: [0, 1, 1]", "std: std must be > 0, got [0, 1, 1]"),
        ('classes: ["a\\0"]', "classes/0: name must be printable text, got 'a"),
        ('classes: ["\\ud800"]', "classes/0: name must be printable text, got"),
        ('classes: [a]\nname: "a\\0b"', "name: name must be printable text, got 'a"),
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
