"""`python -m study.init` on folders as people ask about them: what is read is what was drawn."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from file_trees import TREES
from PIL import Image

from study.config.task import load_task
from study.data import SegmentationData, open_data
from study.data.__main__ import main as check
from study.data.first_look.drafts import Machine, task_text
from study.data.first_look.endings import numbered_masks
from study.init import main

SHAPE = (40, 56)
COUNTS = {"train": 8, "val": 4, "test": 4}
PAINT = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
GREYS = np.array([[90, 110, 70], [170, 150, 140], [60, 60, 200]])
Drawn = Iterator[tuple[str, int, np.ndarray, np.ndarray]]
Write = Callable[[Path], None]


def scenes(counts: dict[str, int] = COUNTS) -> Drawn:
    """Of each image its split, its number, the photograph and the classes 0, 1, 2."""
    number = 0
    for split, count in counts.items():
        for _ in range(count):
            rng = np.random.default_rng(number)
            label = np.zeros(SHAPE, np.uint8)
            top, left = rng.integers(2, 12, 2)
            label[top : top + 14, left : left + 20] = 1
            label[top + 18 : top + 26, left + 16 : left + 30] = 2
            photo = np.clip(GREYS[label] + rng.normal(0, 18, (*SHAPE, 3)), 0, 255)
            yield split, number, photo.astype(np.uint8), label
            number += 1


def save(array: np.ndarray, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]


def binary(label: np.ndarray, *classes: int) -> np.ndarray:
    return np.isin(label, classes).astype(np.uint8) * 255


def numbered_classes(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/{n:03d}.png")
        for index in (1, 2):
            save(binary(label, index), root / f"masks/{index - 1}/{n:03d}.png")


def several_masks(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/im_{n:03d}.png")
        for index in (1, 2):
            save(binary(label, index), root / f"masks/im_{n:03d}_{index - 1}.png")


def several_masks_beside(root: Path) -> None:
    for _, n, photo, label in scenes():
        stem = root / "scans" / ("benign", "malign")[n % 2] / f"case ({n // 2})"
        save(photo, stem.with_name(f"{stem.name}.png"))
        save(binary(label, 1), stem.with_name(f"{stem.name}_mask.png"))
        save(binary(label, 2), stem.with_name(f"{stem.name}_mask_1.png"))


def numbered_objects(root: Path) -> None:
    for _, n, photo, label in scenes():
        objects = np.zeros(SHAPE, np.uint16)
        objects.flat[np.flatnonzero(label)] = (
            np.arange(np.count_nonzero(label)) * (n % 5 + 2) // (np.count_nonzero(label)) + 1
        )
        save(photo, root / f"images/{n}.tif")
        save(objects, root / f"masks/{n}.tif")


def classes_and_objects(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{split}/{n}.png")
        save(
            label.astype(np.uint16) * 1000 + (label > 0) * np.uint16(n),
            root / f"labels/{split}/{n}.png",
        )


def spread_greys(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split}/Images/{n}.jpg")
        save(np.array([255, 128, 0], np.uint8)[label], root / f"{split}/gts/{n}.bmp")


def two_kinds_of_white(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{split}/{n}.png")
        save((label > 0) * np.uint8(255 if n % 2 else 1), root / f"masks/{split}/{n}.png")


def swapped(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"labels/{split}/{n}.png")
        save(label, root / f"images/{split}/{n}.png")


def with_overlays_and_depth(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split}/rgb/{n}.png")
        save(label, root / f"{split}/GT/{n}.png")
        save(np.arange(label.size, dtype=np.uint16).reshape(SHAPE), root / f"{split}/depth/{n}.png")
        save((photo // 2 + PAINT[label] // 2), root / f"{split}/overlay/{n}.png")


def two_annotators(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"Image_{n:02d}.jpg")
        save(label, root / f"Image_{n:02d}_1st.png")
        save(np.roll(label, 3), root / f"Image_{n:02d}_2nd.png")


def three_endings(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"A1/plant{n:03d}_rgb.png")
        save(label, root / f"A1/plant{n:03d}_label.png")
        save(binary(label, 1, 2), root / f"A1/plant{n:03d}_fg.png")


def by_date(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"2023-0{n % 3 + 1}-11/images/IMG_{n}.jpg")
        save(label, root / f"2023-0{n % 3 + 1}-11/masks/IMG_{n}.png")


def unlabelled_test(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split if split != 'val' else 'train'}/images/{n:02d}.png")
        if split != "test":
            save(label, root / f"train/masks/{n:02d}.png")


def other_images_without_labels(root: Path) -> None:
    for split, n, photo, label in scenes():
        if split == "test":
            save(photo, root / f"imagesTs/case_{n:03d}_0000.png")
        else:
            save(photo, root / f"imagesTr/case_{n:03d}_0000.png")
            save(label, root / f"labelsTr/case_{n:03d}.png")


def trainval_and_test(root: Path) -> None:
    for split, n, photo, label in scenes():
        folder = "TEST" if split == "test" else "train_val"
        save(photo, root / folder / f"images/{n}.jpg")
        save(PAINT[label], root / folder / f"masks/{n}.bmp")
    (root / "class_dict.csv").write_text("name,r,g,b\nsea,0,0,0\nfish,128,0,0\nreef,0,128,0\n")


def links_and_hidden_files(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f".store/i/{split}/{n}.png")
        save(label, root / f".store/m/{split}/{n}.png")
        (root / f".store/i/{split}/._{n}.png").write_bytes(b"\0\5\26\7")
        (root / f".store/i/{split}/Thumbs.db").write_bytes(b"thumbs")
    (root / "images").symlink_to(root / ".store/i")
    (root / "masks").symlink_to(root / ".store/m")
    (root / ".store/i/train/loop").symlink_to(root)
    save(GREYS.astype(np.uint8)[None], root / "__MACOSX/images/train/0.png")


def composed_names(root: Path) -> None:
    for split, n, photo, label in scenes():
        name = f"{('Köln', 'Übersee', 'façade')[n % 3]} {n}"
        save(photo, root / "images" / f"{unicodedata.normalize('NFC', name)}.png")
        save(label, root / "labels" / f"{unicodedata.normalize('NFD', name)}.png")
        with (root / f"{split}.txt").open("a", encoding="utf-8-sig", newline="\r\n") as file:
            file.write(f"{unicodedata.normalize('NFD', name)}.png\n")


def a_list_of_val(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{n:03d}.png")
        save(label, root / f"labels/{n:03d}_P.png")
        if split == "test":
            with (root / "valid.txt").open("a") as file:
                file.write(f"{n:03d}.png\n")
    (root / "codes.txt").write_text("sea\nfish\nreef\n")


def a_folder_an_image(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"stage1/{n:08x}/images/{n:08x}.png")
        for index in (1, 2):
            save(binary(label, index), root / f"stage1/{n:08x}/masks/{n * 7 + index:x}.png")


def a_folder_a_pair(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"{n:08x}/image/{n:08x}.jpg")
        save(label, root / f"{n:08x}/mask/{n:08x}.png")


def a_table_of_splits(root: Path) -> None:
    rows = ["image,mask,split"]
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{n:03d}.jpg")
        save(label, root / f"labels/{n:03d}.png")
        rows.append(f"images/{n:03d}.jpg,labels/{n:03d}.png,{split.capitalize()}")
    (root / "meta.csv").write_text("\r\n".join(rows), encoding="utf-8-sig")


def other_channels(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split}/rgb/b{n}_Clipped.png")
        save(photo[..., 0], root / f"{split}/nir_gray/b{n}.png")
        save(label, root / f"{split}/GT_color/b{n}_mask.png")


def folders_without_words(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split}/x/x_{n}.png")
        save(label, root / f"{split}/y/y_{n}.png")


def gif_palettes(root: Path) -> None:
    for split, n, photo, label in scenes():
        indices = Image.fromarray(label)
        indices.putpalette(PAINT.ravel().tolist())
        save(photo, root / f"images/{split}/{n}.png")
        (root / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        indices.save(root / f"labels/{split}/{n}.gif")


def rooms(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/room{n % 4}/{n // 4:03d}.png")
        save(binary(label, 1, 2), root / f"masks/room{n % 4}/{n // 4:03d}.png")


def stages(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{split}/{n}.png")
        save(np.where(label <= n % 3, label, 0), root / f"labels/{split}/{n}.png")


def other_zeros(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/image_{n}.png")
        save(label, root / f"masks/mask_{n:04d}.png")


def a_table_of_pairs(root: Path) -> None:
    rows = ["mask;photo;set"]
    for split, n, photo, label in scenes():
        save(photo, root / f"raw/{n * 37 % 101:03d}x.png")
        save(label, root / f"seg/m{n:02d}.png")
        rows.append(f"C:\\data\\seg\\m{n:02d}.png;raw/{n * 37 % 101:03d}x.png;{split}")
    (root / "pairs.csv").write_text("\n".join(rows), encoding="utf-8-sig")


def lists_of_pairs(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"photos/{n * 37 % 101:03d}x.png")
        save(label, root / f"seg/m{n:02d}.png")
        with (root / f"{split}_list.txt").open("a") as file:
            file.write(f"photos/{n * 37 % 101:03d}x.png seg/m{n:02d}.png\n")


def lines_of_json(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"photos/{n * 37 % 101:03d}x.png")
        save(label, root / f"seg/m{n:02d}.png")
        with (root / "metadata.jsonl").open("a") as file:
            file.write(
                f'{{"file_name": "photos/{n * 37 % 101:03d}x.png", "mask": "m{n:02d}.png"}}\n'
            )


def transparency(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{split}/{n}.png")
        save(np.dstack([photo, binary(label, 1, 2)]), root / f"masks/{split}/{n}.png")


def smaller_labels(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo.repeat(2, 0).repeat(2, 1), root / f"images/{split}/{n}.png")
        save(label, root / f"labels/{split}/{n}.png")


def netpbm(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"photos/im{n:04d}.ppm")
        save(binary(label, 1, 2), root / f"labels/im{n:04d}.ah.pgm")


def mixed_suffixes(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{split}/{n}.{('PNG', 'png', 'bmp')[n % 3]}")
        save(label, root / f"labels/{split}/{n}.png")


def words_in_front(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"Image{n:02d}.png")
        save(label, root / f"Mask{n:02d}.png")


def masks_of_classes_an_image(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/{n:03d}.png")
        for index, name in ((1, "car"), (2, "road")):
            save(binary(label, index), root / f"masks/{n:03d}/{name}.png")


def classes_behind_names(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/{n:03d}.png")
        save(binary(label, 1, 2), root / f"masks/{n:03d}_whole.png")
        save(binary(label, 2), root / f"masks/{n:03d}_core.png")


def a_folder_for_each_class(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/{n:03d}.png")
        for index, name in enumerate(("background", "ant", "bee")):
            save(binary(label, index), root / f"masks/{name}/{n:03d}.png")


def constant_names(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"{n:03d}_json/img.png")
        save(label, root / f"{n:03d}_json/label.png")
        save(photo // 2 + PAINT[label] // 2, root / f"{n:03d}_json/label_viz.png")


def sequences_in_splits(root: Path) -> None:
    for split, n, photo, label in scenes():
        at = root / f"set_{split}/seq{n % 2}"
        save(photo, at / f"Images/{n // 2 % 2:06d}.png" if n < 4 else at / f"Images/{n:06d}.png")
        save(label, at / f"Labels/{n // 2 % 2:06d}.png" if n < 4 else at / f"Labels/{n:06d}.png")


def days_and_cameras(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"day{n % 4}/cam{n % 2}/rgb/{n // 4}.png")
        save(label, root / f"day{n % 4}/cam{n % 2}/labels/{n // 4}.png")


def images_in_two_folders(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"photos_part_{n % 2 + 1}/scan_{n:03d}.png")
        save(label, root / f"segmentations/scan_{n:03d}_segmentation.png")


def flat_labels(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/site{n % 3}/{n:04d}.png")
        save(label, root / f"labels/{n:04d}.png")


def splits_without_labels(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split if split == 'test' else 'train'}/{n}_sat.png")
        if split != "test":
            save(label, root / f"train/{n}_mask.png")


def splits_in_names(root: Path) -> None:
    for split, n, photo, label in scenes():
        name = {"train": "train", "val": "testA", "test": "testB"}[split]
        save(photo, root / f"slides/{name}_{n}.bmp")
        save(label, root / f"slides/{name}_{n}_anno.bmp")


def deep_folders(root: Path) -> None:
    for _, n, photo, label in scenes():
        at = root / "project/export 2021/v2/site A/camera [1]"
        save(photo, at / f"images/{n}.png")
        save(label, at / f"masks/{n}.png")


def several_kinds_of_labels(root: Path) -> None:
    for split, n, photo, label in scenes():
        at = f"{split}/town{n % 2}/town{n % 2}_{n:06d}"
        save(photo, root / f"shots/{at}_leftImg8bit.png")
        save(label, root / f"gtMine/{at}_gtFine_labelIds.png")
        save(PAINT[label], root / f"gtMine/{at}_gtFine_color.png")


def no_data(value: int, kind: type) -> Write:
    def write(root: Path) -> None:
        for split, n, photo, label in scenes():
            values: Any = np.pad(label, ((0, 8), (0, 0)), constant_values=7).astype(kind)
            save(np.pad(photo, ((0, 8), (0, 0), (0, 0))), root / f"images/{split}/{n}.png")
            save(
                np.where(values == 7, value, values).astype(kind), root / f"labels/{split}/{n}.tif"
            )

    return write


def two_kinds_of_labels(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"photos/{n}.png")
        save(label, root / f"label ids/{n}.png")
        save(PAINT[label], root / f"label colours/{n}.png")


def instances_beside(root: Path) -> None:
    for split, n, photo, label in scenes():
        name = f"{n:06d}_10.png"
        save(photo, root / f"{'testing' if split == 'test' else 'training'}/image_2/{name}")
        if split != "test":
            save(label, root / f"training/semantic/{name}")
            save(PAINT[label], root / f"training/semantic_rgb/{name}")
            save(label.astype(np.uint16) * 256 + 1, root / f"training/instance/{name}")


def a_field_of_view(root: Path) -> None:
    view = np.full((*SHAPE, 3), 255, np.uint8)
    view[:3] = 0
    for _, n, photo, label in scenes():
        save(photo, root / f"images/{n:02d}_dr.png")
        save(binary(label, 1, 2), root / f"manual1/{n:02d}_dr.tif")
        save(view, root / f"mask/{n:02d}_dr_mask.tif")


def lists_of_another_ending(root: Path) -> None:
    listed: dict[str, list[str]] = {}
    for split, n, photo, label in scenes():
        image, colour = f"{n % 2:05d}/cam/{n:03d}.jpg", f"{n % 2:05d}/cam_label_color/{n:03d}.png"
        save(photo, root / image, quality=95)
        save(label, root / f"{n % 2:05d}/cam_label_id/{n:03d}.png")
        save(PAINT[label], root / colour)
        listed.setdefault(split, []).append(f"{image} {n % 2:05d}/cam_label_id/{n:03d}.png")
    for split, lines in listed.items():
        (root / f"{split}.lst").write_text("\n".join(lines))


BINARY = ("background", "foreground", "foreground")
PLAIN = ("class_0", "class_1", "class_2")


def zeros_on_one_side(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"Images/{n + 1}.png")
        save(label, root / f"Masks/{n + 1:03d}.png")


def a_second_mask_of_few(root: Path) -> None:
    for _, n, photo, label in scenes():
        stem = root / "scans" / ("benign", "malign")[n % 2] / f"case ({n // 2})"
        save(photo, stem.with_name(f"{stem.name}.png"))
        save(binary(label, 1, *([2] * (n != 7))), stem.with_name(f"{stem.name}_mask.png"))
        if n == 7:
            save(binary(label, 2), stem.with_name(f"{stem.name}_mask_1.png"))


def two_channels_of_an_image(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"imagesTr/case_{n:03d}_0000.png")
        save(255 - photo, root / f"imagesTr/case_{n:03d}_0001.png")
        save(label, root / f"labelsTr/case_{n:03d}.png")


def splits_in_json(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"images/{n}.png")
        save(label, root / f"masks/{n}.png")
    names = {split: [str(n) for one, n, *_ in scenes() if one == split] for split in COUNTS}
    (root / "split.json").write_text(json.dumps({"classes": ["a"], **names}))


def splits_without_test_in_a_table(root: Path) -> None:
    rows = ["file,part"]
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{n}.png")
        save(label, root / f"masks/{n}.png")
        rows.append(f"{n}.png,{'train' if split == 'train' else 'valid'}")
    (root / "data.csv").write_text("\n".join(rows))


def tracked_objects(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"raw/{n}.tif")
        save(np.array([0, 17, 300 + n % 9], np.uint16)[label], root / f"labels/{n}.tif")


def overlays_beside_images(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"{split}/Images/{n}.png")
        save(photo, root / f"{split}/Overlay/{n}.png")
        save(label, root / f"{split}/Labels/type_map/{n}.png")
        save(label * np.uint8(9), root / f"{split}/Labels/inst_map/{n}.png")


def both_in_each_of_two_folders(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"A{n % 2}/plant{n}_rgb.png")
        save(label, root / f"A{n % 2}/plant{n}_label.png")


RUN: list[tuple[Write, tuple[str, ...], str]] = [
    (numbered_classes, ("background", "class_0", "class_1"), "guess: masks: "),
    (several_masks, BINARY, "guess: masks: an image has several binary masks"),
    (several_masks_beside, BINARY, "guess: masks: an image has several binary masks"),
    (numbered_objects, ("background", "object", "object"), "so they number objects"),
    (classes_and_objects, PLAIN, "guess: labels: the thousands"),
    (spread_greys, ("class_255", "class_128", "class_0"), "guess: labels: greys spread evenly"),
    (two_kinds_of_white, BINARY, "guess: labels: no label has both 1 and 255"),
    (swapped, PLAIN, "guess: label_dir: by its name it has the images"),
    (with_overlays_and_depth, PLAIN, "left out: {split}/depth\nleft out: {split}/overlay"),
    (two_annotators, PLAIN, "left out: what ends with _2nd.png"),
    (three_endings, PLAIN, "left out: what ends with _fg.png"),
    (by_date, PLAIN, ""),
    (unlabelled_test, PLAIN, "left out: the other folders of {split}/images, without labels"),
    (other_images_without_labels, PLAIN, "left out: imagesTs, without labels"),
    (trainval_and_test, ("sea", "fish", "reef"), "guess: splits: no val split"),
    (links_and_hidden_files, PLAIN, "left out: __MACOSX/images/train"),
    (composed_names, PLAIN, "train is train.txt; val is val.txt; test is test.txt"),
    (gif_palettes, ("background", "class_2", "class_1"), "guess: read: indices and colours"),
    (rooms, BINARY, "guess: labels: a binary mask"),
    (other_channels, PLAIN, "left out: {split}/nir_gray"),
    (folders_without_words, PLAIN, "guess: label_dir: the pictures of {split}/y have few colours"),
    (a_folder_an_image, BINARY, "guess: masks: an image has several binary masks"),
    (a_folder_a_pair, PLAIN, ""),
    (a_table_of_splits, PLAIN, "train is meta.csv; val is meta.csv; test is meta.csv"),
    (a_list_of_val, ("sea", "fish", "reef"), "test is valid.txt"),
    (other_zeros, PLAIN, ""),
    (a_table_of_pairs, PLAIN, "train is pairs.csv; val is pairs.csv; test is pairs.csv"),
    (lists_of_pairs, PLAIN, "train is train_list.txt; val is val_list.txt"),
    (lines_of_json, PLAIN, "guess: pairs: "),
    (transparency, BINARY, "guess: read: the colours of the labels tell no classes"),
    (netpbm, BINARY, ""),
    (mixed_suffixes, PLAIN, ""),
    (words_in_front, PLAIN, ""),
    (masks_of_classes_an_image, ("background", "car", "road"), ""),
    (classes_behind_names, ("background", "whole", "core"), "guess: masks: "),
    (a_folder_for_each_class, ("background", "ant", "bee"), ""),
    (constant_names, PLAIN, "left out: label_viz.png in each folder"),
    (sequences_in_splits, PLAIN, "train and val are as published"),
    (days_and_cameras, PLAIN, ""),
    (images_in_two_folders, PLAIN, ""),
    (flat_labels, PLAIN, ""),
    (splits_without_labels, PLAIN, "left out: the images of test, without labels"),
    (splits_in_names, PLAIN, "train is train*; val is 15% of train by the hash of the name; test"),
    (deep_folders, PLAIN, ""),
    (several_kinds_of_labels, PLAIN, ""),
    (two_kinds_of_labels, PLAIN, "left out: label colours"),
    (instances_beside, PLAIN, "left out: training/semantic_rgb"),
    (a_field_of_view, BINARY, "left out: mask"),
    (lists_of_another_ending, PLAIN, "train is train.lst; val is val.lst; test is test.lst"),
    (zeros_on_one_side, PLAIN, "found in"),
    (a_second_mask_of_few, BINARY, "guess: masks: an image has several binary masks"),
    (two_channels_of_an_image, PLAIN, "left out: 16 images that do not end with _0000.png"),
    (splits_in_json, PLAIN, "splits: train is split.json; val is split.json; test is split.json"),
    (splits_without_test_in_a_table, PLAIN, "; test is val of data.csv"),
    (tracked_objects, ("background", "object", "object"), "so they number objects"),
    (overlays_beside_images, PLAIN, "left out: {split}/Overlay"),
    (both_in_each_of_two_folders, PLAIN, ""),
]


@pytest.mark.parametrize(
    ("write", "names", "says"), RUN, ids=lambda one: getattr(one, "__name__", "")
)
def test_what_is_read_is_what_was_drawn_and_what_is_left_out_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Write,
    names: tuple[str, ...],
    says: str,
) -> None:
    root = tmp_path / "data"
    write(root)
    assert main([str(root)]) == 0
    told = capsys.readouterr()
    assert says in told.out and "fault: " not in told.out and told.err == ""
    assert check([str(root / "task.yaml"), "--out", str(tmp_path / "sheet.png")]) == 0
    unlabelled = write in (
        *(unlabelled_test, other_images_without_labels),
        *(splits_without_labels, instances_beside),
    )
    expected = sum(COUNTS.values()) - COUNTS["test"] * unlabelled
    assert_read(root, names, expected)


def assert_read(root: Path, names: Sequence[str], expected: int) -> None:
    """Every image is there once, and each of its pixels has the name of what was drawn."""
    data = open_data(load_task(root / "task.yaml").trained_here.data)
    drawn = [*scenes()]
    seen = [number for split in data.splits for number in numbers(data, split, names, drawn)]
    assert len(seen) == len({*seen}) == expected


def numbers(
    data: SegmentationData, split: str, names: Sequence[str], drawn: Sequence[tuple]
) -> Iterator[int]:
    part = data.splits[split]
    for image, label, name in zip(part.images, part.labels, part.names, strict=True):
        away = [np.abs(image.astype(int) - photo).mean() for _, _, photo, _ in drawn]
        _, number, _, truth = drawn[int(np.argmin(away))]
        assert min(away) < 18, name
        assert np.array_equal(np.array(data.class_names)[label], np.array(names)[truth]), name
        yield number


def test_greys_of_a_jpeg_are_cut_only_where_they_are_two(tmp_path, capsys) -> None:
    for split, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{split}/{n}.png")
        save(label * np.uint8(127), tmp_path / f"labels/{split}/{n}.jpg", quality=90)
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    line = "labels: {0..63: NAME, 64..191: NAME, 192..255: NAME}"
    assert error.count("\n") == 1 and line in error
    (tmp_path / "classes.yaml").write_text("labels: {0..63: a, 64..191: b, 192..255: c}")
    assert main([str(tmp_path)]) == 0


def test_a_line_for_blurred_greys_cuts_between_all_of_them(tmp_path, capsys) -> None:
    for split, n, photo, label in scenes():
        greys = np.array([0, 85, 170, 255], np.uint8)
        save(photo, tmp_path / f"images/{split}/{n}.png")
        label[30:, :20] = 3
        save(greys[label], tmp_path / f"labels/{split}/{n}.jpg", quality=90)
    assert main([str(tmp_path)]) == 2
    cuts = re.search(r"labels: \{0\.\.(\d+): NAME, .*\.\.(\d+): NAME, .*\.\.(\d+): NAME, .*\.\.255",
                     capsys.readouterr().err)  # fmt: skip
    assert cuts is not None
    assert np.abs(np.array([*map(int, cuts.groups())]) - [42, 127, 212]).max() <= 3


@pytest.mark.parametrize("said", ["there is 003-mask.png", "006_seg_1.png, which looks like one"])
def test_labels_whose_names_differ_among_each_other_are_not_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    beside = "looks" in said
    for _, n, photo, label in scenes():
        end = "_mask" if n != 3 or beside else "-mask"
        save(photo, tmp_path / f"{'all' if beside else 'images'}/{n:03d}.png")
        save(label, tmp_path / f"{'all' if beside else 'masks'}/{n:03d}{end}.png")
    if beside:
        save(label, tmp_path / "all/006_seg_1.png")
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not (tmp_path / "classes.yaml").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "image_dir: images\nlabel_dir: labels",
            "`splits: {val: 0.15, test: 0.15}` in classes.yaml",
        ),
        ("image_dir: nowhere", "nowhere: the folder does not exist"),
    ],
)
def test_a_description_that_says_too_little_is_one_line(tmp_path, capsys, text, says) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{n}.png")
        save(label, tmp_path / f"labels/{n}.png")
    (tmp_path / "classes.yaml").write_text(f"classes: [a, b, c]\n{text}")
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and says in error


def test_a_folder_of_dicom_is_told(tmp_path, capsys) -> None:
    (tmp_path / "1.dcm").write_bytes(b"DICM")
    assert main([str(tmp_path)]) == 2
    assert "1.dcm is DICOM, which is not read" in capsys.readouterr().err


def test_many_folders_leave_room_for_the_command_that_helps(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes():
        for kind in ("flair", "t1", "t2"):
            save(photo, tmp_path / f"patient{n}/images_{kind}/patient{n}.png")
        save(label, tmp_path / f"patient{n}/labels/patient{n}.png")
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert " and 44 more" in error and "--images images_flair` gathers 16 labelled" in error


def test_edges_between_colours_are_no_classes(tmp_path: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{split}/{n}.png")
        large = Image.fromarray(PAINT[label]).resize((560, 400), Image.Resampling.NEAREST)
        smooth = large.resize(SHAPE[::-1], Image.Resampling.BICUBIC, reducing_gap=1.1)
        path = tmp_path / f"labels/{split}/{n}.png"
        save(np.asarray(smooth.rotate(3, Image.Resampling.BICUBIC)), path)
    assert main([str(tmp_path)]) == 0
    data = open_data(load_task(tmp_path / "task.yaml").trained_here.data)
    assert data.class_names == ("background", "class_1", "class_2")


def noise(root: Path) -> None:
    for _, n, photo, _ in scenes():
        save(photo, root / f"images/{n}.png")
        save(photo[..., 0], root / f"masks/{n}.png")


def written(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict, str]:
    """The keys of classes.yaml, and what is said."""
    assert main([str(root)]) == 0
    return yaml.safe_load((root / "classes.yaml").read_text()), capsys.readouterr().out


def test_values_that_few_images_have_are_classes(tmp_path, capsys) -> None:
    stages(tmp_path)
    assert written(tmp_path, capsys)[0] == {"classes": [*PLAIN]}


def test_names_in_a_list_say_that_numbers_are_classes(tmp_path, capsys) -> None:
    numbered_objects(tmp_path)
    (tmp_path / "classes.txt").write_text("\n".join("abcdefgh"))
    assert written(tmp_path, capsys)[0]["classes"] == [*"abcdefgh"]


def test_a_list_of_names_that_is_none_is_passed_over(tmp_path, capsys) -> None:
    numbered_objects(tmp_path)
    (tmp_path / "classes.txt").write_text(f"{'9' * 200_000}\n")
    (tmp_path / "labels.txt").write_text("\n".join("abcdefgh"))
    assert written(tmp_path, capsys)[0]["classes"] == [*"abcdefgh"]


def test_many_classes_with_ignored_pixels_are_no_blurred_mask(tmp_path, capsys) -> None:
    for split, n, photo, _ in scenes():
        stripes = np.repeat(np.arange(28, dtype=np.uint8)[None], SHAPE[0], 0).repeat(2, 1)
        stripes[:2] = 255
        save(photo, tmp_path / f"images/{split}/{n}.png")
        save(stripes, tmp_path / f"labels/{split}/{n}.png")
    keys, told = written(tmp_path, capsys)
    assert len(keys["classes"]) == 28 and keys["ignore"] == [255]
    assert "guess: ignore: " in told and "images: 40x56\n" in told


def test_smooth_edges_of_a_mask_are_cut_in_the_middle(tmp_path, capsys) -> None:
    for split, n, photo, label in scenes():
        large = Image.fromarray(binary(label, 1, 2)).resize((560, 400), Image.Resampling.NEAREST)
        smooth = large.rotate(7, Image.Resampling.BILINEAR).resize(SHAPE[::-1])
        save(photo, tmp_path / f"images/{split}/{n}.png")
        save(np.asarray(smooth), tmp_path / f"labels/{split}/{n}.png")
    keys, _ = written(tmp_path, capsys)
    assert keys["labels"] == {"0..127": "background", "128..255": "foreground"}


def test_labels_that_are_not_read_are_told(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"images/im_{n:03d}.png")
        for reader in "12":
            save(label, tmp_path / f"labels/im_{n:03d}_{reader}.png")
    keys, told = written(tmp_path, capsys)
    (left,) = {"1", "2"} - {keys["label_path"][-len("1.png")]}
    assert "masks" not in keys and f"left out: labels that end with _{left}.png\n" in told


def test_masks_of_a_name_that_another_begins_with_are_not_put_together(tmp_path) -> None:
    labels = []
    for name in ("p_1_0", "p_1_1", "p_1_5_0", "p_1_5_1", "q_0", "q_1"):
        labels.append(tmp_path / f"{name}.png")
        save(np.eye(4, dtype=np.uint8), labels[-1])
    assert numbered_masks(["p_1.png", "p_1_5.png"], labels, "masks") == ""
    assert numbered_masks(["p_1_5.png", "q.png"], labels[2:], "masks") == "masks/{name}_*.png"


def test_without_a_test_split_val_is_tested_on(tmp_path, capsys) -> None:
    for split, n, photo, label in scenes({"train": 8, "val": 4}):
        save(photo, tmp_path / f"images/{split}/{n}.png")
        save(label, tmp_path / f"labels/{split}/{n}.png")
    keys, told = written(tmp_path, capsys)
    assert keys["splits"] == {"test": "val"} and "guess: splits: no test split" in told


def test_one_sequence_alone_is_no_group(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes({"train": 32}):
        drive = max(0, n // 2 - 10)
        save(photo, tmp_path / f"images/drive{drive}_{n:03d}.png")
        save(label, tmp_path / f"labels/drive{drive}_{n:03d}.png")
    assert "group" not in written(tmp_path, capsys)[0]


def test_what_is_said_of_a_folder(tmp_path, capsys) -> None:
    TREES["voc"].write(tmp_path)
    assert main([str(tmp_path), "--own"]) == 2
    assert "published" not in capsys.readouterr().err
    root = tmp_path / "mine"
    rooms(root)
    (root / "images/room0/000.png").unlink()
    _, told = written(root, capsys)
    assert "fault: " in told and "room0/000.png: no matching image" in told
    assert main([str(root), "--dry-run"]) == 0


def test_a_few_images_make_a_small_batch_and_an_end(tmp_path) -> None:
    text = task_text(tmp_path, {(480, 640): 3}, 3, Machine(True, None, "why"))
    assert "batch_size: 3\n" in text and "budget: {epochs: 300}\n" in text


def painted_jpegs(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo, root / f"images/{split}/{n}.png")
        save(PAINT[label], root / f"labels/{split}/{n}.jpg")


def nothing_drawn(root: Path) -> None:
    for split, n, photo, _ in scenes():
        white = np.full((*SHAPE, 4), 255, np.uint8)
        save(photo, root / f"images/{split}/{n}.png")
        save(white, root / f"masks/{split}/{n}.png")


def photographs_alone(root: Path) -> None:
    for _, n, photo, _ in scenes():
        save(photo, root / f"images/{n}.jpeg")


def unlike_names(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"frames/frame_{7 * n + 3:04d}.png")
        save(label, root / f"PixelLabelData/Label_{n + 1}_frame.png")


def one_pair(root: Path) -> None:
    save(np.zeros((*SHAPE, 3), np.uint8), root / "images/a.png")
    save(np.eye(*SHAPE, dtype=np.uint8), root / "labels/a.png")


def without_train(root: Path) -> None:
    for split, n, photo, label in scenes({"val": 4, "test": 4}):
        save(photo, root / f"images/{split}/{n}.png")
        save(label, root / f"labels/{split}/{n}.png")


def deep_grey(root: Path) -> None:
    for split, n, photo, label in scenes():
        save(photo[..., 0].astype(np.uint16) * 16, root / f"images/{split}/{n}.png")
        save(label, root / f"labels/{split}/{n}.png")


def arrays_alone(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    np.save(root / "images/0.npy", np.zeros((4, 4), np.uint8))


def an_archive(root: Path) -> None:
    root.mkdir()
    (root / "data.zip").write_bytes(b"PK")


def people_beside_categories(root: Path) -> None:
    for split, n, photo, label in scenes({"train": 8, "val": 4}):
        save(photo, root / f"{split}/Images/{n:04d}.jpg")
        save(label, root / f"{split}/Category_ids/{n:04d}.png")
        save(PAINT[label], root / f"{split}/Categories/{n:04d}.png")
        save((label > 0).astype(np.uint8), root / f"{split}/Human_ids/{n:04d}.png")
        save(label * 3, root / f"{split}/Instance_ids/{n:04d}.png")


STOP: list[tuple[Write, str]] = [
    (painted_jpegs, "store them anew without loss, as PNG"),
    (nothing_drawn, "all labels hold one value, 255; store the classes as different greys"),
    (deep_grey, "`python -m study.data convert arrays DIR DST` makes pictures of 8 bits"),
    (arrays_alone, "DST` reads 0.npy"),
    (an_archive, "no pictures in this folder; unpack data.zip first"),
    (photographs_alone, "(images: images; labels: none); `study.data convert` draws those"),
    (unlike_names, "rename the labels like their images"),
    (noise, "what is taken for labels has other values in nearly each pixel"),
    (without_train, "no images of train in images/{split} (found: val, test)"),
    (people_beside_categories, "`--labels '{split}/Category_ids'` chooses"),
    (one_pair, "train must have at least 3 images to carve from, got 1; docs/data_recipes.md has"),
]


@pytest.mark.parametrize(("write", "says"), STOP, ids=lambda one: getattr(one, "__name__", ""))
def test_what_would_be_read_wrongly_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Write, says: str
) -> None:
    write(tmp_path / "data")
    assert main([str(tmp_path / "data")]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and says in told.err


def test_the_folder_that_a_line_names_can_be_chosen(tmp_path: Path) -> None:
    two_kinds_of_labels(tmp_path)
    assert main([str(tmp_path), "--labels", "label ids"]) == 0
    assert_read(tmp_path, PLAIN, sum(COUNTS.values()))


def masks_of_parts(root: Path) -> None:
    for _, n, photo, label in scenes():
        save(photo, root / f"faces/{n}.jpg", quality=95)
        save(binary(label, 1), root / f"mask-anno/{n // 10}/{n:05d}_skin.png")
        save(binary(label, 2), root / f"mask-anno/{n // 10}/{n:05d}_l_brow.png")


def a_photograph_and_its_label(root: Path) -> None:
    for _, n, photo, label in scenes():
        place = root / f"{('Blowhole', 'Break', 'Free')[n % 3]}/Imgs"
        save(photo, place / f"exp{n % 4}_num_{n * 311}.jpg", quality=95)
        save(binary(label, 1, 2), place / f"exp{n % 4}_num_{n * 311}.png")


def folders_of_unlike_depth(root: Path) -> None:
    for split, n, photo, label in scenes():
        place = root / (split if split == "train" else f"{split}/{('easy', 'hard')[n % 2]}")
        save(photo, place / f"images/{n}.jpg", quality=95)
        save(PAINT[label], place / f"masks/{n}_mask.png")


def words_for_splits_and_classes(root: Path) -> None:
    for split, n, photo, label in scenes({"train": 11, "test": 5}):
        part = "a. Training Set" if split == "train" else "b. Testing Set"
        save(photo, root / f"1. Original Images/{part}/DR_{n + 1:02d}.jpg", quality=95)
        for at, (kind, end) in enumerate((("1. Edema", "ED"), ("2. Exudates", "EX")), start=1):
            mask = binary(label, at) > 0
            save(mask, root / f"2. Truths/{part}/{kind}/DR_{n + 1:02d}_{end}.tif")


def a_word_inside_the_name(root: Path) -> None:
    for _, n, photo, label in scenes():
        road = ("um", "umm", "uu")[n % 3]
        save(photo, root / f"training/image_2/{road}_{n:06d}.png")
        save(PAINT[label], root / f"training/gt_image_2/{road}_road_{n:06d}.png")


def classes_in_each_sequence(root: Path) -> None:
    for _, n, photo, label in scenes():
        place, name = root / f"dataset_{n // 4 + 1}", f"frame{n % 4:03d}.png"
        save(photo, place / "left_frames" / name)
        save(255 - photo, place / "right_frames" / name)
        save(binary(label, 1), place / f"ground_truth/Forceps_labels/{name}")
        save(binary(label, 2), place / f"ground_truth/Scissors_labels/{name}")


def bands_and_classes(root: Path) -> None:
    white = np.full(SHAPE, 255, np.uint8)
    for split, n, photo, label in scenes({"train": 11, "val": 5}):
        place, name = root / split, f"{n * 7919:08X}_0-0"
        save(photo, place / f"images/rgb/{name}.jpg", quality=95)
        save(255 - photo[..., 0], place / f"images/nir/{name}.jpg", quality=95)
        for folder in ("boundaries", "masks"):
            save(white, place / folder / f"{name}.png")
        save(binary(label, 1), place / f"labels/water/{name}.png")
        save(binary(label, 2), place / f"labels/weed_cluster/{name}.png")


def kinds_in_each_folder(root: Path) -> None:
    for _, n, photo, label in scenes():
        place, name = root / ("human liver", "mouse heart", "rat")[n % 3], f"slide_{n:02d}"
        save(photo, place / f"tissue images/{name}.png")
        save(label.astype(np.int32) * (n + 3), place / f"label masks/{name}.tif")
        save(binary(label, 1, 2), place / f"mask binary/{name}.png")


def masks_below_labels(root: Path) -> None:
    for split, n, photo, label in scenes({"train": 11, "test": 5}):
        place = root / ("TEST" if split == "test" else "train_val")
        save(photo, place / f"images/d_{n}_.jpg", quality=95)
        save(PAINT[label], place / f"masks/d_{n}_.bmp")
        for index in (1, 2) if split == "test" else ():
            save(binary(label, index), place / f"masks/K{index}{'AB'[index - 1]}/d_{n}_.bmp")


@pytest.mark.parametrize(
    ("write", "names", "says"),
    [
        (masks_of_parts, ("background", "skin", "l_brow"), "in one folder 16"),
        (a_photograph_and_its_label, BINARY, "in one folder 16"),
        (folders_of_unlike_depth, ("background", "class_2", "class_1"), "train 8, val 4, test 4"),
        (words_for_splits_and_classes, ("background", "edema_ed", "exudates_ex"), "test 5"),
        (a_word_inside_the_name, ("background", "class_2", "class_1"), "in one folder 16"),
        (classes_in_each_sequence, ("background", "forceps", "scissors"), "in one folder 16"),
        (kinds_in_each_folder, BINARY, "in one folder 16"),
        (bands_and_classes, ("background", "water", "weed_cluster"), "train 11, val 5"),
        (masks_below_labels, ("background", "class_2", "class_1"), "of other kinds, left out: 10"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_lies_in_many_folders_is_gathered_by_the_command_that_a_line_names(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    write: Write,
    names: tuple[str, ...],
    says: str,
) -> None:
    write(tmp_path / "data")
    assert main([str(tmp_path / "data")]) == 2
    line = capsys.readouterr().err
    command = re.search(r"`python -m study\.data (convert folders [^`]+)`", line)
    assert command is not None, line
    target = tmp_path / "gathered"
    assert check([*shlex.split(command[1].replace("DST", str(target)))]) == 0
    assert says in capsys.readouterr().out
    assert main([str(target)]) == 0
    assert "fault: " not in capsys.readouterr().out
    assert_read(target, names, 16)


def test_a_label_of_another_size_says_what_to_do(tmp_path, capsys) -> None:
    for split, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{split}/{n}.png")
        save(label.repeat(2, 0), tmp_path / f"labels/{split}/{n}.png")
    assert main([str(tmp_path)]) == 0
    assert check([str(tmp_path / "task.yaml")]) == 2
    assert "size (16): store both in one size" in capsys.readouterr().err


def test_labels_of_the_same_proportions_are_resized(tmp_path, capsys) -> None:
    smaller_labels(tmp_path)
    keys, told = written(tmp_path, capsys)
    assert keys["resize_labels"] is True and "guess: resize_labels: " in told
    data = open_data(load_task(tmp_path / "task.yaml").trained_here.data)
    drawn = [label.repeat(2, 0).repeat(2, 1) for _, _, _, label in scenes()]
    assert all(any(np.array_equal(one, label) for label in drawn) for one in data.test.labels)
    text = (tmp_path / "classes.yaml").read_text().replace("resize_labels: true", "")
    (tmp_path / "classes.yaml").write_text(text)
    assert check([str(tmp_path / "task.yaml")]) == 2
    assert "`resize_labels: true` in classes.yaml does it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "kind"), [(-1, np.int32), (65535, np.uint16)], ids=["-1", "65535"]
)
def test_pixels_without_data_do_not_count(tmp_path, capsys, value, kind) -> None:
    no_data(value, kind)(tmp_path)
    keys, told = written(tmp_path, capsys)
    assert keys == {"classes": [*PLAIN], "ignore": [value]} and f"guess: ignore: {value}" in told
    data = open_data(load_task(tmp_path / "task.yaml").trained_here.data)
    assert (data.train.labels[:, -8:] == 255).all() and data.train.labels[:, :-8].max() == 2


def test_names_of_classes_may_be_in_json(tmp_path, capsys) -> None:
    stages(tmp_path)
    for text in (
        '{"0": "a", "1": "b", "2": "c"}',
        '{"labels": {"a": 0, "b": 1, "c": 2}}',
        '["a", "b", "c"]',
    ):
        (tmp_path / "classes.json").write_text(text)
        assert written(tmp_path, capsys)[0] == {"classes": ["a", "b", "c"]}
        (tmp_path / "task.yaml").unlink()
        (tmp_path / "classes.yaml").unlink()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("label_colors.txt", "0 0 0 sky\n128 0 0\told tree\n0 128 0 car\n"),
        ("RUGD_annotation-colormap.txt", "0 sky 0 0 0\n1 old tree 128 0 0\n2 car 0 128 0\n"),
        (
            "classes.json",
            '[{"name": "sky", "color": "#000000"}, {"name": "old tree", "color": [128, 0, 0]},'
            '{"name": "car", "color": "#008000"}]',
        ),
    ],
)
def test_colours_have_the_names_of_a_list(tmp_path, capsys, name, text) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{n}.png")
        save(PAINT[label], tmp_path / f"labels/{n}.png")
    (tmp_path / name).write_text(text)
    keys, told = written(tmp_path, capsys)
    assert keys["labels"] == {"#000000": "sky", "#800000": "old tree", "#008000": "car"}
    assert "guess: labels" not in told


def test_numbers_before_names_are_values(tmp_path, capsys) -> None:
    stages(tmp_path)
    (tmp_path / "classes.txt").write_text("2: car\n0: sky\n1: old tree\n")
    assert written(tmp_path, capsys)[0] == {"classes": ["sky", "old tree", "car"]}


def test_a_tree_with_other_cities_than_cityscapes_is_read_as_a_folder(tmp_path, capsys) -> None:
    for split, n, photo, label in scenes():
        save(photo, tmp_path / f"leftImg8bit/{split}/{n % 2}/{n:03d}_leftImg8bit.png")
        save(label, tmp_path / f"gtFine/{split}/{n % 2}/{n:03d}_gtFine_labelids.png")
    assert written(tmp_path, capsys)[0]["classes"] == [*PLAIN]


def test_black_that_no_list_names_may_mean_not_labelled(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{n}.png")
        save(PAINT[label], tmp_path / f"labels/{n}.png")
    assert "`ignore` black if it means not labelled" in written(tmp_path, capsys)[1]


def test_the_label_of_several_that_is_called_so_is_read(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"rgb/a{n:02d}_rgb.png")
        for end, values in (
            ("invIds", binary(label, 0)), ("labelIds", label), ("labelTrainIds", label)
        ):  # fmt: skip
            save(values, tmp_path / f"gt/a{n:02d}_gt_{end}.png")
    assert written(tmp_path, capsys)[0]["label_path"] == "gt/{name}_gt_labelIds.png"


def test_what_lies_beside_a_data_set_does_no_harm(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"images/{n}.png")
        save(label, tmp_path / f"labels/{n}.png")
    (tmp_path / "classes.json").write_text("[" * 100_000)
    (tmp_path / "metadata.jsonl").write_text("[" * 100_000)
    (tmp_path / "train.csv").write_text(f'image,code\n0.png,"{"1 2 " * 40_000}"\n')
    assert main([str(tmp_path)]) == 0


def test_of_tables_that_cannot_be_read_the_folder_is_told(tmp_path, capsys) -> None:
    for _, n, photo, label in scenes():
        save(photo, tmp_path / f"photos/{n * 37 % 101:03d}x.png")
        save(label, tmp_path / f"seg/m{n:02d}.png")
    (tmp_path / "metadata.jsonl").write_text("[" * 100_000)
    (tmp_path / "train.csv").write_text(f'image,code\n000x.png,"{"1 2 " * 40_000}"\n')
    assert main([str(tmp_path)]) == 2
    assert "no image has a label of its name" in capsys.readouterr().err


def test_a_turned_photograph_has_the_size_of_its_label(tmp_path, capsys) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, n, photo, label in scenes():
        save(np.rot90(photo).copy(), tmp_path / f"images/{split}/{n}.jpg", exif=exif)
        save(label, tmp_path / f"labels/{split}/{n}.png")
    assert "images: 40x56\n" in written(tmp_path, capsys)[1]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("pairs: nope.csv", "classes.yaml:2: pairs: there is no table 'nope.csv' below the root"),
        ("pairs: photos", "classes.yaml:2: pairs: there is no table 'photos' below the root"),
        (
            "pairs: [train_list.txt, val_list.txt, test_list.txt]\n"
            "splits: {train: '0*', test: 'photos/9*', val: 'photos/[1-8]*'}",
            "no image is called 0*, but photos/000x",
        ),
    ],
)
def test_tables_and_patterns_that_name_nothing_are_told(tmp_path, capsys, line, says) -> None:
    lists_of_pairs(tmp_path)
    assert main([str(tmp_path)]) == 0
    (tmp_path / "classes.yaml").write_text(f"classes: [a, b, c]\n{line}\n")
    capsys.readouterr()
    assert check([str(tmp_path / "task.yaml")]) == 2
    assert says in capsys.readouterr().err
