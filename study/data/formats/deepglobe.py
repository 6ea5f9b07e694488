"""DeepGlobe Land Cover (Demir et al. 2018): 6 classes, unknown ignored.

    land/train/<id>_sat.jpg     2448x2448 RGB, 0.5 m per pixel
    land/train/<id>_mask.png    RGB, one colour per class; channels are thresholded at 128

Colours and threshold are those of the data set's README. Only `train` has public labels; the five
folds in name order are those of zifuwanggg/JDTLosses.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from study.config.task import DeepglobeData
from study.core.names import TEST, TRAIN, VAL
from study.data.labels import IGNORED, ClassTable, Colour, check_strays, read_colours
from study.data.resplit import in_blocks, in_fraction
from study.data.scan import Findings, Members, Scan, tree
from study.data.splits import UInt8Array

CLASSES: tuple[tuple[str, Colour], ...] = (
    ("urban", (0, 255, 255)),
    ("agriculture", (255, 255, 0)),
    ("rangeland", (255, 0, 255)),
    ("forest", (0, 255, 0)),
    ("water", (0, 0, 255)),
    ("barren", (255, 255, 255)),
)
FOLDS = 5
_CUT = 128
_BITS = np.array([4, 2, 1], np.uint8)
_RED = 4  # (255, 0, 0), the only one of the eight colours without a class; black is unknown
_CLASS_OF_CODE = np.full(8, IGNORED, np.uint8)
for _index, (_, _colour) in enumerate(CLASSES):
    _CLASS_OF_CODE[(np.array(_colour) >= _CUT) @ _BITS] = _index


def deepglobe_scan(config: DeepglobeData, root: Path) -> Scan:
    """List the images of `train`, in name order."""
    root = tree(root, ("train",), name="deepglobe", inside=("land",))
    directory = root / "train"
    found = Findings()
    images = found.files(directory, ("_sat.jpg",), want="images")
    pairs = found.pair(images, found.files(directory, ("_mask.png",)), directory, directory)
    pairs.sort(key=lambda pair: pair.image.name)  # JDTLosses' order: 119079_sat.jpg, 119_sat.jpg

    def members() -> Members:
        length = len(pairs) // FOLDS
        fold = slice(config.fold * length, (config.fold + 1) * length)
        test = pairs[fold]
        rest = [*pairs[: fold.start], *pairs[fold.stop :]]
        return {
            TRAIN: in_blocks([p for p in rest if not in_fraction(p.name, config.val_fraction)], 1),
            VAL: in_blocks([p for p in rest if in_fraction(p.name, config.val_fraction)], 1),
            TEST: in_blocks(test, 1),
        }

    return Scan(
        name="deepglobe",
        config=config,
        root=root,
        table=ClassTable.of(CLASSES),
        findings=found,
        read_label=_read_label,
        members=members,
        rule=f"test is fold {config.fold} of {FOLDS} in name order, as no other labels are public; "
        f"val is {config.val_fraction:.0%} of the rest by the hash of the name",
    )


def _read_label(file: Path) -> UInt8Array:
    rgb = read_colours(file)
    high = rgb >= _CUT
    codes = high[..., 0] * _BITS[0] + high[..., 1] * _BITS[1] + high[..., 2] * _BITS[2]
    check_strays(codes == _RED, rgb, file)
    return _CLASS_OF_CODE[codes]
