"""CamVid (Brostow et al. 2008, 2009) as published: 701 frames with 32 label colours.

    701_StillsRaw_full/<sequence>_<frame>.png
    LabeledApproved_full/<sequence>_<frame>_L.png     RGB, one colour per label

The colours are those of its label_colors.txt. The 11 classes, each a group of labels, and the split
into 367, 101 and 233 frames are SegNet's (Badrinarayanan et al. 2017): test is the sequence Seq05VD
and the end of 0001TP, val is a clip of seven seconds in 0016E5.
"""

from __future__ import annotations

import re
from pathlib import Path

from study.config.task import CamvidData
from study.core.names import TEST, TRAIN, VAL
from study.data.labels import IGNORED, ClassTable, Colour, ColourTable
from study.data.resplit import carved_pairs, in_blocks, in_words
from study.data.scan import Findings, Members, Pair, Scan, tree

COLOURS: dict[str, Colour] = {
    "Animal": (64, 128, 64),
    "Archway": (192, 0, 128),
    "Bicyclist": (0, 128, 192),
    "Bridge": (0, 128, 64),
    "Building": (128, 0, 0),
    "Car": (64, 0, 128),
    "CartLuggagePram": (64, 0, 192),
    "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128),
    "Fence": (64, 64, 128),
    "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64),
    "Misc_Text": (128, 128, 64),
    "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64),
    "ParkingBlock": (64, 192, 128),
    "Pedestrian": (64, 64, 0),
    "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192),
    "Sidewalk": (0, 0, 192),
    "SignSymbol": (192, 128, 128),
    "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192),
    "TrafficCone": (0, 0, 64),
    "TrafficLight": (0, 64, 64),
    "Train": (192, 64, 128),
    "Tree": (128, 128, 0),
    "Truck_Bus": (192, 128, 192),
    "Tunnel": (64, 0, 64),
    "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0),
    "Wall": (64, 192, 0),
}
GROUPS: dict[str, tuple[str, ...]] = {  # SegNet's order; a group has its first label's colour
    "Sky": ("Sky",),
    "Building": ("Building", "Bridge", "Wall", "Tunnel", "Archway"),
    "Pole": ("Column_Pole", "TrafficCone"),
    "Road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "Pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "Tree": ("Tree", "VegetationMisc"),
    "SignSymbol": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "Fence": ("Fence",),
    "Car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "Pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "Bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
_VOID = "Void"
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")
_DUSK_TEST, _CLIP = 8550, (7959, 8159)  # first test frame of 0001TP; first and last of val


def camvid_scan(config: CamvidData, root: Path) -> Scan:
    """List all frames, by sequence and number."""
    folders = ("701_StillsRaw_full", "LabeledApproved_full")
    root = tree(root, folders, name="camvid", inside=("CamVid",))
    image_dir, label_dir = (root / folder for folder in folders)
    found = Findings()
    images = found.files(image_dir, (".png",), want="images")
    pairs = found.pair(images, found.files(label_dir, ("_L.png",)), image_dir, label_dir)
    published: dict[str, list[Pair]] = {TRAIN: [], VAL: [], TEST: []}
    for pair in pairs:
        split = published_split(pair.name)
        if split is None:
            message = "the name is not that of a frame of 0001TP, 0006R0, 0016E5 or Seq05VD"
            found.fault("unknown sequence", message, pair.image)
        else:
            published[split].append(pair)
    groups = (
        GROUPS
        if config.num_classes == len(GROUPS)
        else {name: (name,) for name in COLOURS if name != _VOID}
    )

    def members() -> Members:
        by_sequence = {
            split: in_blocks(some, config.block, lambda pair: pair.name.partition("_")[0])
            for split, some in published.items()
        }
        return by_sequence | (carved_pairs(config.resplit, published) if config.resplit else {})

    return Scan(
        name=f"camvid{config.num_classes}",
        config=config,
        root=root,
        table=ClassTable.of((name, COLOURS[group[0]]) for name, group in groups.items()),
        findings=found,
        read_label=ColourTable(
            {COLOURS[_VOID]: IGNORED}
            | {
                COLOURS[label]: index
                for index, group in enumerate(groups.values())
                for label in group
            }
        ).read,
        members=members,
        rule=f"test is SegNet's; {in_words(config.resplit)}",
    )


def published_split(name: str) -> str | None:
    match = _FRAME.fullmatch(name)
    if match is None:
        return None
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= _DUSK_TEST):
        return TEST
    return VAL if sequence == "0016E5" and _CLIP[0] <= frame <= _CLIP[1] else TRAIN
