"""An export that cannot be used is one line with its place, exit code 2, and nothing written."""

from __future__ import annotations

import json
import sys

import annotation_exports as exports
import numpy as np
import pytest
from annotation_exports import HEIGHT, WIDTH, Shot
from PIL import ExifTags, Image

from study.data.__main__ import main

SMALL = [(10, 10), (20, 10), (20, 20), (10, 20)]
CAR = [Shot("a.jpg", [("car", SMALL)])]


def edited(source, name, old, new):
    file = source / name
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


FAULTS = {
    "coco": {
        "image missing": ('"a.jpg"', '"b.jpg"', "images/0/file_name: no image 'b.jpg' below"),
        "out of the folder": ('"a.jpg"', '"../../c.jpg"', "'../../c.jpg' leads out of"),
        "two points": (
            "[10, 10, 20, 10, 20, 20, 10, 20]",
            "[10, 10, 20, 10]",
            "annotations/0/segmentation/0: a polygon must have at least 3 points, got 2",
        ),
        "odd": (
            "[10, 10, 20, 10, 20, 20, 10, 20]",
            "[10, 10, 20, 10, 20, 20, 10]",
            "x and y by turns",
        ),
        "no number": ("[10, 10, 20,", "[10, null, 20,", "coordinates must be finite numbers"),
        "far": (
            "[10, 10, 20,",
            "[1e9, 10, 20,",
            "the point (1e+09, 10) lies far outside the image of 60x80",
        ),
        "category": (
            '"category_id": 7',
            '"category_id": 8',
            "annotations/0/category_id: unknown category 8 (allowed: 7 car, 3 pole, 90 road)",
        ),
        "unknown image": ('"image_id": 100', '"image_id": 7', "no image has the id 7"),
        "size": ('"height": 60', '"height": 61', "a.jpg is 60x80, the export says 61x80"),
        "text for a number": (
            '"height": 60',
            '"height": "60"',
            "images/0/height: height must be a whole number, got '60'",
        ),
        "no image id": ('"image_id": 100, ', "", "annotations/0: missing required key 'image_id'"),
        "panoptic": (
            '"iscrowd": 0',
            '"segments_info": []',
            "annotations/0: missing required key 'file_name'",
        ),
        "not JSON": (
            '"images": [',
            '"images": [[',
            "instances_default.json:1: the file is not JSON",
        ),
        "mask of another size": (
            "[[10, 10, 20, 10, 20, 20, 10, 20]]",
            '{"size": [80, 60], "counts": [4800]}',
            "the mask must be as large as its image",
        ),
        "mask too short": (
            "[[10, 10, 20, 10, 20, 20, 10, 20]]",
            '{"size": [60, 80], "counts": [4000]}',
            "must add up to its 4800 pixels, got 4000",
        ),
        "mask of no code": (
            "[[10, 10, 20, 10, 20, 20, 10, 20]]",
            '{"size": [60, 80], "counts": "~~"}',
            "no run-length code of COCO",
        ),
        "mask cut": (
            "[[10, 10, 20, 10, 20, 20, 10, 20]]",
            '{"size": [60, 80], "counts": "a"}',
            "ends too early",
        ),
        "name": ('"name": "car"', '"name": "c\\u0000r"', "a class must have a printable name"),
    },
    "labelme": {
        "image missing": ('"a.jpg"', '"b.jpg"', "a.json: imagePath: no image 'b.jpg'"),
        "out of the folder": ('"a.jpg"', '"..\\\\..\\\\c.jpg"', "leads out of"),
        "two points": (
            ", [20, 20], [10, 20]]",
            "]",
            "shapes/0/points: a polygon must have at least 3 points, got 2",
        ),
        "shape": ('"polygon"', '"pentagon"', "unknown shape 'pentagon' (allowed: polygon"),
        "no label": ('"label": "car", ', "", "shapes/0: missing required key 'label'"),
        "size": ('"imageWidth": 80', '"imageWidth": 90', "a.jpg is 60x80, the export says 60x90"),
        "no base64": (
            '"imagePath": "a.jpg", "imageData": null',
            '"imagePath": "b.jpg", "imageData": "%"',
            "imageData: must be base64",
        ),
        "no image": (
            '"imagePath": "a.jpg", "imageData": null',
            '"imagePath": "b.jpg", "imageData": "AAAA"',
            "holds no PNG or JPEG",
        ),
    },
    "cvat": {
        "image missing": (
            'name="a.jpg"',
            'name="b.jpg"',
            "annotations.xml:18: image: no image 'b.jpg'",
        ),
        "out of the folder": ('name="a.jpg"', 'name="../../c.jpg"', "leads out of"),
        "two points": (
            ";20.00,20.00;10.00,20.00",
            "",
            "annotations.xml:19: polygon: a polygon must have at least 3 points, got 2",
        ),
        "label": ('label="car"', 'label="cart"', "unknown label 'cart' (allowed: car, pole, road)"),
        "size": ('height="60"', 'height="61"', "a.jpg is 60x80, the export says 61x80"),
        "points": ("10.00,10.00;", "10.00;", "polygon: coordinates must be numbers"),
        "not XML": ("</image>", "", "annotations.xml:21: the file is not XML"),
        "document type": (
            "<annotations>",
            '<!DOCTYPE a [<!ENTITY x "y">]><annotations>',
            "annotations.xml:2: the file declares a document type",
        ),
        "video": (
            "<image ",
            '<track id="0" label="car"></track><image ',
            "this is `CVAT for video`; export it as",
        ),
    },
    "labelstudio": {
        "image missing": ("/1a2b3c4d-a.jpg", "/1a2b3c4d-b.jpg", "0/data: no image"),
        "out of the folder": ('"/data/upload/1/1a2b3c4d-a.jpg"', '"../../c.jpg"', "leads out of"),
        "two points": (
            ", [25.0, 33.333333333333336], [12.5, 33.333333333333336]]",
            "]",
            "annotations/0/result/0/value: a polygon must have at least 3 points, got 2",
        ),
        "far": ("[[12.5, ", "[[1250, ", "lies far outside the image"),
        "size": (
            '"original_height": 60',
            '"original_height": 61',
            "a.jpg is 60x80, the export says 61x80",
        ),
        "turned": (
            '"image_rotation": 0',
            '"image_rotation": 90',
            "the image was turned by 90 degrees",
        ),
        "no label": (
            '"polygonlabels": ["car"]',
            '"polygonlabels": []',
            "a region must have one label",
        ),
        "JSON-MIN": ('"annotations"', '"label"', "export as JSON, not JSON-MIN"),
    },
    "yolo": {
        "class": (
            "0 0.125",
            "7 0.125",
            "a.txt:1: unknown class 7 (allowed: 0 car, 1 pole, 2 road)",
        ),
        "pixels": (
            "0 0.125",
            "0 12.5",
            "a.txt:1: coordinates must be fractions of the image in [0, 1], got [12.5",
        ),
        "odd": ("0 0.125000", "0", "a.txt:1: a polygon must be x and y by turns"),
        "no number": ("0 0.125", "car 0.125", "a.txt:1: coordinates must be numbers"),
    },
}
FILES = {
    "coco": "annotations/instances_default.json",
    "labelme": "a.json",
    "cvat": "annotations.xml",
    "labelstudio": "project-1-at-2024-03-01-10-00-1a2b3c4d.json",
    "yolo": "labels/a.txt",
}


@pytest.mark.parametrize(
    ("tool", "fault"), [(tool, fault) for tool, faults in FAULTS.items() for fault in faults]
)
def test_a_fault_of_an_export(refused, tmp_path, tool, fault):
    old, new, said = FAULTS[tool][fault]
    source = exports.WRITERS[tool][1](tmp_path / "export", CAR)
    edited(source, FILES[tool], old, new)
    assert said in refused(tool, source)


def test_a_shape_that_cvat_does_not_have_is_refused(refused, tmp_path):
    exports.save_image(tmp_path / "export" / "images" / "a.jpg")
    text = exports.cvat_image("a.jpg", exports.cvat_shape("heptagon", "car"))
    line = refused("cvat", exports.write_cvat(tmp_path / "export", text))
    assert "annotations.xml:19: heptagon: unknown shape <heptagon> (allowed: polygon, box" in line


def test_a_mask_beyond_the_image_takes_no_memory(refused, tmp_path):
    exports.save_image(tmp_path / "export" / "images" / "a.jpg")
    size = {"left": 0, "top": 0, "width": 10**6, "height": 10**6}
    text = exports.cvat_image("a.jpg", exports.cvat_shape("mask", "car", rle=10**12, **size))
    line = refused("cvat", exports.write_cvat(tmp_path / "export", text))
    assert "mask: the mask of 1000000x1000000 at (0, 0) leaves the image of 60x80" in line


def test_a_mask_of_labelme_beyond_the_image_is_refused(refused, tmp_path):
    exports.save_image(tmp_path / "export" / "a.jpg")
    mask = exports.mask_text(np.ones((9, 9), bool))
    shape = exports.shape("car", [(75, 2), (83, 10)], "mask", mask=mask)
    exports.write_json(tmp_path / "export" / "a.json", exports.labelme_tree([shape]))
    line = refused("labelme", tmp_path / "export")
    assert "shapes/0/mask: the mask of 9x9 at (75, 2) leaves the image of 60x80" in line


def test_a_brush_stroke_of_another_size_is_refused(refused, tmp_path):
    value = {"format": "rle", "rle": exports.brush_code([255] * 400)}
    exports.save_image(tmp_path / "export" / "a.jpg")
    tree = [exports.task([exports.result("brushlabels", "car", value)])]
    exports.write_json(tmp_path / "export" / "project.json", tree)
    line = refused("labelstudio", tmp_path / "export")
    assert "value/rle: the mask must have 19200 values, four a pixel, got 400" in line


def test_a_polygon_of_two_points_in_yolo(refused, tmp_path):
    source = exports.yolo(tmp_path / "export", CAR)
    (source / "labels" / "a.txt").write_text("0 0.1 0.2\n")
    assert "a.txt:1: a polygon must have at least 3 points, got 1" in refused("yolo", source)


def test_entities_that_expand_without_end_are_refused(refused, tmp_path):
    source = exports.cvat(tmp_path / "export", CAR)
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(30))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "ha">{entities}]>\n<annotations>&e30;'
    edited(source, "annotations.xml", "<annotations>", bomb)
    assert "declares a document type" in refused("cvat", source)


@pytest.mark.parametrize("tool", ["coco", "labelme", "labelstudio"])
def test_json_that_is_nested_too_deeply_is_refused(refused, tmp_path, tool):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.json").write_text("[" * 200_000)
    assert "a.json: the file is not JSON" in refused(tool, tmp_path / "export")


def test_json_in_another_encoding_is_refused(refused, tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "a.json").write_bytes(b'{\n"shapes": "\xff"}')
    assert "a.json:2: the file is not UTF-8 text" in refused("labelme", tmp_path / "export")


@pytest.mark.parametrize(
    ("tool", "given"),
    [("labelme", "coco"), ("coco", "labelme"), ("coco", "labelstudio"), ("labelstudio", "coco")],
)
def test_the_export_of_another_tool_is_told(refused, tmp_path, tool, given):
    source = exports.WRITERS[given][1](tmp_path / "export", CAR)
    assert f"it looks like an export for `convert {given}`" in refused(tool, source)


@pytest.mark.parametrize("tool", sorted(exports.WRITERS.keys() - {"roboflow", "yolo of roboflow"}))
def test_an_empty_folder_is_refused(refused, tmp_path, tool):
    (tmp_path / "export").mkdir()
    assert "found n" in refused(tool, tmp_path / "export")


def test_two_images_of_one_name_are_refused(refused, tmp_path):
    source = exports.labelme(tmp_path / "export", CAR)
    exports.save_image(source / "a.png")
    exports.write_json(source / "b.json", {**exports.labelme_tree([]), "imagePath": "a.png"})
    assert "two images have the name 'a': " in refused("labelme", source)


def test_a_name_that_fits_two_images_is_refused(refused, tmp_path):
    source = exports.labelstudio(tmp_path / "export", CAR)
    exports.save_image(source / "other" / "a.jpg")
    assert "2 images fit the name '/data/upload/1/a.jpg'" in refused("labelstudio", source)


def test_an_image_that_is_listed_twice_is_refused(refused, tmp_path):
    source = exports.coco(tmp_path / "export", [*CAR, *CAR])
    assert "the image a.jpg is listed twice" in refused("coco", source)


def test_two_files_of_one_split_are_refused(refused, tmp_path):
    source = exports.coco(tmp_path / "export", CAR)
    exports.write_json(source / "annotations" / "instances_more.json", exports.coco_tree(CAR))
    assert "is of the same split: none is named; give one" in refused("coco", source)


def test_an_image_in_no_split_beside_others_is_refused(refused, tmp_path):
    shots = [Shot(f"{name or 'x'}.jpg", [("car", SMALL)], name) for name in ("train", "val", "")]
    source = exports.labelme(tmp_path / "export", shots)
    assert "x.json: the image is in no split, while others are in train" in refused(
        "labelme", source
    )


def test_a_label_file_without_an_image_is_refused(refused, tmp_path):
    source = exports.yolo(tmp_path / "export", CAR)
    (source / "labels" / "b.txt").write_text("")
    assert "b.txt: the label file has no image" in refused("yolo", source)


def test_images_whose_labels_are_elsewhere_are_refused(refused, tmp_path):
    source = exports.yolo(tmp_path / "export", CAR)
    (source / "labels").rename(source / "annotations")
    assert "no image has a label file: all; they are expected in" in refused("yolo", source)


def test_a_folder_that_is_not_there_is_refused(refused, tmp_path):
    source = exports.yolo(tmp_path / "export", [Shot("a.jpg", [("car", SMALL)], "train")])
    edited(source, "data.yaml", "images/train", "../../etc")
    assert "train: no folder '../../etc' below" in refused("yolo", source)


def test_boxes_alone_are_refused_with_the_flag_that_fills_them(refused, tmp_path):
    source = exports.yolo(tmp_path / "export", CAR)
    (source / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert "no object of the export has an outline; boxes without an outline" in refused(
        "yolo", source
    )
    assert "--boxes" in refused("yolo", source)


def test_a_colour_of_no_label_is_refused(refused, tmp_path):
    painted = np.zeros((HEIGHT, WIDTH, 3), int)
    painted[0, 0] = (1, 2, 3)
    source = exports.cvat_masks(tmp_path / "export", {"a": painted})
    assert "a.png: no label has the colour (1, 2, 3) (allowed: background" in refused(
        "cvat", source
    )


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_orientation_that_the_size_does_not_tell_is_refused(refused, tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    width = HEIGHT if orientation == 6 else WIDTH
    exports.save_image(tmp_path / "export" / "a.jpg", HEIGHT, width, exif=exif)
    tree = exports.labelme_tree([exports.shape("car", SMALL)], imageWidth=width)
    exports.write_json(tmp_path / "export" / "a.json", tree)
    line = refused("labelme", tmp_path / "export")
    assert f"EXIF orientation {orientation} is ambiguous" in line


def test_a_damaged_image_is_refused(refused, tmp_path):
    source = exports.coco(tmp_path / "export", CAR)
    (source / "images" / "a.jpg").write_bytes(b"no image")
    assert "a.jpg: cannot read the image" in refused("coco", source)


def test_images_of_several_kinds_are_refused(refused, tmp_path):
    shots = [Shot(name, [("car", SMALL)]) for name in ("a.tif", "b.bmp")]
    source = exports.labelme(tmp_path / "export", shots)
    assert "all of one kind, got .bmp, .tif; save them as PNG" in refused("labelme", source)


def test_a_fault_in_the_last_image_leaves_nothing(refused, tmp_path):
    shots = [Shot("a.jpg", [("car", SMALL)]), Shot("b.jpg", [("car", [(1, 1), (2e6, 1), (2, 2)])])]
    source = exports.labelme(tmp_path / "export", shots)
    assert "b.json: shapes/0/points: the point (2e+06, 1)" in refused("labelme", source)


def test_a_folder_that_holds_something_is_not_touched(tmp_path, capsys):
    source = exports.coco(tmp_path / "export", CAR)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert main(["convert", "coco", str(source), str(tmp_path / "full")]) == 2
    assert "DST must be a new or an empty folder" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert main(["convert", "coco", str(source), str(tmp_path / "empty")]) == 0
    assert (tmp_path / "empty" / "classes.yaml").is_file()


def test_without_pycocotools_the_line_says_what_to_install(refused, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    source = exports.coco(tmp_path / "export", CAR)
    line = refused("coco", source)
    assert "needs the package pycocotools; install it: pip install -e '.[convert]'" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cocoo", "{source}", "{target}"], "invalid choice: 'cocoo'"),
        (["coco", "{source}/nowhere", "{target}"], "no such file or folder"),
        (
            ["coco", "{source}", "{target}", "--images", "{source}/nowhere"],
            "no such file or folder",
        ),
        (["coco"], "missing required argument SRC, DST"),
        (
            ["yolo", "{source}", "{target}", "--images", "{source}/images"],
            "give the folder that holds",
        ),
    ],
)
def test_arguments_that_do_not_fit(capsys, tmp_path, arguments, said):
    source = exports.coco(tmp_path / "export", CAR)
    places = {"source": source, "target": tmp_path / "target"}
    assert main(["convert", *(one.format(**places) for one in arguments)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


def test_an_archive_is_not_read(refused, tmp_path):
    (tmp_path / "export.zip").write_bytes(b"PK")
    assert "this is an archive; unpack it first" in refused("coco", tmp_path / "export.zip")


def test_one_file_of_an_export_is_enough(convert, tmp_path):
    source = exports.coco(tmp_path / "export", CAR)
    file = source / "annotations" / "instances_default.json"
    json.loads(file.read_text())
    assert convert("coco", file, "--images", str(source / "images")).mask("car").sum() == 100


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["coco", "labelme", "labelstudio"])
def test_nothing_in_a_json_file_leads_to_a_traceback(tmp_path, capsys, tool):
    source = exports.WRITERS[tool][1](tmp_path / "export", CAR)
    tree = json.loads((source / FILES[tool]).read_text())
    if tool == "coco":
        mask = {"size": [HEIGHT, WIDTH], "counts": [4000, 800]}
        tree["annotations"].append(exports.annotation(2, 100, "pole", mask))
        tree["annotations"].append(exports.annotation(3, 100, "road", []))
    if tool == "labelme":
        mask = exports.mask_text(np.ones((2, 2), bool))
        tree["shapes"].append(exports.shape("pole", [(40, 30), (40, 45)], "circle"))
        tree["shapes"].append(exports.shape("pole", [(1, 1), (2, 2)], "mask", mask=mask))
    if tool == "labelstudio":
        ellipse = {"x": 50, "y": 50, "radiusX": 9, "radiusY": 9, "rotation": 4}
        brush = {"format": "rle", "rle": exports.brush_code([0] * HEIGHT * WIDTH * 4)}
        results = tree[0]["annotations"][0]["result"]
        results.append(exports.result("ellipselabels", "car", ellipse))
        results.append(exports.result("brushlabels", "car", brush))
    assert exports.codes_of_hostile(tool, source, source / FILES[tool], tree, tmp_path) == {0, 2}
    capsys.readouterr()


def test_a_missing_image_comes_with_the_nearest_name(refused, tmp_path):
    source = exports.labelme(tmp_path / "export", [Shot("town_0001.jpg", [("car", SMALL)])])
    (source / "town_0001.jpg").rename(source / "town_001.jpg")
    assert "did you mean 'town_001.jpg'?" in refused("labelme", source)
