"""A small folder data set for tests: 12x16 images whose labels have a class per quadrant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from study.config.task import FolderData

HEIGHT, WIDTH = 12, 16
CLASSES = "classes: [road, car, pole]\n"


def write_folder(root: Path, *, train: int = 3, val: int = 2, test: int = 2) -> Path:
    """Images 000.png, 001.png, ... and labels with 0, 1, 2 and 255 in one quadrant each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            Image.fromarray(image).save(root / "images" / split / f"{index:03d}.png")
            Image.fromarray(quadrants()).save(root / "labels" / split / f"{index:03d}.png")
    (root / "classes.yaml").write_text(CLASSES)
    return root


def quadrants() -> np.ndarray:
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[: HEIGHT // 2, WIDTH // 2 :] = 1
    label[HEIGHT // 2 :, : WIDTH // 2] = 2
    label[HEIGHT // 2 :, WIDTH // 2 :] = 255
    return label


def save_turned(root: Path, orientation: int, stored: Image.Image) -> None:
    """train/000.png as a camera stores it, which was held otherwise."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(root / "images" / "train" / "000.png", exif=exif)


def config(**changes: object) -> FolderData:
    given = {"format": "folder", "size": [HEIGHT, WIDTH], **changes}
    return FolderData.model_validate(given)
