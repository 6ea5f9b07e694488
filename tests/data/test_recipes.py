"""The recipes of docs/data_recipes.md, each on a miniature of the layout as it is published."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

import annotation_exports as exports
import numpy as np
import pytest
from annotation_exports import Shot
from PIL import Image

from study.config.task import FolderData
from study.data import open_data
from study.data.__main__ import main

PAGE = (Path(__file__).parents[2] / "docs" / "data_recipes.md").read_text(encoding="utf-8")
SIDE = 16


def blocks(title: str) -> list[tuple[str, str]]:
    """(language, text) of each block of a section."""
    (section,) = [one for one in re.split(r"^##+ ", PAGE, flags=re.M) if one.startswith(title)]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.M | re.S)


def follow(title: str, root: Path, *, note: str = "") -> None:
    """Run the section's code in the folder, and write its classes.yaml; where blocks begin with a
    comment, those of this note and of `# both`."""
    tiles = next(text for _, text in blocks("Published") if text.startswith("# tiles.py"))
    (root / "tiles.py").write_text(tiles)
    shell = f'python() {{ {sys.executable} "$@"; }}\n'
    for language, text in blocks(title):
        if note and language != "text" and not text.startswith((note, "# both")):
            continue
        if language == "python":
            subprocess.run([sys.executable, "-c", text], cwd=root, check=True)
        elif language == "bash":
            subprocess.run(["bash", "-ec", shell + text], cwd=root, check=True)
        elif language == "yaml":
            (root / "classes.yaml").write_text(text)


def image(path: Path, side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(str(path).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def label(path: Path, values, side: int = SIDE) -> None:
    """A block of equal width for each value or colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.array(values, np.uint8)[np.arange(side) * len(values) // side]
    Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (side, *rows.shape)))).save(path)


def opened(root: Path, side: int = SIDE):
    config = FolderData.model_validate({"format": "folder", "size": [side, side]})
    return open_data(config, data_root=root, begun=True)  # a miniature lacks most classes


def there(split) -> list[int]:
    return np.unique(split.labels).tolist()


def test_ade20k(tmp_path):
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    lines += [f"{i}\t0.1\t9\t9\t1\tthing {i}, other word {i}" for i in range(1, 151)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(lines) + "\n")
    for part, name, count in (("training", "ADE_train", 20), ("validation", "ADE_val", 2)):
        for i in range(count):
            image(tmp_path / "images" / part / f"{name}_{i:08d}.jpg")
            label(tmp_path / "annotations" / part / f"{name}_{i:08d}.png", [0, 1, 2, 150])
    follow("ADE20K", tmp_path)
    data = opened(tmp_path)
    assert data.num_classes == 150 and data.class_names[149] == "thing 150, other word 150"
    assert there(data.train) == [0, 1, 149, 255] and len(data.test) == 2
    assert len(data.train) + len(data.val) == 20 and len(data.val) == 3


def test_mapillary_vistas(tmp_path):
    names = [("animal--bird", True), ("construction--curb", True), ("void--unlabeled", False)]
    tree = {"labels": [{"name": name, "readable": name, "evaluate": e} for name, e in names]}
    (tmp_path / "config_v1.2.json").write_text(json.dumps(tree))
    for part, count in (("training", 20), ("validation", 2), ("testing", 1)):
        for i in range(count):
            image(tmp_path / part / "images" / f"{part}{i}.jpg")
            if part != "testing":
                label(tmp_path / part / "v1.2" / "labels" / f"{part}{i}.png", [0, 1, 2])
                label(tmp_path / part / "v1.2" / "instances" / f"{part}{i}.png", [9])
    follow("Mapillary", tmp_path)
    data = opened(tmp_path)
    assert data.class_names == ("animal--bird", "construction--curb")
    assert there(data.train) == [0, 1, 255] and len(data.test) == 2


def test_coco_stuff(tmp_path):
    lines = [f"{i}: {'unlabeled' if i == 0 else f'class {i}'}" for i in range(183)]
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    for part, count in (("train2017", 20), ("val2017", 2)):
        for i in range(count):
            image(tmp_path / part / f"{part}{i:03d}.jpg")
            label(tmp_path / "stuffthingmaps" / part / f"{part}{i:03d}.png", [0, 12, 181, 255])
    follow("COCO-Stuff", tmp_path)
    data = opened(tmp_path)
    assert data.num_classes == 171 and data.class_names[0] == "class 1"
    assert data.class_names[11] == "class 13" and data.class_names[170] == "class 182"
    assert there(data.test) == [0, 11, 170, 255]


def test_loveda(tmp_path):
    number = 0
    for part, count in (("Train", 10), ("Val", 2)):
        for area in ("Rural", "Urban"):
            for _ in range(count):
                image(tmp_path / part / area / "images_png" / f"{number}.png")
                label(tmp_path / part / area / "masks_png" / f"{number}.png", range(8))
                number += 1
    follow("LoveDA", tmp_path)
    data = opened(tmp_path)
    assert data.class_names[0] == "background" and data.class_names[6] == "agriculture"
    assert there(data.train) == [*range(7), 255] and len(data.test) == 4


COLOURS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


@pytest.mark.parametrize("place", ["Potsdam", "Vaihingen"])
def test_potsdam_and_vaihingen(tmp_path, place):
    truth = "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE"
    for i in range(10):
        if place == "Potsdam":
            image(tmp_path / "2_Ortho_RGB" / f"top_potsdam_{i}_10_RGB.tif", 1000)
            label(tmp_path / "5_Labels_all" / f"top_potsdam_{i}_10_label.tif", COLOURS, 1000)
        else:
            image(tmp_path / "top" / f"top_mosaic_09cm_area{i}.tif", 1000)
            label(tmp_path / truth / f"top_mosaic_09cm_area{i}.tif", COLOURS, 1000)
    follow("ISPRS", tmp_path, note=f"# {place}")
    data = opened(tmp_path, 512)
    assert data.class_names[4] == "car" and there(data.train) == [0, 1, 2, 3, 4, 255]
    names = {
        split: {one.rsplit("_", 2)[0] for one in part.names} for split, part in data.splits.items()
    }
    assert not names["train"] & names["test"] and not names["train"] & names["val"]
    assert sum(len(part) for part in data.splits.values()) == 40


def test_isaid(tmp_path):
    follow_colours = [(0, 0, 0), (0, 0, 63), (0, 127, 255), (0, 100, 155)]
    for part, count in (("train", 20), ("val", 2)):
        for i in range(count):
            image(tmp_path / part / "images" / "images" / f"{part}{i}.png", 900)
            name = f"{part}{i}_instance_color_RGB.png"
            label(tmp_path / part / "Semantic_masks" / "images" / name, follow_colours, 900)
    follow("iSAID", tmp_path)
    data = opened(tmp_path, 64)
    assert data.class_names[15] == "harbor" and there(data.test) == [0, 1, 14, 15]


def test_kvasir_seg(tmp_path):
    for i in range(20):
        image(tmp_path / "images" / f"cju{i:02d}.jpg")
        label(tmp_path / "masks" / f"cju{i:02d}.jpg", [(0, 0, 0), (255, 255, 255)])
    follow("Kvasir", tmp_path, note="# Kvasir-SEG")
    data = opened(tmp_path)
    assert there(data.train) == [0, 1]
    assert data.train.class_counts.sum(0).tolist() == [128 * len(data.train)] * 2


def test_cvc_clinicdb(tmp_path):
    for i in range(1, 613):
        image(tmp_path / "Original" / f"{i}.tif", 8)
        label(tmp_path / "Ground Truth" / f"{i}.tif", [0, 255], 8)
    follow("Kvasir", tmp_path, note="# CVC-ClinicDB")
    data = opened(tmp_path, 8)
    assert [len(part) for part in data.splits.values()] == [429, 91, 92]
    assert there(data.test) == [0, 1]


def test_severstal(tmp_path):
    rows = ["ImageId,ClassId,EncodedPixels"]
    for i in range(20):
        path = tmp_path / "train_images" / f"{i:09x}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (256, 1600, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        if i % 2:
            rows.append(
                f"{path.name},{1 + i // 2 % 4},1 256 513 10"
            )  # column 0, and 10 of column 2
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    follow("Severstal", tmp_path)
    with Image.open(tmp_path / "labels" / f"{1:09x}.png") as written:
        found = np.asarray(written)
    assert (found[:, 0] == 1).all() and (found[:10, 2] == 1).all() and found.sum() == 266
    config = FolderData.model_validate({"format": "folder", "size": [256, 1600]})
    data = open_data(config, data_root=tmp_path, begun=True)
    assert data.num_classes == 5
    assert sum(part.class_counts[:, 1:].sum() for part in data.splits.values()) == 10 * 266


# What `convert` writes where the export lacks splits.
SMALL = [(10, 10), (20, 10), (20, 20), (10, 20)]


@pytest.mark.parametrize("form", exports.WRITERS)
@pytest.mark.parametrize("splits", [("",), ("train", "val"), ("train", "test")])
def test_a_converted_folder_is_read(tmp_path, form, splits):
    if form == "roboflow" and splits == ("",):
        pytest.skip("its folders are splits")
    tool, write = exports.WRITERS[form]
    shots = [Shot(f"{s}{i:02d}.jpg", [("car", SMALL)], s) for s in splits for i in range(20)]
    for index, shot in enumerate(shots):
        shot.name = f"{'x' * (index + 1)}.jpg"  # the picture depends on the length of its name
    target = tmp_path / "converted"
    assert main(["convert", tool, str(write(tmp_path / "export", shots)), str(target)]) == 0
    config = FolderData.model_validate({"format": "folder", "size": [60, 80]})
    data = open_data(config, data_root=target, begun=True)
    assert sum(len(part) for part in data.splits.values()) == len(shots)
    assert data.class_names == ("background", "car")
    for part in data.splits.values():
        assert part.class_counts[0].tolist() == [60 * 80 - 100, 100]
    if splits == ("train", "val"):
        assert len(data.test) == 20 and len(data.val) == 3
