"""Exports of Datumaro, Encord, Labelbox and SuperAnnotate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_exports import HEIGHT, WIDTH, codes_of_hostile, flat, save_image, write_json
from pycocotools import mask as coco_mask

CORNERS = [(10.0, 5.0), (50.0, 5.0), (50.0, 30.0), (10.0, 30.0)]
HOLE = [(20.0, 10.0), (30.0, 10.0), (30.0, 20.0), (20.0, 20.0)]
BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[5:30, 10:50] = True
WITH_A_HOLE = BOX.copy()
WITH_A_HOLE[10:20, 20:30] = False
DOT = np.zeros((HEIGHT, WIDTH), bool)
DOT[40:44, 60:70] = True


def points(ring: list[tuple[float, float]], width: float = 1, height: float = 1) -> list[Any]:
    return [{"x": x / width, "y": y / height} for x, y in ring]


def encoded(mask: np.ndarray) -> str:
    """COCO's text of a mask; of one that lies row by row, if the mask is turned over."""
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def datumaro(root: Path) -> Path:
    save_image(root / "images/default/town/a.jpg")
    annotations = [
        {"id": 0, "type": "mask", "label_id": 1, "z_order": 2,
         "rle": {"counts": encoded(DOT), "size": [HEIGHT, WIDTH]}},
        {"id": 1, "type": "polygon", "label_id": 0, "points": flat(CORNERS), "z_order": 0},
        {"id": 2, "type": "polygon", "label_id": 1, "points": flat(HOLE), "z_order": 1},
        {"id": 3, "type": "bbox", "label_id": 0, "bbox": [60, 50, 5, 5], "z_order": 0},
        {"id": 4, "type": "points", "label_id": 0, "points": [1, 2], "z_order": 0},
    ]  # fmt: skip
    image = {"path": "town/a.jpg", "size": [HEIGHT, WIDTH]}
    tree = {
        "info": {},
        "categories": {"label": {"labels": [{"name": "car", "parent": ""}, {"name": "bus"}]}},
        "items": [{"id": "town/a", "annotations": annotations, "image": image}],
    }
    write_json(root / "annotations/default.json", tree)
    return root


def test_datumaro_is_drawn_by_its_order_of_depth(convert, tmp_path):
    converted = convert("datumaro", datumaro(tmp_path / "export"))
    assert converted.names == ["background", "car", "bus"]
    assert np.array_equal(converted.mask("car"), WITH_A_HOLE)
    assert np.array_equal(converted.mask("bus"), DOT | (BOX & ~WITH_A_HOLE))
    assert "note: annotations without an area, left out: 1" in converted.printed
    assert "note: boxes without an outline, left out (--boxes fills them): 1" in converted.printed


def test_ellipses_of_datumaro_fill_their_box(convert, tmp_path):
    root = datumaro(tmp_path / "export")
    file = root / "annotations/default.json"
    tree = json.loads(file.read_text())
    ellipse = {"type": "ellipse", "label_id": 0, "points": [10, 10, 50, 30], "z_order": 0}
    tree["items"][0]["annotations"] = [ellipse]
    write_json(file, tree)
    area = int(convert("datumaro", root).mask("car").sum())
    assert abs(area - np.pi * 20 * 10) < 20


def encord(root: Path, *, is_old: bool = False) -> Path:
    save_image(root / "images/a.jpg")
    scaled = [[x / WIDTH if at % 2 == 0 else x / HEIGHT for at, x in enumerate(flat(ring))]
              for ring in (CORNERS, HOLE)]  # fmt: skip
    corners = points(CORNERS, WIDTH, HEIGHT)
    outline: dict[str, Any] = {"polygon": {str(at): one for at, one in enumerate(corners)}}
    if not is_old:
        outline["polygons"] = [scaled]
    part = DOT[38:46, 55:75]
    bitmask = {"top": 38, "left": 55, "width": 20, "height": 8, "rleString": encoded(part.T)}
    box = {"x": 0.1, "y": 0.9, "w": 0.05, "h": 0.05}
    objects = [
        {"name": "car", "value": "car", "shape": "polygon", **outline},
        {"name": "bus", "value": "bus", "shape": "bitmask", "bitmask": bitmask},
        {"name": "box", "shape": "bounding_box", "boundingBox": box},
        {"name": "turned", "shape": "rotatable_bounding_box",
         "rotatableBoundingBox": {**box, "theta": 30}},
        {"name": "dot", "shape": "point", "point": {"0": {"x": 0.5, "y": 0.5}}},
    ]  # fmt: skip
    unit = {
        "data_hash": "d", "data_title": "a.jpg", "data_type": "image/jpeg",
        "width": WIDTH, "height": HEIGHT, "labels": {"objects": objects, "classifications": []},
    }  # fmt: skip
    row = {
        "label_hash": "l",
        "data_title": "a.jpg",
        "data_type": "image",
        "data_units": {"d": unit},
    }
    write_json(root / "labels.json", [row])
    return root


@pytest.mark.parametrize("is_old", [False, True])
def test_polygons_and_bitmasks_of_encord(convert, tmp_path, is_old):
    converted = convert("encord", encord(tmp_path / "export", is_old=is_old))
    assert converted.names == ["background", "bus", "car"]
    assert np.array_equal(converted.mask("car"), BOX if is_old else WITH_A_HOLE)
    assert np.array_equal(converted.mask("bus"), DOT)
    assert "note: objects without an area, left out: 1" in converted.printed
    assert "note: boxes without an outline, left out (--boxes fills them): 2" in converted.printed


def test_a_turned_box_of_encord_is_turned_about_its_middle(convert, tmp_path):
    root = encord(tmp_path / "export")
    tree = json.loads((root / "labels.json").read_text())
    box = {"x": 20 / WIDTH, "y": 26 / HEIGHT, "w": 40 / WIDTH, "h": 8 / HEIGHT, "theta": 90}
    turned = {"name": "bar", "shape": "rotatable_bounding_box", "rotatableBoundingBox": box}
    tree[0]["data_units"]["d"]["labels"]["objects"] = [turned]
    write_json(root / "labels.json", tree)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[10:50, 36:44] = True  # 40 wide and 8 high about (40, 30), upright now
    assert np.array_equal(convert("encord", root, "--boxes").mask("bar"), expected)


def test_labels_of_videos_are_refused(refused, tmp_path):
    root = encord(tmp_path / "export")
    tree = json.loads((root / "labels.json").read_text())
    unit = tree[0]["data_units"]["d"]
    unit["labels"] = {"0": unit["labels"]}
    write_json(root / "labels.json", tree)
    assert "labels.json: 0/data_units/d/labels: labels of the frames of a video" in refused(
        "encord", root
    )


def test_a_bitmask_that_leaves_its_image_is_refused(refused, tmp_path):
    root = encord(tmp_path / "export")
    text = (root / "labels.json").read_text().replace('"width": 20', '"width": 2000000000')
    (root / "labels.json").write_text(text)
    assert "the mask of 8x2000000000 at (55, 38) leaves the image of 60x80" in refused(
        "encord", root
    )


def labelbox(root: Path) -> Path:
    for name in "ab":
        save_image(root / f"images/{name}.jpg")
    box = {"left": 2, "top": 50, "width": 5, "height": 5}
    objects = [
        {"name": "car", "annotation_kind": "ImagePolygon", "polygon": points(CORNERS)},
        {"name": "bus", "polygon": points(HOLE)},
        {"name": "box", "annotation_kind": "ImageBoundingBox", "bounding_box": box},
        {"name": "dot", "annotation_kind": "ImagePoint", "point": {"x": 1, "y": 1}},
    ]
    labels = [{"annotations": {"objects": some}} for some in (objects, [])]
    rows = []
    for name, some in (("a", labels), ("b", [])):
        about = {"id": "c", "external_id": f"{name}.jpg", "row_data": f"https://x.y/{name}.jpg?z=1"}
        media = {"height": HEIGHT, "width": WIDTH}
        rows.append(
            {"data_row": about, "media_attributes": media, "projects": {"p": {"labels": some}}}
        )
    (root / "export.ndjson").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root


def labelbox_list(root: Path) -> Path:
    """The older export."""
    save_image(root / "images/a.jpg")
    objects = [
        {"title": "car", "value": "car_1", "polygon": points(CORNERS)},
        {"title": "bus", "value": "bus_1", "polygon": points(HOLE)},
        {"title": "box", "bbox": {"left": 2, "top": 50, "width": 5, "height": 5}},
        {"title": "way", "line": points(HOLE)},
    ]
    skipped = {"ID": "d", "External ID": "b.jpg", "Label": {}, "Skipped": True}
    row = {"ID": "c", "External ID": "a.jpg", "Label": {"objects": objects}}
    write_json(root / "export.json", [row, skipped])
    return root


@pytest.mark.parametrize("write", [labelbox, labelbox_list])
def test_polygons_of_labelbox(convert, tmp_path, write):
    converted = convert("labelbox", write(tmp_path / "export"))
    assert converted.names == ["background", "bus", "car"]
    assert np.array_equal(converted.mask("car"), WITH_A_HOLE)
    assert not (converted.root / "labels" / "b.png").exists()
    assert "note: images without a label, left out: 1" in converted.printed
    assert "note: objects without an area, left out: 1" in converted.printed
    assert "note: boxes without an outline, left out (--boxes fills them): 1" in converted.printed
    if write is labelbox:
        assert "note: further labels of an image, left out: 1" in converted.printed


def test_an_image_is_found_by_the_end_of_its_address(convert, tmp_path):
    root = labelbox(tmp_path / "export")
    text = (
        (root / "export.ndjson").read_text().replace('"external_id": "a.jpg"', '"global_key": "q"')
    )
    (root / "export.ndjson").write_text(text)
    assert np.array_equal(convert("labelbox", root).mask("car"), WITH_A_HOLE)


def test_masks_that_are_links_are_refused(refused, tmp_path):
    root = labelbox(tmp_path / "export")
    text = (root / "export.ndjson").read_text().replace('"point"', '"mask"')
    (root / "export.ndjson").write_text(text)
    said = refused("labelbox", root)
    assert "export.ndjson:1: projects/p/labels/0/annotations/objects/3: masks are links" in said


def test_a_damaged_line_is_named(refused, tmp_path):
    root = labelbox(tmp_path / "export")
    with (root / "export.ndjson").open("a") as file:
        file.write('{"data_row": \n')
    assert "export.ndjson:3: the line is not JSON" in refused("labelbox", root)


def superannotate(root: Path) -> Path:
    save_image(root / "a.jpg")
    instances = [
        {"type": "polygon", "classId": 1, "className": "car", "points": flat(CORNERS),
         "exclude": [flat(HOLE)]},
        {"type": "rbbox", "classId": 2, "points": dict(zip(
            ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"),
            (60, 40, 70, 40, 70, 44, 60, 44), strict=True))},
        {"type": "bbox", "classId": 2, "points": {"x1": 1, "y1": 50, "x2": 5, "y2": 55}},
        {"type": "ellipse", "classId": 3, "cx": 20, "cy": 45, "rx": 6, "ry": 4, "angle": 0},
        {"type": "point", "classId": 1, "x": 1, "y": 1},
    ]  # fmt: skip
    metadata = {"name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    write_json(root / "a.jpg.json", {"metadata": metadata, "instances": instances, "tags": []})
    classes = [{"id": at, "name": name} for at, name in enumerate(("car", "bus", "pond"), start=1)]
    write_json(root / "classes/classes.json", classes)
    return root


def superannotate_project(root: Path) -> Path:
    """All images in one file, as in older exports."""
    superannotate(root)
    tree = json.loads((root / "a.jpg.json").read_text())
    (root / "a.jpg.json").unlink()
    write_json(root / "annotations.json", {"a.jpg": tree["instances"], "___tags___": []})
    return root


@pytest.mark.parametrize("write", [superannotate, superannotate_project])
def test_instances_of_superannotate(convert, tmp_path, write):
    converted = convert("superannotate", write(tmp_path / "export"), "--boxes")
    assert converted.names == ["background", "bus", "car", "pond"]
    assert np.array_equal(converted.mask("car"), WITH_A_HOLE)
    assert np.array_equal(converted.mask("bus") & DOT, DOT)
    assert abs(int(converted.mask("pond").sum()) - np.pi * 6 * 4) < 8
    assert "note: instances without an area, left out: 1" in converted.printed


def test_the_older_name_of_a_file_names_its_image(convert, tmp_path):
    root = superannotate(tmp_path / "export")
    tree = json.loads((root / "a.jpg.json").read_text())
    (root / "a.jpg.json").unlink()
    write_json(root / "a.jpg___objects.json", {"instances": tree["instances"]})
    assert np.array_equal(convert("superannotate", root).mask("car"), WITH_A_HOLE)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classId": 9}, "a.jpg.json: instances/0/classId: no classes.json has a class 9"),
        ({"parts": []}, "a.jpg.json: instances/0: instances of pixel projects are not read"),
        ({"points": [1, 2, 3]}, "a.jpg.json: instances/0/points: a polygon must be a list of x"),
    ],
)
def test_what_cannot_be_drawn_is_named(refused, tmp_path, change, says):
    root = superannotate(tmp_path / "export")
    tree = json.loads((root / "a.jpg.json").read_text())
    tree["instances"][0] |= {"className": "", **change}
    write_json(root / "a.jpg.json", tree)
    assert says in refused("superannotate", root)


def test_the_folders_of_images_tell_their_split_where_the_export_does_not(convert, tmp_path):
    root = encord(tmp_path / "export")
    rows = []
    for split in ("train", "val", "test"):
        save_image(root / f"images/{split}/{split}.jpg")
        text = (root / "labels.json").read_text().replace("a.jpg", f"{split}.jpg")
        rows += json.loads(text)
    write_json(root / "labels.json", rows)
    converted = convert("encord", root)
    for split in ("train", "val", "test"):
        assert np.array_equal(converted.mask("car", split, split), WITH_A_HOLE)
    assert "images: train 1, val 1, test 1" in converted.printed


WRITERS: list[tuple[str, Callable[[Path], Path], str]] = [
    ("datumaro", datumaro, "annotations/default.json"),
    ("encord", encord, "labels.json"),
    ("labelbox", labelbox_list, "export.json"),
    ("superannotate", superannotate, "a.jpg.json"),
    ("superannotate", superannotate_project, "annotations.json"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "write", "name"), [one for one in WRITERS if one[1] is not superannotate_project]
)
def test_nothing_in_their_files_leads_to_a_traceback(tmp_path, capsys, tool, write, name):
    source = write(tmp_path / "export")
    tree = json.loads((source / name).read_text())
    values = None, 1e300, [[]], "http://["
    assert codes_of_hostile(tool, source, source / name, tree, tmp_path, values) == {0, 2}
    capsys.readouterr()


@pytest.mark.parametrize(("tool", "write", "name"), WRITERS)
def test_the_converter_that_fits_is_named(tmp_path, tool, write, name):
    from study.data.formats.folder_hints import convert_command

    assert f"study.data convert {tool} " in convert_command(write(tmp_path / "export"))


@pytest.mark.parametrize("tool", ["datumaro", "encord", "labelbox", "superannotate"])
def test_an_export_of_another_tool_is_one_line(refused, tmp_path, tool):
    write = encord if tool != "encord" else datumaro
    assert "found no " in refused(tool, write(tmp_path / "export"))
