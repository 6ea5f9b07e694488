"""Cityscapes (Cordts et al. 2016), fine annotations: 19 classes, all other ids ignored.

    leftImg8bit/{train,val}/<city>/<city>_<seq>_<frame>_leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png       ids 0 to 33
                                              ..._gtFine_labelTrainIds.png   preferred if present

Ids, names and colours are those of mcordts/cityscapesScripts, helpers/labels.py. The labels of the
official test split are not public.
"""

from __future__ import annotations

import os
from pathlib import Path

from study.config.task import CityscapesData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data.labels import IGNORED, ClassTable, Colour, IdTable
from study.data.resplit import in_blocks
from study.data.scan import Findings, Members, Pair, Scan, tree
from study.data.splits import UInt8Array

CLASSES: tuple[tuple[int, str, Colour], ...] = (  # id in labelIds, in the order of the train ids
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_IDS = IdTable(
    dict.fromkeys(range(34), IGNORED)
    | {label_id: index for index, (label_id, _, _) in enumerate(CLASSES)}
)
_TRAIN_IDS = IdTable({index: index for index in range(len(CLASSES))} | {IGNORED: IGNORED})
_IMAGE, _LABEL = ("_leftImg8bit.png",), ("_gtFine_labelIds.png",)
_TRAIN_LABEL = ("_gtFine_labelTrainIds.png",)


def cityscapes_scan(config: CityscapesData, root: Path) -> Scan:
    """List both published splits, city by city."""
    root = tree(root, ("leftImg8bit", "gtFine"), name="cityscapes", inside=("cityscapes",))
    found = Findings()
    train, official_val = (
        {city: _pairs(found, root, split, city) for city in _cities(found, root, split)}
        for split in (TRAIN, VAL)
    )

    def members() -> Members:
        unknown = [city for city in config.val_cities if city not in train]
        if unknown:
            raise InputError.unknown("city", unknown[0], train, key="data/val_cities")

        def placed(cities: dict[str, list[Pair]]) -> list[tuple[Pair, int]]:
            pairs = [pair for some in cities.values() for pair in some]
            return in_blocks(pairs, config.block, lambda pair: pair.image.parent.name)

        held_out = set(config.val_cities)
        return {
            TRAIN: placed({city: some for city, some in train.items() if city not in held_out}),
            VAL: placed({city: some for city, some in train.items() if city in held_out}),
            TEST: placed(official_val),
        }

    return Scan(
        name="cityscapes",
        config=config,
        root=root,
        table=ClassTable.of((name, colour) for _, name, colour in CLASSES),
        findings=found,
        read_label=_read_label,
        members=members,
        rule="test is the official val, as the test labels are not public; val is "
        f"{', '.join(config.val_cities)} of the official train",
    )


def _cities(found: Findings, root: Path, split: str) -> list[str]:
    cities: set[str] = set()
    for folder in (root / "leftImg8bit" / split, root / "gtFine" / split):
        cities |= {city.name for city in found.entries(folder) if not os.path.isfile(city)}
    return sorted(cities)


def _pairs(found: Findings, root: Path, split: str, city: str) -> list[Pair]:
    image_dir, label_dir = (root / folder / split / city for folder in ("leftImg8bit", "gtFine"))
    images = found.files(image_dir, _IMAGE)
    labels = found.files(label_dir, _LABEL)
    if os.path.isdir(label_dir):
        labels |= found.files(label_dir, _TRAIN_LABEL)
    return found.pair(images, labels, image_dir, label_dir)


def _read_label(file: Path) -> UInt8Array:
    holds_train_ids = file.name.lower().endswith(_TRAIN_LABEL[0].lower())
    return (_TRAIN_IDS if holds_train_ids else _IDS).read(file)
