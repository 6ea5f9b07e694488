"""Folders in another form than expected: the line of classes.yaml, or the command, is named."""

from __future__ import annotations

import json
import re
import shutil

import folder_data
import pytest

from study.core.errors import InputError
from study.data import open_data, scan_files
from study.data.check import list_problems

CLASSES = "classes: [road, car, pole]\n"
COCO = json.dumps({"images": [{"file_name": "a.jpg"}], "annotations": [], "categories": []})
LABELME = json.dumps({"version": "5.4.1", "flags": {}, "shapes": [{"label": "car"}]})
LABELSTUDIO = json.dumps([{"id": 1, "annotations": [{"result": []}], "data": {"image": "a.jpg"}}])
CVAT = "<?xml version='1.0'?><annotations><version>1.1</version></annotations>"
YOLO = "0 0.1 0.2 0.3 0.4 0.5 0.6\n"


def rename(root, folder, new):
    """Rename the files of a folder; `new` has {} for their stems."""
    for file in [*(root / folder).glob("*/*")]:
        file.rename(file.with_name(new.format(file.stem)))


def suffixed(root):
    rename(root, "labels", "{}_mask.png")


def prefixed(root):
    rename(root, "labels", "mask_{}.png")


def both_prefixed(root):
    rename(root, "images", "img-{}.png")
    rename(root, "labels", "gt-{}.png")


def both_suffixed(root):
    rename(root, "images", "{}_training.png")
    rename(root, "labels", "{}_manual1.png")


def side_by_side(root):
    suffixed(root)
    for file in root.glob("labels/*/*"):
        file.rename(root / "images" / file.parent.name / file.name)
    (root / "classes.yaml").write_text(CLASSES + "label_dir: images/{split}\n")


def other_folders(root):
    (root / "images").rename(root / "img")
    (root / "labels").rename(root / "masks")


def splits_first(root):
    for split in ("train", "val", "test"):
        for folder, name in (("images", "rgb"), ("labels", "annotations")):
            (root / split).mkdir(exist_ok=True)
            (root / folder / split).rename(root / split / name)
    for folder in ("images", "labels"):
        (root / folder).rmdir()


def flat(root):
    for file in [*root.glob("images/*/*"), *root.glob("labels/*/*")]:
        file.rename(file.parent.parent / f"{file.parent.name}{file.name}")
    for folder in [*root.glob("images/*/"), *root.glob("labels/*/")]:
        folder.rmdir()


def flat_others(root):
    flat(root)
    (root / "images").rename(root / "JPEGImages")
    (root / "labels").rename(root / "SegmentationClass")


def flat_named(root):
    flat_others(root)
    text = "image_dir: JPEGImages\nlabel_dir: SegmentationClass\n"
    (root / "classes.yaml").write_text(CLASSES + text)


def flat_listed(root):
    flat_named(root)
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("\n".join(f"{split}{at:03d}" for at in range(2)))


def no_test(root):
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder / "test")


def no_test_label(root):
    shutil.rmtree(root / "labels" / "test")


def only_train(root):
    no_test(root)
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder / "val")


def no_val(root):
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder / "val")


def some_unlabelled(root):
    (root / "labels" / "train" / "001.png").unlink()


def twice(root):
    shutil.copy(root / "images/train/000.png", root / "images/train/000.jpg")


def annotated(name, text):
    def replace(root):
        for folder in [*root.glob("labels/*/")]:
            shutil.rmtree(folder)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)

    return replace


@pytest.mark.parametrize(
    ("form", "kind", "hint"),
    [
        (suffixed, "missing label (7)", "`label_suffix: _mask.png` in classes.yaml pairs them"),
        (prefixed, "missing label (7)",
         "`label_path: 'labels/{split}/mask_{name}.png'` in classes.yaml pairs them"),
        (both_prefixed, "missing label (7)",
         "`image_path: 'images/{split}/img-{name}.png'`, `label_path: 'labels/{split}/gt-{name}."),
        (both_suffixed, "missing label (7)", "`image_suffix: _training.png`, `label_suffix: _man"),
        (side_by_side, "missing (3)", "`label_suffix: _mask.png` in classes.yaml, if these are"),
        (other_folders, "missing (6)",
         "`image_dir: 'img/{split}'`, `label_dir: 'masks/{split}'` in classes.yaml, if these"),
        (splits_first, "missing (6)",
         "`image_dir: '{split}/rgb'`, `label_dir: '{split}/annotations'` in classes.yaml, if"),
        (flat, "missing (6)", "`splits: {val: 0.15, test: 0.15}` in classes.yaml, if these a"),
        (flat_others, "missing (6)", "`image_dir: JPEGImages`, `label_dir: SegmentationClass`,"
         " `splits: {val: 0.15, test: 0.15}` in classes.yaml, if these are they"),
        (flat_named, "undivided (1)", "`splits: {val: 0.15, test: 0.15}` in classes.yaml divides"),
        (flat_listed, "undivided (1)", "`splits: {train: train.txt, test: val.txt}` in classes.y"),
        (no_test, "missing (2)", "`splits: {test: val}` in classes.yaml tests on val and carves"),
        (no_test_label, "missing (1)", "`splits: {test: val}` in classes.yaml tests on val and"),
        (no_val, "missing (2)", "`splits: {val: 0.15}` in classes.yaml carves val from train"),
        (only_train, "missing (4)", "`splits: {val: 0.15, test: 0.15}` in classes.yaml carves"),
        (some_unlabelled, "missing label (1)", "`missing_label: road` in classes.yaml, if image"),
        (twice, "twice (1)", "`image_suffix`, `label_suffix` in classes.yaml choose one"),
        (annotated("annotations.json", COCO), "missing (3)", "convert coco "),
        (annotated("images/train/000.json", LABELME), "missing (3)", "convert labelme "),
        (annotated("export.json", LABELSTUDIO), "missing (3)", "convert labelstudio "),
        (annotated("annotations.xml", CVAT), "missing (3)", "convert cvat "),
        (annotated("labels/train/000.txt", YOLO), "missing (2)", "convert yolo "),
    ],
)  # fmt: skip
def test_the_line_that_helps_is_named_once(root, form, kind, hint):
    (root / "classes.yaml").write_text(CLASSES)
    form(root)
    scan = scan_files(folder_data.config(), root)
    heads = [
        line for line in list_problems(scan.findings.faults, root).splitlines()[1:]
        if not line.startswith(" ")
    ]  # fmt: skip
    assert [head for head in heads if head.startswith(kind) and hint in head], heads
    with pytest.raises(InputError, match=re.escape(scan.findings.faults[0].hint)):
        scan.source()


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (suffixed, "label_suffix: _mask.png"),
        (prefixed, "label_path: 'labels/{split}/mask_{name}.png'"),
        (
            both_prefixed,
            "image_path: images/{split}/img-{name}.*\nlabel_path: labels/{split}/gt-{name}.png",
        ),
        (both_suffixed, "image_suffix: _training.png\nlabel_suffix: _manual1.png"),
        (side_by_side, "label_dir: images/{split}\nlabel_suffix: _mask.png"),
        (other_folders, "image_dir: 'img/{split}'\nlabel_dir: 'masks/{split}'"),
        (splits_first, "image_dir: '{split}/rgb'\nlabel_dir: '{split}/annotations'"),
        (flat, "splits: {val: 0.15, test: 0.15}"),
        (
            flat_others,
            "image_dir: JPEGImages\nlabel_dir: SegmentationClass\nsplits: {val: 0.15, test: 0.15}",
        ),
        (
            flat_listed,
            "image_dir: JPEGImages\nlabel_dir: SegmentationClass\n"
            "splits: {train: train.txt, test: val.txt}",
        ),
        (no_test_label, "splits: {test: val}"),
        (no_val, "splits: {val: 0.15}"),
        (only_train, "splits: {val: 0.3, test: 0.3}"),
        (some_unlabelled, "missing_label: road"),
    ],
)
def test_with_that_line_it_runs(root, tmp_path, form, lines):
    form(root)
    (root / "classes.yaml").write_text(CLASSES + lines)
    data = open_data(folder_data.config(), data_root=root, cache_dir=tmp_path / "cache")
    assert min(len(part) for part in data.splits.values()) > 0


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (lambda root: None, "file not found; a minimal one is one line: `classes: [background, d"),
        (annotated("train.json", COCO), "file not found; `python -m study.data convert coco "),
    ],
)
def test_a_missing_file_of_classes_says_what_it_needs(root, form, says):
    form(root)
    (root / "classes.yaml").unlink()
    with pytest.raises(InputError, match=re.escape(f"classes.yaml: {says}")):
        scan_files(folder_data.config(), root)
