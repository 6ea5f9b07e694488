"""classes.yaml of a folder data set: the classes, and the naming of its files."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study.core.errors import InputError, is_control, line_of, shown
from study.core.yaml_file import YamlFile, read_yaml
from study.data.splits import IMAGENET_MEAN, IMAGENET_STD, UInt8Array, default_palette

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_KNOWN = (
    "name",
    "classes",
    "names",
    "num_classes",
    "ignore_index",
    "mean",
    "std",
    "image_dir",
    "label_dir",
    "image_suffix",
    "label_suffix",
)


@dataclass(frozen=True, eq=False)
class Classes:
    """Class c is names[c], drawn in palette[c]; {split} in a directory is replaced by the split's
    name."""

    name: str
    names: tuple[str, ...]
    palette: UInt8Array  # (C, 3)
    ignore_index: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_dir: str
    label_dir: str
    image_suffixes: tuple[str, ...]
    label_suffix: str


def read_classes(file: Path) -> Classes:
    """Read and check the file.

    Only the classes are required: a list of names, or of {id, name, color}, under `classes:` or
    `names:`. The rest has defaults: ignore_index 255, mean and std of ImageNet,
    images/{split}/*.jpg or .png, labels/{split}/*.png. Other keys are notes and are ignored.

    Raises InputError with the file, the line and the key.
    """
    return _Reader(read_yaml(file)).classes()


class _Reader:
    def __init__(self, file: YamlFile) -> None:
        self.file, self.content = file, file.data

    def classes(self) -> Classes:
        for key in self.content:
            close = difflib.get_close_matches(str(key), _KNOWN, 1, cutoff=0.8)
            if close and key not in _KNOWN:
                hint = f"did you mean {close[0]!r}?"
                raise self._error(str(key), f"unknown key {str(key)!r}", hint=hint)
        names, colours = self._named()
        num_classes = len(names)
        if self.content.get("num_classes", num_classes) != num_classes:
            must = f"must be {num_classes}, the number of listed classes"
            raise self._wrong("num_classes", must, self.content["num_classes"])
        palette = default_palette(num_classes)
        for index, colour in colours.items():
            palette[index] = colour
        ignore = self.content.get("ignore_index", 255)
        if not _is_int(ignore) or not num_classes <= ignore <= 255:
            must = f"must be a whole number in [{num_classes}, 255]"
            raise self._wrong("ignore_index", must, ignore)
        suffix = self._text("image_suffix", "")
        label_suffix = self._text("label_suffix", ".png")
        if not label_suffix.lower().endswith(".png"):
            raise self._wrong("label_suffix", "must end in .png", label_suffix)
        return Classes(
            name=self._text("name", "folder"),
            names=names,
            palette=palette,
            ignore_index=ignore,
            mean=self._rgb("mean", IMAGENET_MEAN),
            std=self._rgb("std", IMAGENET_STD),
            image_dir=self._directory("image_dir", "images/{split}"),
            label_dir=self._directory("label_dir", "labels/{split}"),
            image_suffixes=(suffix,) if suffix else IMAGE_SUFFIXES,
            label_suffix=label_suffix,
        )

    def _named(self) -> tuple[tuple[str, ...], dict[int, list[int]]]:
        key = "names" if "names" in self.content and "classes" not in self.content else "classes"
        listed = self.content.get(key)
        if not isinstance(listed, list) or not listed:
            must = "must be a list of names or of {id, name, color}"
            raise self._wrong(key, must, listed)
        if len(listed) > 255:
            raise self._wrong(key, "must have at most 255 entries", len(listed))
        names: dict[int, str] = {}
        colours = {}
        for position, entry in enumerate(listed):
            where = f"{key}/{position}"
            item = entry if isinstance(entry, dict) else {"name": entry}
            index, name = item.get("id", position), item.get("name")
            if not isinstance(name, str) or not name:
                hint = "quote yes, no, on and off" if isinstance(name, bool) else ""
                raise self._wrong(f"{where}/name", "must be text", name, hint=hint)
            if is_control(name):
                raise self._wrong(f"{where}/name", "must be printable text", name)
            if not _is_int(index) or not 0 <= index < len(listed) or index in names:
                if index in names:
                    raise self._error(f"{where}/id", f"duplicate id {index}")
                must = f"must be a whole number in [0, {len(listed) - 1}]"
                raise self._wrong(f"{where}/id", must, index)
            if name in names.values():
                raise self._error(f"{where}/name", f"duplicate class {name!r}")
            names[index] = name
            if "color" in item:
                colours[index] = self._colour(f"{where}/color", item["color"])
        return tuple(names[index] for index in sorted(names)), colours

    def _colour(self, key: str, colour: Any) -> list[int]:
        fits = isinstance(colour, list) and len(colour) == 3
        if not fits or not all(_is_int(part) and 0 <= part <= 255 for part in colour):
            raise self._wrong(key, "must be three whole numbers in [0, 255] (RGB)", colour)
        return list(colour)

    def _rgb(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self.content.get(key, default)
        fits = isinstance(value, list | tuple) and len(value) == 3
        if not fits or not all(
            isinstance(part, int | float) and not isinstance(part, bool) and 0 <= part <= 1
            for part in value
        ):
            raise self._wrong(key, "must be three numbers in [0, 1] (RGB)", value)
        if key == "std" and min(value) == 0:
            raise self._wrong(key, "must be > 0", value)
        return tuple(float(part) for part in value)

    def _text(self, key: str, default: str) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str) or (key in self.content and not value):
            raise self._wrong(key, "must be text that is not empty", value)
        if is_control(value):
            raise self._wrong(key, "must be printable text", value)
        return value

    def _directory(self, key: str, default: str) -> str:
        value = self._text(key, default)
        if "{split}" not in value:
            raise self._wrong(key, "must contain {split}", value)
        return value

    def _wrong(self, key: str, must: str, got: Any, *, hint: str = "") -> InputError:
        text = repr(got) if isinstance(got, list | tuple) else shown(got)
        return self._error(key, f"{key.rpartition('/')[2]} {must}, got {text}", hint=hint)

    def _error(self, key: str, offence: str, *, hint: str = "") -> InputError:
        line = line_of(key, self.file.lines)
        return InputError(offence, hint=hint, file=self.file.file, line=line, key=key)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
