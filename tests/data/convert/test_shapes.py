"""Drawn shapes have the area and the place that geometry says, whichever tool has drawn them."""

from __future__ import annotations

import math

import annotation_exports as exports
import numpy as np
import pytest
from annotation_exports import HEIGHT, WIDTH, Shot
from pycocotools import mask as coco_mask

from study.data.convert.export import Place
from study.data.convert.labelstudio import brush_values
from study.data.convert.raster import coco_counts

RECTANGLE = [(10, 5), (50, 5), (50, 30), (10, 30)]
TRIANGLE = [(8.3, 6.1), (61.7, 12.4), (30.2, 51.9)]
DISC = [
    (40 + 20.5 * math.cos(a), 30 + 20.5 * math.sin(a))
    for a in np.linspace(0, 2 * math.pi, 120, endpoint=False)
]


def area(ring):
    return (
        abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)))
        / 2
    )


def perimeter(ring):
    return sum(math.dist(a, b) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))


@pytest.mark.parametrize("ring", [RECTANGLE, TRIANGLE, DISC], ids=["rectangle", "triangle", "disc"])
@pytest.mark.parametrize("form", exports.WRITERS)
def test_a_polygon_has_its_area_and_its_centre(convert, tmp_path, form, ring):
    tool, write = exports.WRITERS[form]
    source = write(tmp_path / "export", [Shot("a.jpg", [("car", ring)])])
    mask = convert(tool, source).mask("car")
    assert mask.shape == (HEIGHT, WIDTH)
    assert abs(mask.sum() - area(ring)) <= perimeter(ring) / 2
    rows, columns = np.nonzero(mask)
    corners = np.array(ring)
    if ring is RECTANGLE:
        assert mask[5:30, 10:50].all() and mask.sum() == 40 * 25
    elif ring is TRIANGLE:
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(corners.mean(0), abs=0.5)
    else:
        assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((40, 30), abs=0.5)


def test_what_lies_outside_the_image_is_cut_off(convert, tmp_path):
    ring = [(-10, -10), (20, -10), (20, 20), (-10, 20)]
    source = exports.labelme(tmp_path / "export", [Shot("a.jpg", [("car", ring)])])
    mask = convert("labelme", source).mask("car")
    assert mask[:20, :20].all() and mask.sum() == 400


def test_polygons_of_one_object_are_united(convert, tmp_path):
    rings = [RECTANGLE, [(40, 20), (70, 20), (70, 40), (40, 40)]]
    source = exports.coco(tmp_path / "export", [Shot()])
    tree = exports.coco_tree(
        [Shot()], [exports.annotation(1, 100, "car", [exports.flat(ring) for ring in rings])]
    )
    exports.write_json(source / "annotations" / "instances_default.json", tree)
    assert convert("coco", source).mask("car").sum() == 1000 + 600 - 100


def random_mask(seed=0):
    rng = np.random.default_rng(seed)
    small = rng.random((HEIGHT // 4, WIDTH // 4)) < 0.4
    mask = np.kron(small, np.ones((4, 4), bool))
    mask[rng.integers(0, HEIGHT, 40), rng.integers(0, WIDTH, 40)] ^= True
    return mask


def runs(bits):
    """Lengths of 0 and 1 by turns, 0 first, one by one."""
    found, value = [0], False
    for bit in bits:
        if bit != value:
            found.append(0)
            value = bit
        found[-1] += 1
    return found


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mask_of_coco_is_read_column_by_column(convert, tmp_path, compressed):
    mask = random_mask()
    counts = runs(mask.ravel(order="F"))
    if compressed:
        counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    source = exports.coco(tmp_path / "export", [Shot()])
    segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
    made = [exports.annotation(1, 100, "car", segmentation, iscrowd=1)]
    exports.write_json(
        source / "annotations" / "instances_default.json", exports.coco_tree([Shot()], made)
    )
    assert (convert("coco", source).mask("car") == mask).all()


@pytest.mark.parametrize("seed", range(5))
def test_counts_of_coco_are_those_of_its_own_code(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((500, 700)) < rng.choice([0.5, 0.001])
    text = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert coco_counts(text, Place(None)) == runs(mask.ravel(order="F"))


def test_a_mask_of_cvat_is_read_row_by_row_in_its_rectangle(convert, tmp_path):
    part = random_mask()[10:40, 7:60]
    rle = ", ".join(map(str, runs(part.ravel())))
    text = exports.cvat_shape("mask", "pole", rle=rle, left=20, top=15, width=53, height=30)
    exports.save_image(tmp_path / "export" / "images" / "a.jpg")
    source = exports.write_cvat(tmp_path / "export", exports.cvat_image("a.jpg", text))
    mask = convert("cvat", source).mask("pole")
    assert (mask[15:45, 20:73] == part).all() and mask.sum() == part.sum()


def test_a_brush_stroke_of_label_studio_is_the_opacity_of_its_image(convert, tmp_path):
    mask = random_mask(1)
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[..., 0] = 200  # a colour everywhere
    pixels[..., 3] = 255 * mask
    value = {"format": "rle", "rle": exports.brush_code(pixels.ravel().tolist())}
    exports.save_image(tmp_path / "export" / "a.jpg")
    tree = [exports.task([exports.result("brushlabels", "car", value)])]
    exports.write_json(tmp_path / "export" / "project.json", tree)
    assert (convert("labelstudio", tmp_path / "export").mask("car") == mask).all()


@pytest.mark.parametrize("density", [0.5, 0.01, 0.0])
def test_label_studios_code_comes_back(density):
    rng = np.random.default_rng(2)
    values = rng.integers(0, 256, 90_000) * (rng.random(90_000) < density)
    assert (brush_values(exports.brush_code(values.tolist()), 90_000, Place(None)) == values).all()


def test_circles_rectangles_and_masks_of_labelme_are_filled(convert, tmp_path):
    part = random_mask()[:12, :16]
    shapes = [
        exports.shape("car", [(40, 30), (40, 45)], "circle"),
        exports.shape("pole", [(70, 50), (60, 2)], "rectangle"),
        exports.shape("road", [(2, 3), (17, 14)], "mask", mask=exports.mask_text(part)),
        *(exports.shape("wire", [(0, 0), (9, 9)], kind) for kind in ("line", "linestrip", "point")),
    ]
    exports.save_image(tmp_path / "export" / "a.jpg")
    exports.write_json(tmp_path / "export" / "a.json", exports.labelme_tree(shapes))
    found = convert("labelme", tmp_path / "export")
    assert found.names == ["background", "car", "pole", "road"]
    assert found.mask("car").sum() == pytest.approx(math.pi * 15**2, abs=math.pi * 15)
    assert found.mask("car")[20, 30] and not found.mask("car")[17, 28]
    assert found.mask("pole")[2:50, 60:70].all() and found.mask("pole").sum() == 480
    assert (found.mask("road")[3:15, 2:18] == part).all()
    assert "note: lines and points, which have no area, left out: 3" in found.printed
    assert "note: rectangles, filled as in labelme's own masks: 1" in found.printed


def test_boxes_and_ellipses_of_cvat_turn_clockwise(convert, tmp_path):
    box = exports.cvat_shape("box", "car", xtl=10, ytl=20, xbr=50, ybr=24, rotation=90)
    ellipse = exports.cvat_shape("ellipse", "pole", cx=60, cy=30, rx=15, ry=4, rotation=45)
    exports.save_image(tmp_path / "export" / "images" / "a.jpg")
    source = exports.write_cvat(tmp_path / "export", exports.cvat_image("a.jpg", box + ellipse))
    found = convert("cvat", source)
    assert found.mask("car")[2:42, 28:32].all() and found.mask("car").sum() == 160
    pole = found.mask("pole")
    assert pole.sum() == pytest.approx(math.pi * 15 * 4, abs=30)
    assert pole[37, 67] and not pole[23, 67]  # down to the right, rows downwards


def test_shapes_of_label_studio_turn_about_their_own_point(convert, tmp_path):
    ellipse = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10, "rotation": 90}
    box = {"x": 25, "y": 20, "width": 50, "height": 10, "rotation": 90}  # about its first corner
    results = [
        exports.result("ellipselabels", "car", ellipse),
        exports.result("rectanglelabels", "pole", box),
    ]
    exports.save_image(tmp_path / "export" / "a.jpg")
    exports.write_json(tmp_path / "export" / "project.json", [exports.task(results)])
    found = convert("labelstudio", tmp_path / "export", "--boxes", "--order", "area")
    car, pole = found.mask("car"), found.mask("pole")
    rows, columns = np.nonzero(car | pole & (np.indices(car.shape)[1] > 30))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 49, 34, 45)
    assert pole[12:52, 14:20].all() and pole.sum() == 240
    assert "note: boxes, filled: 1" in found.printed


def test_colours_of_cvats_masks_are_classes(convert, tmp_path):
    painted = np.zeros((HEIGHT, WIDTH, 3), int)
    painted[5:20, 10:30], painted[40:, :] = (10, 11, 12), (255, 96, 55)
    source = exports.cvat_masks(tmp_path / "export", {"a": painted, "b": 0 * painted})
    found = convert("cvat", source)
    assert found.description["classes"] == [
        {"name": "background", "color": [0, 0, 0]},
        {"name": "car", "color": [255, 96, 55]},
        {"name": "pole", "color": [10, 11, 12]},
    ]
    assert (found.mask("pole") == (painted[..., 0] == 10)).all()
    assert (found.mask("car") == (painted[..., 0] == 255)).all()
    assert found.mask("background", "b").all()
