"""Exports of VIA and Supervisely, COCO's panoptic masks, and tables of run-length codes."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from annotation_exports import HEIGHT, WIDTH, codes_of_hostile, save_image, write_json
from PIL import Image

from study.data.__main__ import main
from study.data.formats.folder_pairs import cells

BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[5:30, 10:50] = True
DOT = np.zeros((HEIGHT, WIDTH), bool)
DOT[40:44, 60:70] = True
CORNERS = [[10, 5], [50, 5], [50, 30], [10, 30]]


def via(root: Path, *, is_project: bool = False) -> Path:
    save_image(root / "train/a.jpg")
    across, down = map(list, zip(*CORNERS, strict=True))
    shapes = [
        {"name": "polygon", "all_points_x": across, "all_points_y": down},
        {"name": "rect", "x": 60, "y": 40, "width": 10, "height": 4},
        {"name": "point", "cx": 1, "cy": 1},
    ]  # fmt: skip
    about = [{"kind": "car", "type": "big"}, {"kind": "bus", "type": "small"}, {}]
    regions = [
        {"shape_attributes": shape, "region_attributes": one}
        for shape, one in zip(shapes, about, strict=True)
    ]
    entry = {"filename": "a.jpg", "size": 1, "regions": regions, "file_attributes": {}}
    tree: dict[str, object] = {"a.jpg1": entry}
    if is_project:
        tree = {"_via_settings": {}, "_via_img_metadata": tree}
    write_json(root / "train/via_region_data.json", tree)
    return root


@pytest.mark.parametrize("is_project", [False, True])
def test_regions_of_via_have_the_class_of_their_attribute(convert, tmp_path, is_project):
    converted = convert("via", via(tmp_path / "export", is_project=is_project))
    assert converted.names == ["background", "big", "small"]  # `type`, before any other
    assert np.array_equal(converted.mask("big"), BOX)
    assert np.array_equal(converted.mask("small"), DOT)
    assert "note: points and lines, which have no area, left out: 1" in converted.printed


def bits(mask: np.ndarray) -> str:
    shown = np.zeros((*mask.shape, 4), np.uint8)
    shown[mask] = 255
    Image.fromarray(shown).save(content := io.BytesIO(), "PNG")
    return base64.b64encode(zlib.compress(content.getvalue())).decode()


def supervisely(root: Path) -> Path:
    save_image(root / "ds/img/a.jpg")
    hole = [[20, 10], [30, 10], [30, 20], [20, 20]]
    objects = [
        {"classTitle": "car", "geometryType": "polygon",
         "points": {"exterior": CORNERS, "interior": [hole]}},
        {"classTitle": "dot", "geometryType": "bitmap",
         "bitmap": {"origin": [58, 39], "data": bits(DOT[39:45, 58:72])}},
        {"classTitle": "way", "geometryType": "line",
         "points": {"exterior": CORNERS, "interior": []}},
    ]  # fmt: skip
    write_json(
        root / "ds/ann/a.jpg.json",
        {"size": {"height": HEIGHT, "width": WIDTH}, "tags": [], "objects": objects},
    )
    classes = [{"title": "car", "color": "#FF0000"}, {"title": "dot", "color": "#00FF00"}]
    write_json(root / "meta.json", {"classes": classes})
    return root


def test_polygons_with_holes_and_bitmaps_of_supervisely(convert, tmp_path):
    converted = convert("supervisely", supervisely(tmp_path / "export"))
    expected = BOX.copy()
    expected[10:20, 20:30] = False
    assert np.array_equal(converted.mask("car"), expected)
    assert np.array_equal(converted.mask("dot"), DOT)
    assert converted.description["classes"][1] == {"name": "car", "color": [255, 0, 0]}


HOLE = [[20, 10], [30, 10], [30, 20], [20, 20]]


def with_a_hole() -> np.ndarray:
    expected = BOX.copy()
    expected[10:20, 20:30] = False
    return expected


def darwin(root: Path, *, version: int = 2) -> Path:
    save_image(root / "images/a.jpg")
    paths = [[{"x": x, "y": y} for x, y in ring] for ring in (CORNERS, HOLE)]
    outline: dict[str, object] = {"polygon": {"paths": paths}}
    item: dict[str, object] = {
        "name": "a.jpg", "slots": [{"type": "image", "width": WIDTH, "height": HEIGHT}],
    }  # fmt: skip
    if version == 1:
        outline = {"polygon": {"path": paths[0], "additional_paths": paths[1:]}}
        item = {"filename": "a.jpg", "width": WIDTH, "height": HEIGHT}
    annotations = [
        {"name": "leaf", **outline},
        {"name": "box", "bounding_box": {"x": 58, "y": 40, "w": 12, "h": 4}},
        {"name": "far", "tag": {}},
    ]
    tree = {("image", "item")[version - 1]: item, "annotations": annotations}
    write_json(root / "releases/a.json", tree)
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_polygons_of_v7_have_holes(convert, tmp_path, version):
    converted = convert("darwin", darwin(tmp_path / "export", version=version))
    assert np.array_equal(converted.mask("leaf"), with_a_hole())
    assert converted.names == ["background", "leaf"]  # no box unless --boxes draws it
    assert "note: annotations without an area, left out: 1" in converted.printed
    assert "note: boxes without an outline, left out (--boxes fills them): 1" in converted.printed


def darwin_masks(root: Path) -> Path:
    save_image(root / "images/a.jpg")
    values = np.where(BOX, 3, np.where(DOT, 1, 0)).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [values.size]])
    pairs = zip(values[starts[:-1]].tolist(), np.diff(starts).tolist(), strict=True)
    layer = {
        "dense_rle": [one for pair in pairs for one in pair],
        "mask_annotation_ids_mapping": {"m-leaf": 3, "m-dot": 1},
        "total_pixels": values.size,
    }
    annotations = [
        {"id": "m-leaf", "name": "leaf", "mask": {}},
        {"id": "m-dot", "name": "dot", "mask": {}},
        {"id": "r", "name": "__raster_layer__", "raster_layer": layer},
    ]
    write_json(
        root / "a.json", {"item": {"name": "a.jpg", "slots": []}, "annotations": annotations}
    )
    return root


def test_masks_of_v7_are_in_its_raster_layer(convert, tmp_path):
    converted = convert("darwin", darwin_masks(tmp_path / "export"))
    assert converted.names == ["background", "dot", "leaf"]
    assert np.array_equal(converted.mask("leaf"), BOX)
    assert np.array_equal(converted.mask("dot"), DOT)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"id": "m-dot"', '"id": "x"', "annotations/1: no raster layer of the image has this mask"),
        (
            '"dense_rle": [0, ',
            '"dense_rle": [0, 9',
            "annotations/2/raster_layer/dense_rle: the mask",
        ),
        ('"dense_rle": [', '"dense_rle": [0, ', "dense_rle: must be values and lengths by turns"),
    ],
)
def test_a_damaged_raster_layer_is_named(refused, tmp_path, old, new, says):
    root = darwin_masks(tmp_path / "export")
    text = (root / "a.json").read_text()
    assert old in text
    (root / "a.json").write_text(text.replace(old, new))
    assert says in refused("darwin", root)


def feature(rings: object, kind: str = "Polygon", **about: object) -> dict[str, object]:
    geometry = {"type": kind, "coordinates": rings}
    return {"type": "Feature", "geometry": geometry, "properties": about}


def qupath(root: Path, **more: object) -> Path:
    save_image(root / "tiles/a.jpg")
    dot = [[60, 40], [70, 40], [70, 44], [60, 44], [60, 40]]
    features = [
        feature([CORNERS, HOLE], classification={"name": "Tumor", "color": [1, 2, 3]}),
        feature([[dot]], "MultiPolygon", classification="Stroma"),
        feature([3, 4], "Point"),
    ]
    write_json(root / "a.geojson", {"type": "FeatureCollection", "features": features, **more})
    return root


def xml(root: Path, *, is_asap: bool = False) -> Path:
    save_image(root / "tiles/a.jpg")
    tag = "Coordinate" if is_asap else "Vertex"

    def corners(ring: list[list[int]]) -> str:
        listed = enumerate(ring)
        return "".join(f'<{tag} Order="{at}" X="{x}" Y="{y}"/>' for at, (x, y) in listed)

    if is_asap:
        one = f"<Coordinates>{corners(CORNERS)}</Coordinates>"
        text = f'<Annotation Name="1" PartOfGroup="Tumor" Type="Polygon">{one}</Annotation>'
        text = f"<ASAP_Annotations><Annotations>{text}</Annotations></ASAP_Annotations>"
    else:
        regions = "".join(
            f'<Region NegativeROA="{at}"><Vertices>{corners(ring)}</Vertices></Region>'
            for at, ring in enumerate((CORNERS, HOLE))
        )
        text = f'<Annotation Id="1" Name="Tumor"><Regions>{regions}</Regions></Annotation>'
        text = f"<Annotations>{text}</Annotations>"
    (root / "a.xml").write_text(text)
    return root


def asap(root: Path) -> Path:
    return xml(root, is_asap=True)


@pytest.mark.parametrize(
    ("write", "expected"), [(qupath, with_a_hole()), (xml, with_a_hole()), (asap, BOX)]
)
def test_regions_of_slide_viewers_are_drawn(convert, tmp_path, write, expected):
    converted = convert("regions", write(tmp_path / "export"))
    assert np.array_equal(converted.mask("Tumor"), expected)
    if write is qupath:
        assert np.array_equal(converted.mask("Stroma"), DOT)
        assert "note: points and lines, which have no area, left out: 1" in converted.printed


def test_coordinates_of_a_map_are_no_pixels(refused, tmp_path):
    root = qupath(tmp_path / "export", crs={"type": "name"})
    assert "a.geojson: crs: coordinates of a map are not pixels" in refused("regions", root)


def test_shapes_without_a_path_belong_to_the_image_of_their_name(convert, tmp_path):
    root = tmp_path / "export"
    for split in ("train", "test"):
        save_image(root / f"images/{split}/a.jpg")
        shapes = [{"label": "car", "points": CORNERS, "shape_type": "polygon"}]
        write_json(root / f"annotations/{split}/a.json", {"shapes": shapes})
    assert np.array_equal(convert("labelme", root).mask("car", split="test"), BOX)


def test_images_of_one_name_get_those_of_their_folders(convert, tmp_path):
    root = tmp_path / "export"
    shapes = [{"label": "car", "points": CORNERS, "shape_type": "polygon"}]
    for batch in "xy":
        save_image(root / f"{batch}/a.jpg")
        tree = {"shapes": shapes if batch == "y" else [], "imagePath": "a.jpg"}
        write_json(root / f"{batch}/a.json", tree)
    converted = convert("labelme", root)
    assert np.array_equal(converted.mask("car", "y_a"), BOX)
    assert not converted.label("x_a").any()


def panoptic(root: Path) -> Path:
    save_image(root / "images/a.jpg")
    numbers = np.where(BOX, 300, np.where(DOT, 70000, 7))
    rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1).astype(np.uint8)
    (root / "panoptic").mkdir()
    Image.fromarray(rgb).save(root / "panoptic/a.png")
    segments = [{"id": 300, "category_id": 1}, {"id": 70000, "category_id": 2},
                {"id": 7, "category_id": 3}]  # fmt: skip
    tree = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": at, "name": name} for at, name in ((1, "car"), (2, "dot"), (3, "sky"))
        ],
    }
    write_json(root / "panoptic.json", tree)
    return root


def test_segments_of_panoptic_masks_have_their_categories(convert, tmp_path):
    converted = convert("coco", panoptic(tmp_path / "export"))
    assert np.array_equal(converted.mask("car"), BOX)
    assert np.array_equal(converted.mask("dot"), DOT)
    assert np.array_equal(converted.mask("sky"), ~BOX & ~DOT)
    assert "no pixel is background; --unlabelled ignore leaves this class out" in converted.printed


def darwin_1(root: Path) -> Path:
    return darwin(root, version=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "write", "name"),
    [
        ("via", via, "train/via_region_data.json"),
        ("supervisely", supervisely, "ds/ann/a.jpg.json"),
        ("darwin", darwin, "releases/a.json"),
        ("darwin", darwin_1, "releases/a.json"),
        ("darwin", darwin_masks, "a.json"),
        ("regions", qupath, "a.geojson"),
        ("coco", panoptic, "panoptic.json"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_nothing_in_their_json_files_leads_to_a_traceback(tmp_path, capsys, tool, write, name):
    source = write(tmp_path / "export")
    tree = json.loads((source / name).read_text())
    assert codes_of_hostile(tool, source, source / name, tree, tmp_path) == {0, 2}
    capsys.readouterr()


@pytest.mark.parametrize("attribute", ["X", "Y", "Order", "NegativeROA", "Name"])
@pytest.mark.parametrize("value", ["", "x", "nan", "1e400", "-1e9"])
def test_no_attribute_of_regions_leads_to_a_traceback(tmp_path, capsys, attribute, value):
    source = xml(tmp_path / "export")
    text = (source / "a.xml").read_text()
    (source / "a.xml").write_text(re.sub(rf'{attribute}="[^"]*"', f'{attribute}="{value}"', text))
    assert main(["convert", "regions", str(source), str(tmp_path / "made")]) in (0, 2)
    capsys.readouterr()


def code(mask: np.ndarray, order: Literal["C", "F"]) -> str:
    flat = np.concatenate([[0], mask.ravel(order).astype(np.int8), [0]])
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))


def table(root: Path, head: str, *rows: str) -> Path:
    for name in "ab":
        save_image(root / f"train/{name}.jpg")
    (root / "train.csv").write_text("\n".join([head, *rows]))
    (root / "sample_submission.csv").write_text("ImageId,EncodedPixels\na.jpg,999999 1\n")
    return root


def test_long_codes_are_read_and_the_limit_of_other_readers_stays():
    limit, long = csv.field_size_limit(), "9" * 200_000
    assert cells([f"a.jpg,{long}"]) == [["a.jpg", long]]
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("head", "box", "dot", "none"),
    [
        ("ImageId,EncodedPixels,ClassId", "a.jpg,{},car", "a.jpg,{},dot", "b.jpg,,"),
        ("Image_Label,EncodedPixels", "a.jpg_car,{}", "a.jpg_dot,{}", "b.jpg_car,"),
        ("id,class,segmentation", "a,car,{}", "a,dot,{}", "b,car,"),
    ],
)
@pytest.mark.parametrize(("tool", "order"), [("rle", "F"), ("rle-rows", "C")])
def test_codes_of_tables_are_drawn(convert, tmp_path, head, box, dot, none, tool, order):
    rows = box.format(code(BOX, order)), dot.format(code(DOT, order)), none
    converted = convert(tool, table(tmp_path / "export", head, *rows))
    assert np.array_equal(converted.mask("car"), BOX)
    assert np.array_equal(converted.mask("dot"), DOT)
    assert not converted.label("b").any()


@pytest.mark.parametrize("is_list", [False, True])
def test_codes_of_parquet_are_drawn(convert, tmp_path, is_list):
    import pandas as pd

    root = table(tmp_path / "export", "ImageId,EncodedPixels")
    codes: list[object] = [code(BOX, "F"), code(DOT, "F"), None]
    if is_list:
        codes = [list(map(int, str(one).split())) if one else None for one in codes]
    rows = {"id": ["a", "a", "b"], "class": ["car", "dot", "car"], "rle": codes}
    pd.DataFrame(rows).to_parquet(root / "train.parquet")
    converted = convert("rle", root)
    assert np.array_equal(converted.mask("car"), BOX)
    assert np.array_equal(converted.mask("dot"), DOT)
    assert not converted.label("b").any()


def test_a_damaged_parquet_is_named(refused, tmp_path):
    root = table(tmp_path / "export", "ImageId,EncodedPixels")
    (root / "train.parquet").write_bytes(b"PAR1 and no more")
    assert "train.parquet: cannot read the table (" in refused("rle", root)


def test_codes_read_in_the_wrong_order_are_told(refused, tmp_path):
    root = table(tmp_path / "export", "ImageId,EncodedPixels", f"a.jpg,{code(BOX, 'C')}")
    assert "`convert rle-rows` reads them along the rows" in refused("rle", root)


def test_a_code_may_be_longer_than_a_csv_module_expects(convert, tmp_path):
    long = " ".join([code(BOX, "F")] * (140_000 // len(code(BOX, "F"))))
    converted = convert("rle", table(tmp_path / "export", "id,code", f"a.jpg,{long}", "b.jpg,"))
    assert np.array_equal(converted.mask("object"), BOX)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a.jpg,4798 9", "train.csv:2: the code leaves the image of 60x80"),
        ("c.jpg,1 2", "train.csv:3: no image 'c.jpg' below"),
        ("a.jpg,1 2 3", "found no table with run-length codes of images"),
        ("ax,1 2", "train.csv has codes, but no image is called 'ax', as 'a.jpg' is"),
    ],
)
def test_rows_that_cannot_be_used_are_named(refused, tmp_path, row, says):
    rows = (row,) if row.startswith("a") else ("a.jpg,1 2", row)
    assert says in refused("rle", table(tmp_path / "export", "ImageId,EncodedPixels", *rows))


@pytest.mark.parametrize(("tool", "write"), [("via", via), ("supervisely", supervisely)])
def test_an_export_of_another_tool_is_one_line(refused, tmp_path, tool, write):
    other = {"via": supervisely, "supervisely": via}[tool]
    assert "found no JSON file with" in refused(tool, other(tmp_path / "export"))


def test_the_converter_that_fits_is_named(tmp_path):
    from study.data.formats.folder_hints import convert_command

    box = f"a.jpg,{code(BOX, 'F')}"
    for tool, root in (
        ("via", via(tmp_path / "v")),
        ("supervisely", supervisely(tmp_path / "s")),
        ("coco", panoptic(tmp_path / "p")),
        ("darwin", darwin(tmp_path / "d")),
        ("darwin", darwin_masks(tmp_path / "e")),
        ("regions", qupath(tmp_path / "q")),
        ("regions", xml(tmp_path / "x")),
        ("regions", asap(tmp_path / "y")),
        ("rle", table(tmp_path / "r", "ImageId,EncodedPixels", box)),
    ):
        assert f"study.data convert {tool} " in convert_command(root)
