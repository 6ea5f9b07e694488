"""Miniature exports of annotation tools, each in the form in which the tool writes it."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from study.data.__main__ import main

HEIGHT, WIDTH = 60, 80
Ring = Sequence[tuple[float, float]]
CATEGORIES = {7: "car", 3: "pole", 90: "road"}  # ids as COCO has them: neither dense nor in order


@dataclass
class Shot:
    """An image, and its polygons: (label, points in pixels)."""

    name: str = "a.jpg"
    shapes: Sequence[tuple[str, Ring]] = ()
    split: str = ""
    more: dict[str, Any] = field(default_factory=dict)


def save_image(path: Path, height: int = HEIGHT, width: int = WIDTH, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.stem)).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def flat(ring: Ring) -> list[float]:
    return [part for point in ring for part in point]


def write_json(path: Path, tree: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def annotation(
    identity: int, image: int, label: str, segmentation: Any, **more: Any
) -> dict[str, Any]:
    category = next(key for key, name in CATEGORIES.items() if name == label)
    return {
        "id": identity,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "area": 1.0,
        "bbox": [1.0, 1.0, 4.0, 4.0],
        "iscrowd": 0,
        **more,
    }


def coco_tree(shots: Sequence[Shot], annotations: Sequence[Any] | None = None) -> dict[str, Any]:
    images = [
        {"id": 100 + i, "file_name": shot.name, "height": HEIGHT, "width": WIDTH, "license": 1}
        for i, shot in enumerate(shots)
    ]
    shapes = [(100 + i, *shape) for i, shot in enumerate(shots) for shape in shot.shapes]
    made = [annotation(n, i, label, [flat(ring)]) for n, (i, label, ring) in enumerate(shapes)]
    categories = [
        {"id": key, "name": name, "supercategory": ""} for key, name in CATEGORIES.items()
    ]
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": images,
        "annotations": made if annotations is None else annotations,
        "categories": categories,
    }


def by_split(shots: Sequence[Shot]) -> Mapping[str, list[Shot]]:
    found: dict[str, list[Shot]] = {}
    for shot in shots:
        found.setdefault(shot.split, []).append(shot)
    return found


def coco(root: Path, shots: Sequence[Shot]) -> Path:
    """As COCO is published; one split is CVAT's and Datumaro's `instances_default.json`."""
    for split, some in by_split(shots).items():
        folder = f"{split}2017" if split else "images"
        for shot in some:
            save_image(root / folder / shot.name)
        name = f"instances_{split}2017.json" if split else "instances_default.json"
        write_json(root / "annotations" / name, coco_tree(some))
        others = root / "annotations" / name.replace("instances", "person_keypoints")
        write_json(others, coco_tree(some))  # of the same images
    return root


def roboflow(root: Path, shots: Sequence[Shot]) -> Path:
    for split, some in by_split(shots).items():
        folder = root / {"val": "valid"}.get(split, split)
        for shot in some:
            save_image(folder / shot.name)
        tree = coco_tree(some)
        names = {"id": 0, "name": "vehicles", "supercategory": "none"}
        write_json(
            folder / "_annotations.coco.json", tree | {"categories": [names, *tree["categories"]]}
        )
    (root / "README.roboflow.txt").write_text("exported\n")
    return root


def shape(label: str, points: Ring, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {
        "label": label,
        "points": [[*point] for point in points],
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
        **more,
    }


def mask_text(mask: np.ndarray) -> str:
    """A mask as labelme has it: a PNG, as text."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def labelme_tree(shapes: Sequence[Any], name: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": [*shapes],
        "imagePath": name,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **more,
    }


def labelme(root: Path, shots: Sequence[Shot]) -> Path:
    for shot in shots:
        image = save_image(root / shot.split / shot.name)
        tree = labelme_tree([shape(*one) for one in shot.shapes], shot.name)
        write_json(image.with_suffix(".json"), tree)
    return root


CVAT_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>4</id>
      <name>town</name>
      <size>1</size>
      <mode>annotation</mode>
      <labels>
        <label><name>car</name><color>#ff6037</color><type>any</type><attributes></attributes></label>
        <label><name>pole</name><color>#0a0b0c</color><type>any</type><attributes></attributes></label>
        <label><name>road</name><color>#fa3253</color><type>any</type><attributes></attributes></label>
      </labels>
    </task>
    <dumped>2024-03-01 10:00:00.000000+00:00</dumped>
  </meta>
"""


def cvat_shape(tag: str, label: str, z: int = 0, **attributes: Any) -> str:
    given = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return (
        f'    <{tag} label="{label}" source="manual" occluded="0"{given} z_order="{z}"></{tag}>\n'
    )


def cvat_polygon(label: str, ring: Ring, z: int = 0) -> str:
    return cvat_shape("polygon", label, z, points=";".join(f"{x:.2f},{y:.2f}" for x, y in ring))


def cvat_image(name: str, shapes: str, subset: str = "", number: int = 0) -> str:
    of = f' subset="{subset}"' if subset else ""
    size = f'width="{WIDTH}" height="{HEIGHT}"'
    return f'  <image id="{number}" name="{name}"{of} {size}>\n{shapes}  </image>\n'


def write_cvat(root: Path, images: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotations.xml").write_text(f"{CVAT_HEAD}{images}</annotations>\n")
    return root


def cvat(root: Path, shots: Sequence[Shot]) -> Path:
    images = ""
    for number, shot in enumerate(shots):
        save_image(root / "images" / shot.split.capitalize() / shot.name)
        shapes = "".join(cvat_polygon(*one) for one in shot.shapes)
        images += cvat_image(shot.name, shapes, shot.split.capitalize(), number)
    return write_cvat(root, images)


def cvat_masks(root: Path, painted: Mapping[str, np.ndarray]) -> Path:
    """`Segmentation mask 1.1` with images: masks of (H, W, 3) colours."""
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "SegmentationClass").mkdir()
    listed = "".join(f"{name}\n" for name in painted)
    (root / "ImageSets" / "Segmentation" / "default.txt").write_text(listed)
    lines = (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncar:255,96,55::\npole:10,11,12::\n"
    )
    (root / "labelmap.txt").write_text(lines)
    for name, colours in painted.items():
        save_image(root / "JPEGImages" / f"{name}.jpg")
        Image.fromarray(colours.astype(np.uint8)).save(root / "SegmentationClass" / f"{name}.png")
    return root


def result(kind: str, label: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
        "id": f"{label}-{len(str(value))}",
        "from_name": "label",
        "to_name": "image",
        "type": kind,
        "origin": "manual",
        **more,
    }


def per_cent(ring: Ring) -> list[list[float]]:
    return [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in ring]


def brush_code(values, lengths=(3, 4, 8, 16)):
    """Label Studio's code as a string of bits: runs, and single values in blocks."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{one - 1:04b}" for one in lengths)
    at = 0
    while at < len(values):
        run = 1
        while at + run < len(values) and values[at + run] == values[at]:
            run += 1
        if run == 1:  # as many as differ from their neighbours, at most eight
            end = at + 1
            while end < min(len(values), at + 8) and values[end] != values[end - 1]:
                end += 1
            bits += "0" + "00" + f"{end - at - 1:03b}"
            bits += "".join(f"{value:08b}" for value in values[at:end])
            at = end
            continue
        run = min(run, 2 ** lengths[-1])
        which = next(i for i, width in enumerate(lengths) if run <= 2**width)
        bits += "1" + f"{which:02b}" + format(run - 1, f"0{lengths[which]}b") + f"{values[at]:08b}"
        at += run
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def polygon_result(label: str, ring: Ring) -> dict[str, Any]:
    return result("polygonlabels", label, {"points": per_cent(ring), "closed": True})


def task(
    results: Sequence[Any], name: str = "a.jpg", number: int = 1, **more: Any
) -> dict[str, Any]:
    return {
        "id": number,
        "annotations": [
            {
                "id": 50 + number,
                "completed_by": 1,
                "result": [*results],
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2024-03-01T10:00:00.000000Z",
                "updated_at": "2024-03-01T10:00:00.000000Z",
                **more,
            }
        ],
        "file_upload": f"1a2b3c4d-{name}",
        "drafts": [],
        "predictions": [],
        "data": {"image": f"/data/upload/1/1a2b3c4d-{name}"},
        "meta": {},
    }


def labelstudio(root: Path, shots: Sequence[Shot]) -> Path:
    """The JSON beside the images as they were before they were uploaded."""
    tasks = []
    for number, shot in enumerate(shots):
        save_image(root / "images" / shot.split / shot.name)
        results = [polygon_result(*one) for one in shot.shapes]
        tasks.append(task(results, shot.name, number))
    write_json(root / "project-1-at-2024-03-01-10-00-1a2b3c4d.json", tasks)
    return root


def yolo_line(label: str, ring: Ring) -> str:
    values = " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in ring)
    return f"{sorted(CATEGORIES.values()).index(label)} {values}\n"


def yolo(root: Path, shots: Sequence[Shot], *, split_first: bool = False) -> Path:
    """images/train and labels/train as Ultralytics has them, or train/images as Roboflow does."""
    names = sorted(CATEGORIES.values())
    lines = ["path: ../datasets/town"]
    for split, some in by_split(shots).items():
        parts = (split, "images") if split_first else ("images", split)
        for shot in some:
            image = save_image(root.joinpath(*parts, shot.name))
            text = "".join(yolo_line(*one) for one in shot.shapes)
            folder = root / split / "labels" if split_first else root / "labels" / split
            folder.mkdir(parents=True, exist_ok=True)
            if text:
                (folder / image.with_suffix(".txt").name).write_text(text)
        listed = "/".join(("..", *parts) if split_first else parts)
        lines += [f"{split}: {listed}"] if split else []
    listed = f"[{', '.join(names)}]" if split_first else str({i: n for i, n in enumerate(names)})
    (root / "data.yaml").write_text("\n".join([*lines, "nc: 3", f"names: {listed}", ""]))
    return root


WRITERS = {
    "coco": ("coco", coco),
    "roboflow": ("coco", roboflow),
    "labelme": ("labelme", labelme),
    "cvat": ("cvat", cvat),
    "labelstudio": ("labelstudio", labelstudio),
    "yolo": ("yolo", yolo),
    "yolo of roboflow": ("yolo", lambda root, shots: yolo(root, shots, split_first=True)),
}


HOSTILE: list[Any] = [None, -1, 1e300, "../x", "http://[", [[]], {}, 2**70]


def changed(tree: Any, value: Any) -> Iterator[Any]:
    """Every tree in which one entry is the value instead."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, one in [*entries]:
        tree[key] = value
        yield tree
        tree[key] = one
        if isinstance(one, dict | list):
            for _ in changed(one, value):
                yield tree


def codes_of_hostile(
    tool: str, source: Path, file: Path, tree: Any, place: Path, values: Sequence[Any] = HOSTILE
) -> set[int]:
    """The exit codes of converting an export in whose JSON file one entry is another."""
    codes = set()
    for value in values:
        for number, one in enumerate(changed(tree, value)):
            write_json(file, one)
            target = place / f"{number}"
            codes.add(main(["convert", tool, str(source), str(target), "--boxes"]))
            shutil.rmtree(target, ignore_errors=True)
    return codes
