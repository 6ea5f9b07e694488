"""What covers what, which classes there are, where images go, and what the summary says."""

from __future__ import annotations

import base64
import os

import annotation_exports as exports
import numpy as np
import pytest
import yaml
from annotation_exports import HEIGHT, WIDTH, Shot
from PIL import ExifTags, Image

from study.config.task import FolderData
from study.data import open_data
from study.data.__main__ import main
from study.data.convert.export import split_of

LARGE = [(0, 0), (40, 0), (40, 40), (0, 40)]
SMALL = [(10, 10), (20, 10), (20, 20), (10, 20)]
ASIDE = [(50, 10), (60, 10), (60, 20), (50, 20)]
CAR = [Shot("a.jpg", [("car", SMALL)])]
SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("form", exports.WRITERS)
def test_later_objects_cover_earlier_ones(convert, tmp_path, form):
    tool, write = exports.WRITERS[form]
    shapes = [("car", SMALL), ("road", LARGE), ("pole", [(30, 0), (45, 0), (45, 9), (30, 9)])]
    found = convert(tool, write(tmp_path / "export", [Shot("a.jpg", shapes)]))
    assert not found.mask("car").any()
    assert found.mask("pole").sum() == 15 * 9
    assert found.mask("road").sum() == 1600 - 10 * 9
    assert "overlap: 3.958 % of the pixels have two classes; later objects" in found.printed
    assert "warning: objects that lie below others altogether: 1; --order area" in found.printed


def test_smaller_objects_cover_larger_ones_where_asked(convert, tmp_path):
    source = exports.labelme(
        tmp_path / "export", [Shot("a.jpg", [("car", SMALL), ("road", LARGE)])]
    )
    found = convert("labelme", source, "--order", "area")
    assert found.mask("car").sum() == 100 and found.mask("road").sum() == 1500
    assert "smaller objects cover larger ones" in found.printed and "warning" not in found.printed


def test_objects_of_one_class_may_overlap(convert, tmp_path):
    source = exports.labelme(tmp_path / "export", [Shot("a.jpg", [("car", LARGE), ("car", SMALL)])])
    found = convert("labelme", source, "--order", "area")
    assert found.mask("car").sum() == 1600 and "overlap" not in found.printed


def test_an_object_without_a_pixel_is_told(convert, tmp_path):
    speck = [(20.1, 20.1), (20.2, 20.1), (20.2, 20.2)]
    source = exports.yolo(tmp_path / "export", [Shot("a.jpg", [("road", LARGE), ("car", speck)])])
    found = convert("yolo", source)
    assert "warning: objects too small for a pixel: 1" in found.printed
    assert "below others" not in found.printed


def test_a_higher_z_order_of_cvat_covers_a_lower_one(convert, tmp_path):
    shapes = [("car", SMALL, 2), ("road", LARGE, 1), ("pole", LARGE, 0)]
    exports.save_image(tmp_path / "export" / "images" / "a.jpg")
    text = exports.cvat_image("a.jpg", "".join(exports.cvat_polygon(*one) for one in shapes))
    found = convert("cvat", exports.write_cvat(tmp_path / "export", text))
    assert found.mask("car").sum() == 100 and found.mask("road").sum() == 1500
    assert not found.mask("pole").any()


def test_an_xml_file_is_utf_8_whatever_it_declares(convert, tmp_path):
    source = exports.cvat(tmp_path / "export", [Shot("a.jpg", [("car", SMALL)])])
    file = source / "annotations.xml"
    file.write_text(file.read_text().replace("utf-8", "unknown").replace("car", "vélo"), "utf-8")
    assert convert("cvat", source).mask("vélo").sum() == 100


def test_a_crowd_of_coco_lies_below_single_objects(convert, tmp_path):
    source = exports.coco(tmp_path / "export", [Shot()])
    made = [
        exports.annotation(1, 100, "car", [exports.flat(SMALL)]),
        exports.annotation(2, 100, "road", [exports.flat(LARGE)], iscrowd=1),
    ]
    file = source / "annotations" / "instances_default.json"
    exports.write_json(file, exports.coco_tree([Shot()], made))
    found = convert("coco", source)
    assert found.mask("car").sum() == 100 and found.mask("road").sum() == 1500


def test_classes_are_those_with_an_object_in_the_tools_order(convert, tmp_path):
    source = exports.coco(tmp_path / "export", [Shot("a.jpg", [("car", LARGE), ("pole", ASIDE)])])
    found = convert("coco", source)
    assert found.names == ["background", "pole", "car"]  # by their ids, 3 and 7
    assert found.label()[0, 0] == 2 and found.label()[12, 52] == 1 and found.label()[59, 79] == 0
    assert "note: classes without an object, left out: 1" in found.printed


def test_pixels_of_no_object_are_ignored_where_asked(convert, tmp_path):
    source = exports.yolo(tmp_path / "export", [Shot("a.jpg", [("road", LARGE)])])
    found = convert("yolo", source, "--unlabelled", "ignore")
    assert found.names == ["road"]
    assert (found.label() == 255).sum() == HEIGHT * WIDTH - 1600
    assert found.mask("road").sum() == 1600


@pytest.mark.parametrize("name", ["background", "_background_", "Background"])
def test_a_background_of_the_export_is_class_0(convert, tmp_path, name):
    shapes = [("zebra", LARGE), (name, SMALL), ("__ignore__", ASIDE)]
    source = exports.labelme(tmp_path / "export", [Shot("a.jpg", shapes)])
    found = convert("labelme", source, "--unlabelled", "ignore")
    assert found.names == ["background", "zebra"]
    assert found.label()[12, 12] == 0 and found.label()[0, 0] == 1
    assert found.label()[12, 52] == 255 and found.label()[59, 79] == 255


@pytest.mark.parametrize("form", exports.WRITERS)
def test_splits_are_kept_and_the_folder_can_be_read(convert, tmp_path, form):
    tool, write = exports.WRITERS[form]
    shots = [
        Shot(f"{split}{i}.jpg", [("car", SMALL), ("road", ASIDE)], split)
        for split in SPLITS
        for i in range(2)
    ]
    source = write(tmp_path / "export", shots)
    found = convert(tool, source)
    assert "splits" not in found.description
    assert "images: train 2, val 2, test 2" in found.printed
    config = FolderData.model_validate({"format": "folder", "size": [HEIGHT, WIDTH]})
    data = open_data(config, data_root=found.root)
    assert data.class_names == tuple(found.names)
    for name, split in data.splits.items():
        assert [f"{name}0", f"{name}1"] == [*split.names]
        assert split.class_counts.sum(0).tolist() == [2 * (HEIGHT * WIDTH - 200), 200, 200]
    if tool == "cvat":
        assert data.palette[1].tolist() == [0xFF, 0x60, 0x37]


def test_without_splits_all_goes_to_one_folder_that_is_split_by_names(convert, tmp_path):
    shots = [Shot("a.jpg", [("car", SMALL)]), Shot("b.jpg")]
    found = convert("labelstudio", exports.labelstudio(tmp_path / "export", shots))
    assert found.description == {
        "classes": ["background", "car"],
        "splits": {"val": 0.15, "test": 0.15},
        "image_dir": "images",
        "label_dir": "labels",
    }
    assert sorted(path.name for path in (found.root / "images").iterdir()) == ["a.jpg", "b.jpg"]
    assert "images: in one folder 2" in found.printed
    assert "images without any object: 1" in found.printed
    row = next(line for line in found.printed.splitlines() if line.strip().startswith("car"))
    assert row.split() == ["car", "1", f"{100 * 100 / (2 * HEIGHT * WIDTH):.3f}"]
    assert f"next: python -m study.init {found.root}" in found.printed


@pytest.mark.parametrize(
    ("there", "rule", "said"),
    [
        (("train", "val"), {"test": "val"}, "splits: the export has no test, so val is test"),
        (("train", "test"), {"val": 0.15}, "splits: 15% val by the hash of the name"),
    ],
)
def test_a_split_that_the_export_lacks_has_a_rule(convert, tmp_path, there, rule, said):
    shots = [Shot(f"{split}.jpg", [("car", SMALL)], split) for split in there]
    found = convert("yolo", exports.yolo(tmp_path / "export", shots))
    assert found.description == {"classes": ["background", "car"], "splits": rule}
    assert said in found.printed
    assert sorted(path.name for path in (found.root / "images").iterdir()) == sorted(there)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_export_of_one_split_is_split_anew(convert, tmp_path, split):
    shots = [Shot("a.jpg", [("car", SMALL)], split)]
    found = convert("coco", exports.roboflow(tmp_path / "export", shots))
    assert found.description["splits"] == {"val": 0.15, "test": 0.15}
    assert "splits: 15% val and 15% test by the hash of the name" in found.printed


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(("instances_train2017", "train"), ("valid", "val"), ("Validation", "val")),
        *(("training-set", "train"), ("test2", "test"), ("latest", ""), ("train_val", "")),
    ],
)
def test_split_names(name, split):
    assert split_of(name) == split


def test_images_are_copied_byte_by_byte_or_linked(convert, tmp_path):
    source = exports.yolo(tmp_path / "export", [Shot("a.jpg", [("car", SMALL)])])
    image = source / "images" / "a.jpg"
    copied = convert("yolo", source).root / "images" / "a.jpg"
    assert copied.read_bytes() == image.read_bytes() and not os.path.samefile(copied, image)
    assert main(["convert", "yolo", str(source), str(tmp_path / "linked"), "--link"]) == 0
    assert os.path.samefile(tmp_path / "linked" / "images" / "a.jpg", image)


def test_an_image_that_has_moved_beside_its_json_file_is_found(convert, tmp_path):
    exports.save_image(tmp_path / "export" / "a.jpg")
    tree = exports.labelme_tree([exports.shape("car", SMALL)], "..\\photos\\a.jpg")
    exports.write_json(tmp_path / "export" / "a.json", tree)
    assert convert("labelme", tmp_path / "export").mask("car").sum() == 100


def test_an_image_inside_a_json_file_of_labelme_is_written_out(convert, tmp_path):
    image = exports.save_image(tmp_path / "elsewhere" / "a.jpg")
    data = base64.b64encode(image.read_bytes()).decode()
    tree = exports.labelme_tree([exports.shape("car", SMALL)], "C:\\photos\\a.jpg", imageData=data)
    exports.write_json(tmp_path / "export" / "a.json", tree)
    found = convert("labelme", tmp_path / "export")
    assert (found.root / "images" / "a.jpg").read_bytes() == image.read_bytes()
    assert found.mask("car").sum() == 100


@pytest.mark.parametrize(
    ("orientation", "stated", "shape"),
    [
        (6, (WIDTH, HEIGHT), (WIDTH, HEIGHT)),
        (6, (HEIGHT, WIDTH), (HEIGHT, WIDTH)),
        (1, None, (HEIGHT, WIDTH)),
    ],
)
def test_a_label_has_the_size_that_the_tool_has_shown(
    convert, tmp_path, orientation, stated, shape
):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exports.save_image(tmp_path / "export" / "a.jpg", exif=exif)
    height, width = stated or (HEIGHT, WIDTH)
    tree = exports.labelme_tree([exports.shape("car", SMALL)], imageHeight=height, imageWidth=width)
    exports.write_json(tmp_path / "export" / "a.json", tree)
    found = convert("labelme", tmp_path / "export")
    assert found.label().shape == shape
    assert found.mask("car")[10:20, 10:20].all()


def test_yolo_has_seen_a_photograph_upright(convert, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    source = exports.yolo(tmp_path / "export", [Shot("a.jpg", [("car", SMALL)])])
    exports.save_image(source / "images" / "a.jpg", exif=exif)
    assert convert("yolo", source).label().shape == (WIDTH, HEIGHT)


def test_boxes_and_keypoints_are_counted_and_left_out(convert, tmp_path):
    source = exports.coco(tmp_path / "export", [Shot()])
    made = [
        exports.annotation(1, 100, "road", [exports.flat(LARGE)]),
        exports.annotation(2, 100, "car", [], bbox=[50, 10, 10, 20]),
        exports.annotation(3, 100, "pole", [], keypoints=[1, 2, 2], bbox=[1, 1, 2, 2]),
    ]
    file = source / "annotations" / "instances_default.json"
    exports.write_json(file, exports.coco_tree([Shot()], made))
    found = convert("coco", source)
    assert found.names == ["background", "road"]
    assert "note: boxes without an outline, left out (--boxes fills them): 1" in found.printed
    assert "note: annotations of keypoints alone, left out: 1" in found.printed


@pytest.mark.parametrize("flags", [[], ["--boxes"]])
def test_boxes_of_yolo_are_filled_where_asked(convert, tmp_path, flags):
    source = exports.yolo(tmp_path / "export", [Shot("a.jpg", [("road", LARGE)])])
    with (source / "labels" / "a.txt").open("a") as file:
        file.write("0 0.75 0.5 0.25 0.2\n")  # 20 x 12 pixels about (60, 30)
    found = convert("yolo", source, *flags)
    assert ("car" in found.names) == bool(flags)
    if flags:
        assert found.mask("car")[24:36, 50:70].all() and found.mask("car").sum() == 240


def test_of_several_annotations_of_a_task_the_newest_counts(convert, tmp_path):
    exports.save_image(tmp_path / "export" / "a.jpg")
    tree = exports.task([exports.polygon_result("car", SMALL)])
    others = [
        exports.task([exports.polygon_result("pole", SMALL)], updated_at="2025-01-01T00:00:00Z"),
        exports.task(
            [exports.polygon_result("road", SMALL)],
            updated_at="2026-01-01T00:00:00Z",
            was_cancelled=True,
        ),
    ]
    tree["annotations"] += [one["annotations"][0] for one in others]
    unfinished = {**exports.task([], "b.jpg", 2), "annotations": []}
    exports.write_json(tmp_path / "export" / "project.json", [tree, unfinished])
    found = convert("labelstudio", tmp_path / "export")
    assert found.names == ["background", "pole"]
    assert (
        "note: tasks of several annotations, where ground truth or the newest counts: 1"
        in found.printed
    )
    assert "note: tasks without an annotation, left out: 1" in found.printed


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/3/0a1b2c3d-my%20photo.jpg",
        "/data/local-files/?d=town/my%20photo.jpg",
        "s3://bucket/town/my photo.jpg",
        "https://example.org/town/my%20photo.jpg?X-Amz-Signature=abc",
    ],
)
def test_label_studio_names_images_by_address(convert, tmp_path, address):
    exports.save_image(tmp_path / "photos" / "my photo.jpg")
    tree = exports.task([exports.polygon_result("car", SMALL)]) | {
        "data": {"text": "http://[", "image": address}
    }
    file = exports.write_json(tmp_path / "export" / "project.json", [tree])
    found = convert("labelstudio", file, "--images", str(tmp_path / "photos"))
    assert found.mask("car", "my photo").sum() == 100


def test_images_of_another_kind_are_named_in_classes_yaml(convert, tmp_path):
    source = exports.labelme(tmp_path / "export", [Shot("a.tif", [("car", SMALL)])])
    assert convert("labelme", source).description["image_suffix"] == ".tif"


def test_images_without_an_annotation_file_are_counted(convert, tmp_path):
    source = exports.labelme(tmp_path / "export", [Shot("a.jpg", [("car", SMALL)])])
    for name in ("b.jpg", "c.jpg"):
        exports.save_image(source / name)
    assert (
        "note: images below SRC that are not in the export: 2" in convert("labelme", source).printed
    )


def test_a_label_of_many_classes_is_still_an_8_bit_png(convert, tmp_path):
    shapes = [
        (f"c{i:03d}", [(x, 0), (x + 1, 0), (x + 1, 9), (x, 9)]) for i, x in enumerate(range(70))
    ]
    source = exports.labelme(tmp_path / "export", [Shot("a.jpg", shapes)])
    found = convert("labelme", source)
    assert np.unique(found.label()).tolist() == [*range(71)]
    assert yaml.safe_load((found.root / "classes.yaml").read_text())["classes"][70] == "c069"


def test_data_yaml_may_lie_one_folder_below(convert, tmp_path):
    exports.yolo(tmp_path / "export" / "project", CAR)
    assert "car" in convert("yolo", tmp_path / "export").names


def test_a_file_of_coco_without_images_is_passed_over(convert, tmp_path):
    root = exports.coco(tmp_path / "export", CAR)
    empty = {"images": [], "annotations": [], "categories": []}
    for file in [*root.rglob("*.json")]:
        exports.write_json(file.with_name(f"{file.stem}_unofficial.json"), empty)
    assert "car" in convert("coco", root).names
