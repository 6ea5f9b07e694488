"""PASCAL VOC 2012 segmentation (Everingham et al. 2015) and SBD (Hariharan et al. 2011).

    VOCdevkit/VOC2012/JPEGImages/<id>.jpg
                      SegmentationClass/<id>.png                palette indices 0 to 20, void 255
                      SegmentationClassAug/<id>.png             SBD as PNGs, if present
                      ImageSets/Segmentation/{train,val}.txt
    benchmark_RELEASE/dataset/{img/<id>.jpg,cls/<id>.mat,train.txt,val.txt}     SBD otherwise

The labels of the official test split are not public. Images that VOC labels keep VOC's labels
instead of SBD's; SBD has no void at the outlines.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from study.config.task import VocData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data.labels import IGNORED, ClassTable, IdTable
from study.data.resplit import in_blocks, in_fraction
from study.data.scan import Findings, Members, Pair, Scan, tree
from study.data.splits import FileProblem, UInt8Array

NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
_IDS = IdTable({index: index for index in range(len(NAMES))} | {IGNORED: IGNORED})
_HOLDS = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
_AUG, _SBD = "SegmentationClassAug", "benchmark_RELEASE/dataset"


def voc_scan(config: VocData, root: Path) -> Scan:
    """List VOC's own lists, and with `sbd` the further images that SBD labels."""
    voc = tree(root, _HOLDS, name="voc", inside=("VOCdevkit/VOC2012", "VOC2012"))
    found = Findings()
    ids = {
        split: _ids(found, voc / f"ImageSets/Segmentation/{split}.txt") for split in (TRAIN, VAL)
    }
    pairs = {
        split: _listed(found, ids[split], voc / "JPEGImages", voc / "SegmentationClass", ".png")
        for split in ids
    }
    further = _further(found, root, voc, {*ids[TRAIN], *ids[VAL]}) if config.sbd else []

    def members() -> Members:
        held_out = [pair for pair in pairs[TRAIN] if in_fraction(pair.name, config.val_fraction)]
        rest = [pair for pair in pairs[TRAIN] if not in_fraction(pair.name, config.val_fraction)]
        return {
            TRAIN: in_blocks([*rest, *further], 1),
            VAL: in_blocks(held_out, 1),
            TEST: in_blocks(pairs[VAL], 1),
        }

    return Scan(
        name="voc",
        config=config,
        root=root,
        table=ClassTable(NAMES, voc_palette(len(NAMES))),
        findings=found,
        read_label=_read_label,
        members=members,
        rule="test is the official val, as the test labels are not public; val is "
        f"{config.val_fraction:.0%} of the official train by the hash of the name"
        + ("; SBD is in train alone" if config.sbd else ""),
    )


def voc_palette(num_classes: int) -> UInt8Array:
    """The (C, 3) colours of PASCAL VOC: bits of the class id, dealt to r, g, b from the top bit."""
    ids = np.arange(num_classes)
    palette = np.zeros((num_classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(
                np.uint8
            )
    return palette


def _ids(found: Findings, file: Path) -> list[str]:
    """Read the names in a list file, sorted."""
    try:
        return sorted(set(file.read_text(encoding="utf-8-sig").split()))
    except (OSError, ValueError) as error:
        found.fault("missing", f"cannot read the list ({type(error).__name__})", file)
        return []


def _listed(
    found: Findings, ids: list[str], image_dir: Path, label_dir: Path, suffix: str
) -> list[Pair]:
    """Pair the files of a list; other files in the folders belong to other lists."""
    wanted = set(ids)
    images, labels = (
        {name: path for name, path in found.files(folder, (kind,)).items() if name in wanted}
        for folder, kind in ((image_dir, ".jpg"), (label_dir, suffix))
    )
    for name in ids:
        if name not in images and name not in labels:
            message = f"the listed image does not exist, nor does its label in {label_dir}"
            found.fault("missing image", message, image_dir / f"{name}.jpg")
    return found.pair(images, labels, image_dir, label_dir)


def _further(found: Findings, root: Path, voc: Path, own: set[str]) -> list[Pair]:
    """List the images that SBD labels and VOC does not, from PNGs in VOC's folder or from SBD's
    tree."""
    if os.path.isdir(voc / _AUG) and (labels := found.files(voc / _AUG, (".png",))):
        ids = {*labels} - own
        return _listed(found, sorted(ids), voc / "JPEGImages", voc / _AUG, ".png")
    candidates = [above / _SBD for above in (root, Path(os.path.abspath(voc)).parent.parent)]
    sbd = next((folder for folder in candidates if os.path.isdir(folder)), None)
    if sbd is None:
        hint = f"put {_AUG}, with labels in it, into {voc}, or {_SBD} into {root}"
        raise InputError("no files of SBD found", hint=hint, key="data/sbd")
    ids = {name for split in (TRAIN, VAL) for name in _ids(found, sbd / f"{split}.txt")} - own
    return _listed(found, sorted(ids), sbd / "img", sbd / "cls", ".mat")


def _read_label(file: Path) -> UInt8Array:
    return _read_mat(file) if file.suffix.lower() == ".mat" else _IDS.read(file)


def _read_mat(file: Path) -> UInt8Array:
    from scipy.io import loadmat

    try:
        values = loadmat(file)["GTcls"][0]["Segmentation"][0]
        if values.ndim != 2 or values.dtype != np.uint8:
            raise ValueError(f"Segmentation is {values.shape} {values.dtype}")
    except Exception as error:  # a damaged MATLAB file makes the reader raise anything
        reason = f"{type(error).__name__}: {error}".replace(str(file), "").strip()
        message = f"cannot read the label ({reason})"
        raise FileProblem("unreadable label", message, file) from error
    return _IDS.classes(values, file)
