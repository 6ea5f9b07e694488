"""SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): 16 classes of Cityscapes, or 13 of them.

    RAND_CITYSCAPES/RGB/0000000.png
                    GT/LABELS/0000000.png     16-bit RGB: R is the class id, G the instance

Ids are those of the package's README and of lhoyer/DAFormer, tools/convert_datasets/synthia.py. The
16 classes are Cityscapes' 19 without terrain, truck and train, which are ignored like void, parking
slots, road works and lane marks; the 13 also lack wall, fence and pole. There is no official split.
"""

from __future__ import annotations

from pathlib import Path

from study.config.task import SynthiaData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data.labels import IGNORED, ClassTable, Colour, IdTable, read_16_bit_ids
from study.data.resplit import in_blocks
from study.data.scan import Findings, Members, Scan, tree
from study.data.splits import UInt8Array

CLASSES: tuple[tuple[int, str, Colour], ...] = (  # SYNTHIA's id, in Cityscapes' order
    (3, "road", (128, 64, 128)),
    (4, "sidewalk", (244, 35, 232)),
    (2, "building", (70, 70, 70)),
    (21, "wall", (102, 102, 156)),
    (5, "fence", (64, 64, 128)),
    (7, "pole", (153, 153, 153)),
    (15, "traffic light", (250, 170, 30)),
    (9, "traffic sign", (220, 220, 0)),
    (6, "vegetation", (107, 142, 35)),
    (1, "sky", (70, 130, 180)),
    (10, "pedestrian", (220, 20, 60)),
    (17, "rider", (255, 0, 0)),
    (8, "car", (0, 0, 142)),
    (19, "bus", (0, 60, 100)),
    (12, "motorcycle", (0, 0, 230)),
    (11, "bicycle", (119, 11, 32)),
)
_NOT_OF_THE_13 = ("wall", "fence", "pole")
_IDS = range(23)
_DECK, _TRAIN_BLOCKS = 10, 7  # of every ten blocks: seven train, one val, two test


def synthia_scan(config: SynthiaData, root: Path) -> Scan:
    """List all images, in name order."""
    folders = ("RGB", "GT/LABELS")
    root = tree(root, folders, name="synthia", inside=("RAND_CITYSCAPES",))
    image_dir, label_dir = (root / folder for folder in folders)
    found = Findings()
    images = found.files(image_dir, (".png",), want="images")
    pairs = found.pair(images, found.files(label_dir, (".png",)), image_dir, label_dir)
    classes = [
        one for one in CLASSES if config.num_classes == len(CLASSES) or one[1] not in _NOT_OF_THE_13
    ]
    ids = IdTable(
        dict.fromkeys(_IDS, IGNORED) | {one[0]: index for index, one in enumerate(classes)}
    )

    def read_label(file: Path) -> UInt8Array:
        return ids.classes(read_16_bit_ids(file), file)

    def members() -> Members:
        placed = in_blocks(pairs, config.block)
        if len(pairs) <= config.block * (_DECK - 2):
            raise InputError(
                f"blocks of {config.block} need more than {config.block * (_DECK - 2)} images, "
                f"got {len(pairs)}",
                hint="val and test are the 8th to 10th of every ten blocks",
                key="data/block",
            )
        part = {number: TRAIN if number < _TRAIN_BLOCKS else TEST for number in range(_DECK)}
        part[_TRAIN_BLOCKS] = VAL
        return {
            split: [one for one in placed if part[one[1] % _DECK] == split]
            for split in (TRAIN, VAL, TEST)
        }

    return Scan(
        name=f"synthia{config.num_classes}",
        config=config,
        root=root,
        table=ClassTable.of((name, colour) for _, name, colour in classes),
        findings=found,
        read_label=read_label,
        members=members,
        rule=f"of every ten blocks of {config.block} images in name order seven are train, one is "
        "val and two are test",
    )
