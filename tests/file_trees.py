"""Miniature data roots in the exact on-disk form of each published data set: 12x16 images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

HEIGHT, WIDTH = 12, 16
CITIES = {"train": {"aachen": 3, "bochum": 2, "ulm": 3}, "val": {"frankfurt": 2, "munster": 1}}


def every(values: Iterable[Any]) -> np.ndarray:
    """(12, 16, ...): all values in turn, row by row."""
    array = np.array(list(values))
    return array[np.arange(HEIGHT * WIDTH) % len(array)].reshape(HEIGHT, WIDTH, *array.shape[1:])


def save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def save_image(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    save(rng.integers(0, 256, (height, width, 3)), path)


def save_palette(label: np.ndarray, path: Path) -> None:
    """Mode P in the colours of PASCAL VOC, which no reader may take for values."""
    image = Image.fromarray(label.astype(np.uint8))
    image.putpalette([(37 * index + channel) % 256 for index in range(256) for channel in range(3)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_16_bit(rgb: np.ndarray, path: Path) -> None:
    """A PNG with 16 bits a channel, three of them or four, its rows in turn under each of the five
    filters."""
    width, kind = {3: (6, 2), 4: (8, 6)}[rgb.shape[2]]
    rows = rgb.astype(">u2").view(np.uint8).reshape(len(rgb), -1).astype(int)
    raw, above = b"", np.zeros_like(rows[0])
    for number, row in enumerate(rows):
        left, corner = (
            np.concatenate([np.zeros(width, int), one[:-width]]) for one in (row, above)
        )
        estimate = left + above - corner
        away = np.abs(np.stack([left, above, corner]) - estimate)
        paeth = np.choose(away.argmin(0), [left, above, corner])
        filters = [np.zeros_like(row), left, above, (left + above) // 2, paeth]
        raw += bytes([number % 5]) + ((row - filters[number % 5]) % 256).astype(np.uint8).tobytes()
        above = row

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 16, kind, 0, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )


def cityscapes(root: Path) -> None:
    for split, cities in CITIES.items():
        for city, count in cities.items():
            for index in range(count):
                name = f"{city}_{index:06d}_000019"
                save_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png")
                labels = root / "gtFine" / split / city
                save(every(range(34)), labels / f"{name}_gtFine_labelIds.png")
                save(every(range(34)), labels / f"{name}_gtFine_instanceIds.png")
                (labels / f"{name}_gtFine_polygons.json").write_text("{}")
    save_image(root / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png")
    (root / "leftImg8bit" / "train" / ".thumbnails").mkdir()


def voc(root: Path) -> None:
    """Two more images are labelled in SBD's tree, which labels an image of train and val, too."""
    folder, sbd = root / "VOCdevkit" / "VOC2012", root / "benchmark_RELEASE" / "dataset"
    lists = {"train": [f"2007_{i:06d}" for i in range(12)], "val": ["2008_000001", "2008_000002"]}
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        file = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        file.write_text("".join(f"{name}\n" for name in names))
        for name in names:
            save_image(folder / "JPEGImages" / f"{name}.jpg")
            save_palette(every([*range(21), 255]), folder / "SegmentationClass" / f"{name}.png")
    save_image(folder / "JPEGImages" / "2012_000001.jpg")  # for detection, without a mask
    listed = {"train": ["2008_000001", "2009_000001"], "val": ["2007_000000", "2009_000002"]}
    (sbd / "cls").mkdir(parents=True)
    for split, names in listed.items():
        (sbd / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            save_image(sbd / "img" / f"{name}.jpg")
            save_mat(np.full((HEIGHT, WIDTH), 20), sbd / "cls" / f"{name}.mat")


def save_mat(label: np.ndarray, path: Path) -> None:
    content = {"Segmentation": label.astype(np.uint8), "Boundaries": 0, "CategoriesPresent": 20}
    savemat(path, {"GTcls": content})


def synthia(root: Path) -> None:
    rgb = np.zeros((HEIGHT, WIDTH, 3), int)
    rgb[..., 0], rgb[..., 1] = every(range(23)), every(range(500, 700, 7))
    for index in range(20):
        save_image(root / "RAND_CITYSCAPES" / "RGB" / f"{index:07d}.png")
        save_16_bit(rgb, root / "RAND_CITYSCAPES" / "GT" / "LABELS" / f"{index:07d}.png")


def deepglobe(root: Path) -> None:
    colours = [(a, b, c) for a in (0, 255) for b in (0, 255) for c in (0, 255)]
    colours.remove((255, 0, 0))
    for index in range(12):
        folder, name = root / "land" / "train", f"{100000 + 7 * index}"
        save_image(folder / f"{name}_sat.jpg")
        save(every(colours), folder / f"{name}_mask.png")


CAMVID_FRAMES = (
    *("0001TP_006690", "0001TP_006720", "0001TP_008550", "0006R0_f00930", "0006R0_f00960"),
    *("0016E5_00390", "0016E5_00420", "0016E5_07959", "0016E5_07961", "0016E5_08640"),
    *("Seq05VD_f00000", "Seq05VD_f00030", "Seq05VD_f00060"),
)


def camvid(root: Path) -> None:
    from study.data.formats.camvid import COLOURS

    for name in CAMVID_FRAMES:
        save_image(root / "701_StillsRaw_full" / f"{name}.png")
        save(every(COLOURS.values()), root / "LabeledApproved_full" / f"{name}_L.png")
    lines = [f"{r} {g} {b}\t{name}\n" for name, (r, g, b) in COLOURS.items()]
    (root / "label_colors.txt").write_text("".join(lines))


@dataclass(frozen=True)
class Tree:
    """How a root is written, the settings that suit its size, and a label that nobody can know."""

    write: Callable[[Path], None]
    num_classes: int
    spoil: Callable[[Path], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    inner: str = "."  # the folder that may be given as the root, too


def _index_99(label: Path) -> None:
    save(np.full((HEIGHT, WIDTH), 99), label)


def _red(label: Path) -> None:
    save(np.tile(np.array([250, 3, 2]), (HEIGHT, WIDTH, 1)), label)


def _id_23(label: Path) -> None:
    save_16_bit(np.full((HEIGHT, WIDTH, 3), 23), label)


TREES = {
    "cityscapes": Tree(cityscapes, 19, _index_99, {"val_cities": ["ulm"]}),
    "voc": Tree(voc, 21, _index_99, inner="VOCdevkit/VOC2012"),
    "synthia": Tree(synthia, 16, _id_23, {"block": 1}, inner="RAND_CITYSCAPES"),
    "deepglobe": Tree(deepglobe, 6, _red, {"val_fraction": 0.5}, inner="land"),
    "camvid": Tree(camvid, 11, _red, {"resplit": {"block": 2, "every": 2, "thin": {"val": 2}}}),
}


def data(name: str, **changes: Any) -> dict[str, Any]:
    """The `data:` block of a task on a tree."""
    return {"format": name, "size": [HEIGHT, WIDTH], **TREES[name].settings, **changes}
