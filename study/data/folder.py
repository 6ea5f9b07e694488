"""Images and index labels in folders: images/{split}, labels/{split}, classes.yaml.

Images are JPEG or PNG; a label is an 8-bit PNG of the same size and name whose values (or palette
indices) are class ids. Both are resized to one size, images with an antialiased bilinear filter,
labels by nearest neighbour, so that no value appears that was not there.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from study.config import FolderData
from study.data.classes import Classes, read_classes
from study.data.resplit import Placed, resplit
from study.data.splits import SPLITS, FileProblem, Source, SplitSource, UInt8Array, outside_classes
from study.errors import InputError
from study.names import TEST, TRAIN, VAL

CLASSES_FILE = "classes.yaml"
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)  # what Pillow raises
_COLOUR_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")
_INDEX_MODES = ("L", "P")


def folder_source(config: FolderData, data_root: Path | None = None) -> Source:
    """Find and pair the files; nothing is decoded yet.

    Raises InputError when the root, a folder or classes.yaml is missing or malformed, when images
    and labels do not pair, and when a split is empty.
    """
    root = _root(config, data_root)
    classes = read_classes(root / CLASSES_FILE)
    pooled = config.resplit.pool if config.resplit else (TRAIN, VAL)
    files = _Files(root, classes, config.size, (*dict.fromkeys(pooled), TEST))
    placed: dict[str, list[tuple[Placed, int]]] = {
        split: [((split, name), index // config.block) for index, name in enumerate(names)]
        for split, names in files.names.items()
    }
    if config.resplit is not None:
        placed |= resplit(config.resplit, files.names)
    key = config.model_dump(mode="json") | {"root": str(root.resolve())}
    return Source(
        name=classes.name.replace("/", "-"),
        class_names=classes.names,
        palette=classes.palette,
        ignore_index=classes.ignore_index,
        mean=classes.mean,
        std=classes.std,
        size=config.size,
        key=key,
        splits={split: files.split([*placed[split]]) for split in SPLITS},
        state=files.state(),
    )


def _root(config: FolderData, data_root: Path | None) -> Path:
    given = data_root if data_root is not None else config.root
    if given is None:
        message = "the folder with images/, labels/ and classes.yaml must be given: --data-root DIR"
        raise InputError(message, key="data/root")
    root = Path(given).expanduser()
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise InputError(f"data root must be a folder, but {what}", file=root)
    return root


class _Files:
    """The pairs of a data root: names[split] are in order, each with its image and its label."""

    def __init__(
        self, root: Path, classes: Classes, size: tuple[int, int], splits: Sequence[str]
    ) -> None:
        self.root, self.classes, self.size = root, classes, size
        self.images: dict[Placed, Path] = {}
        self.labels: dict[Placed, Path] = {}
        self.names = {split: self._pair(split) for split in splits}

    def split(self, placed: Sequence[tuple[Placed, int]]) -> SplitSource:
        return SplitSource(
            names=tuple(name for (_, name), _ in placed),
            groups=np.array([block for _, block in placed], np.int64),
            read=lambda index: self._read(placed[index][0]),
        )

    def state(self) -> str:
        """Names, sizes and times of all files, and what classes.yaml says."""
        listed = []
        for path in (*self.images.values(), *self.labels.values()):
            stat = path.stat()
            listed.append([str(path.relative_to(self.root)), stat.st_size, stat.st_mtime_ns])
        described = (self.root / CLASSES_FILE).read_bytes()
        return hashlib.sha256(json.dumps(listed).encode() + described).hexdigest()

    def _pair(self, split: str) -> list[str]:
        image_dir = self.root / self.classes.image_dir.replace("{split}", split)
        label_dir = self.root / self.classes.label_dir.replace("{split}", split)
        images = _listed(image_dir, self.classes.image_suffixes)
        labels = _listed(label_dir, (self.classes.label_suffix,))
        if not images:
            kinds = ", ".join(self.classes.image_suffixes)
            raise InputError(f"must hold {split} images ({kinds}), but has none", file=image_dir)
        for mine, theirs, what in ((images, labels, "label"), (labels, images, "image")):
            lonely = sorted(set(mine) - set(theirs))
            if lonely:
                more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
                where = label_dir if what == "label" else image_dir
                message = f"must have its {what} in {where}, but does not{more}"
                raise InputError(message, file=mine[lonely[0]])
        self.images |= {(split, name): path for name, path in images.items()}
        self.labels |= {(split, name): path for name, path in labels.items()}
        return sorted(images)

    def _read(self, placed: Placed) -> tuple[UInt8Array, UInt8Array]:
        image_file, label_file = self.images[placed], self.labels[placed]
        image, label = _opened(image_file, "image"), _opened(label_file, "label")
        if image.mode not in _COLOUR_MODES:
            message = f"image must have 8 bits a channel, but has mode {image.mode}"
            raise FileProblem("image mode", message, image_file)
        if label.mode not in _INDEX_MODES:
            message = f"label must be an 8-bit index PNG (mode L or P), but has mode {label.mode}"
            raise FileProblem("label mode", message, label_file)
        if image.size != label.size:
            message = f"label must be as large as its image, {_hw(image)}, but is {_hw(label)}"
            raise FileProblem("size", message, label_file)
        num_classes, ignore = len(self.classes.names), self.classes.ignore_index
        outside = outside_classes(np.asarray(label), num_classes, ignore)
        if outside is not None:
            message = f"labels must be 0 to {num_classes - 1} or {ignore}, but one is {outside}"
            raise FileProblem("outside", message, label_file)
        size = (self.size[1], self.size[0])
        small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
        return np.asarray(small), np.asarray(label.resize(size, Image.Resampling.NEAREST))


def _listed(directory: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files by name without suffix; hidden files are none of ours."""
    if not directory.is_dir():
        raise InputError("folder must exist, but does not", file=directory)
    found: dict[str, Path] = {}
    for path in sorted(directory.iterdir()):
        suffix = next((s for s in suffixes if path.name.lower().endswith(s.lower())), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        name = path.name[: -len(suffix)]
        if name in found:
            message = f"must be the only image of its name, but so is {found[name].name}"
            raise InputError(message, file=path)
        found[name] = path
    return found


def _opened(file: Path, what: str) -> Image.Image:
    """Decoded whole, as a file that is cut short fails only then."""
    try:
        with Image.open(file) as opened:
            packed = _packed(opened)
            opened.load()
            image = opened.copy()
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {error}".replace(str(file), "").strip()
        message = f"{what} must be readable, but is not ({reason})"
        raise FileProblem(f"unreadable {what}", message, file) from error
    if packed and what == "label":
        message = f"label must have 8 bits a pixel where it has no palette, but has {packed}"
        raise FileProblem("label depth", message, file)
    return image


def _packed(opened: Image.Image) -> int:
    """2 or 4 where grey values have fewer than 8 bits (decoding stretches them to 0..255)."""
    mode = str(opened.tile[0][3]) if isinstance(opened, PngImageFile) and opened.tile else ""
    return {"L;2": 2, "L;4": 4}.get(mode, 0)


def _hw(image: Image.Image) -> str:
    return f"{image.height}x{image.width}"
