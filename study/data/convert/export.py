"""What every reader of an export returns, and how it says what is wrong and finds its images."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.core.errors import InputError, did_you_mean, shown
from study.core.files import resolved
from study.data.formats.folder_classes import SPLIT_OF
from study.data.scan import files_below

Size = tuple[int, int]  # height, width
Rle = Mapping[str, Any]  # a mask, run-length encoded by pycocotools
FloatArray = NDArray[np.float64]
Colour = tuple[int, int, int]

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"),
    *(".webp", ".gif", ".jp2", ".ppm", ".pgm"),
)
_KINDS: Mapping[Any, str] = {
    str: "text",
    int: "a whole number",
    list: "a list",
    dict: "a mapping",
    (int, str): "a whole number or text",
    (int, float): "a number",
    (list, dict): "a list or a mapping",
}


@dataclass(frozen=True)
class Place:
    """Where something stands in an export."""

    file: Path
    line: int | None = None
    key: str = ""

    def at(self, key: object) -> Place:
        return replace(self, key=f"{self.key}/{key}".lstrip("/"))

    def fault(self, offence: str, *, hint: str = "", allowed: Any = None) -> InputError:
        return InputError(
            offence, hint=hint, allowed=allowed, file=self.file, line=self.line, key=self.key
        )


@dataclass(frozen=True)
class Region:
    """One labelled area. Regions of a higher `z` cover lower ones, and later ones earlier ones."""

    label: str
    draw: Callable[[Size], Rle]
    z: float = 0
    is_box: bool = False  # a detector's box, not an outline


@dataclass(frozen=True)
class Picture:
    """An image, with its regions in the order of the export."""

    file: Path
    place: Place
    regions: Sequence[Region]
    split: str = ""  # train, val, test, or nothing where the export has no splits
    size: Size | None = None  # as the tool states it: that of the image as it was shown
    content: bytes | None = None  # of an image that the export itself holds


@dataclass
class Export:
    """What was read. `labels` are in the order of the classes; `notes` counts what the summary must
    say, each with the words that follow the number."""

    pictures: list[Picture] = field(default_factory=list)
    labels: Sequence[str] = ()
    colours: Mapping[str, Colour] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)

    def take_labels(self) -> Export:
        """Take as classes, by name, what its regions are labelled; returns itself."""
        self.labels = sorted({one.label for picture in self.pictures for one in picture.regions})
        return self


def split_of(name: str) -> str:
    """The split that a name such as `instances_train2017` or `valid` speaks of, or nothing."""
    words = re.split(r"[^a-z]+", name.lower())
    found = {SPLIT_OF[word] for word in words if word in SPLIT_OF}
    return found.pop() if len(found) == 1 else ""


def split_of_path(path: Path, root: Path) -> str:
    """The split that the nearest folder on the way from the root speaks of, or nothing."""
    folders = path.relative_to(root).parts[:-1]
    return next((found for part in reversed(folders) if (found := split_of(part))), "")


def need(tree: Any, key: str | int, kind: Any, place: Place) -> Any:
    """The entry of a mapping, of the kind it must have."""
    if not isinstance(tree, dict):
        raise place.fault(f"must be a mapping, got {shown(tree)}")
    if key not in tree:
        raise place.fault(f"missing required key {key!r}")
    value = tree[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise place.at(key).fault(f"{key} must be {_KINDS[kind]}, got {shown(value)}")
    return value


def optional(tree: dict[str, Any], key: str, kind: Any, place: Place) -> Any:
    """The entry of a mapping, of the kind it must have; None where it is absent or null."""
    return None if tree.get(key) is None else need(tree, key, kind, place)


def numbers(values: Any, place: Place) -> FloatArray:
    """Finite numbers in an array of any shape."""
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        raise place.fault("coordinates must be numbers") from None
    if not np.isfinite(found).all():
        raise place.fault("coordinates must be finite numbers")
    return found


def points(values: Any, place: Place) -> FloatArray:
    """A list of (x, y), (N, 2)."""
    found = numbers(values, place)
    if found.ndim != 2 or found.shape[1] != 2:
        raise place.fault("points must be a list of [x, y]")
    return found


def flat_points(values: Any, place: Place) -> FloatArray:
    """A list of x and y by turns, as (N, 2)."""
    flat = numbers(values, place)
    if flat.ndim != 1 or len(flat) % 2:
        raise place.fault("a polygon must be a list of x and y by turns")
    if len(flat) < 6:
        raise place.fault(
            f"a polygon must have at least 3 points, got {len(flat) // 2}",
            hint="delete it in the tool",
        )
    return flat.reshape(-1, 2)


def read_text(file: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark."""
    if file.exists() and not file.is_file():
        raise InputError("not a regular file", file=file)  # reading a pipe would wait for ever
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"the file is not UTF-8 text: {error.reason}"
        raise InputError(message, file=file, line=line) from error
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror}", file=file) from error


def read_json(file: Path) -> Any:
    """A JSON file. Raises InputError with the line of its damage."""
    try:
        return json.loads(read_text(file))
    except json.JSONDecodeError as error:
        message = f"the file is not JSON: {error.msg}"
        raise InputError(message, hint="export it again", file=file, line=error.lineno) from error
    except (RecursionError, ValueError) as error:
        message = f"the file is not JSON that can be read: {error}"
        raise InputError(message, hint="export it again", file=file) from error


def other_tool(tree: Any) -> str:
    """A hint that names the converter for what a JSON file holds."""
    first = tree[0] if isinstance(tree, list) and tree else tree
    keys = first.keys() if isinstance(first, dict) else set()
    if isinstance(tree, list):
        known = {"labelstudio": {"annotations", "data"}}
    else:
        known = {"labelme": {"shapes"}, "coco": {"images", "annotations"}}
    fitting = [tool for tool, wanted in known.items() if wanted <= keys]
    return f"it looks like an export for `convert {fitting[0]}`" if fitting else ""


@dataclass(frozen=True)
class Source:
    """The export as it was given: a file or a folder, and the folder of its images."""

    given: Path
    root: Path  # the folder of the export
    images_root: Path
    files: Sequence[Path]  # of the export
    images: Mapping[str, Sequence[Path]]  # name of a file -> all images of that name

    @classmethod
    def of(cls, given: Path, images: Path | None = None) -> Source:
        """List what is there. Raises InputError where nothing is."""
        for path in (given, *([images] if images else [])):
            if not path.exists():
                raise InputError("no such file or folder", file=path)
        if images is not None and not images.is_dir():
            raise InputError("must be a folder", file=images, key="--images")
        if given.suffix.lower() in (".zip", ".tar", ".gz", ".7z"):
            raise InputError("this is an archive", hint="unpack it first", file=given)
        given = resolved(given, "SRC")
        root = given if given.is_dir() else given.parent
        images_root = resolved(images, "--images") if images else root
        by_name: dict[str, list[Path]] = {}
        for file in files_below(images_root):
            if file.suffix.lower() in IMAGE_SUFFIXES:
                by_name.setdefault(file.name, []).append(file)
        files = files_below(root) if given.is_dir() else [given]
        return cls(given, root, images_root, files, by_name)

    def suffixed(self, suffix: str) -> list[Path]:
        """The files of the export with a suffix, or the one that was given."""
        return [one for one in self.files if one == self.given or one.suffix.lower() == suffix]

    def find(
        self, reference: str, place: Place, *, near: Path | None = None, split: str = ""
    ) -> Path | None:
        """The image that an export names, by as much of its path as fits.

        An export's paths are often those of another machine, so that only the end of one counts.
        Nothing outside the folder of the images is ever found; of a path with `..` that leads out
        of it the part behind counts, and it is refused where no image there is called so.
        """
        parts = PurePosixPath(reference.replace("\\", "/")).parts
        near = near or self.images_root
        if ".." in parts:
            path = Path(os.path.normpath(near.joinpath(*parts)))
            if path.is_relative_to(self.images_root):
                parts = path.relative_to(self.images_root).parts
            elif parts[-1] in self.images:
                parts = parts[len(parts) - parts[::-1].index("..") :]
            else:
                raise place.fault(
                    f"the path {reference!r} leads out of {self.images_root}",
                    hint="give the folder that holds annotations and images, or --images DIR",
                )
        candidates = self.images.get(parts[-1], ()) if parts else ()
        exact = near.joinpath(*parts)
        if exact in candidates:
            return exact

        def fit(candidate: Path) -> tuple[int, bool]:
            own = candidate.relative_to(self.images_root)
            pairs = zip(reversed(own.parts), reversed(parts), strict=False)
            common = next(
                (i for i, (a, b) in enumerate(pairs) if a != b), min(len(own.parts), len(parts))
            )
            return common, bool(split) and split_of_path(candidate, self.images_root) == split

        best = max(map(fit, candidates), default=None)
        fitting = [one for one in candidates if fit(one) == best]
        if len(fitting) > 1:
            raise place.fault(
                f"{len(fitting)} images fit the name {reference!r}: "
                + " and ".join(str(one.relative_to(self.images_root)) for one in fitting[:2]),
                hint="rename one, or give the folder of the right ones as --images DIR",
            )
        return fitting[0] if fitting else None

    def image(self, reference: str, place: Place, **more: Any) -> Path:
        """The same. Raises InputError where there is none."""
        found = self.find(reference, place, **more)
        if found is None:
            raise self.missing(reference, place)
        return found

    def named(self, stem: str, place: Place, **more: Any) -> Path:
        """The image of a name, whatever its suffix. Raises InputError where there is none."""
        suffixes = (*IMAGE_SUFFIXES, *(one.upper() for one in IMAGE_SUFFIXES))
        names = [stem, *(f"{stem}{suffix}" for suffix in suffixes)]
        name = next((one for one in names if one in self.images), stem)
        return self.image(name, place, **more)

    def in_split(self, picture: Picture) -> Picture:
        """A picture in the split that the folders of its image speak of."""
        if not picture.file.is_relative_to(self.images_root):
            return picture  # the export holds the image itself
        return replace(picture, split=split_of_path(picture.file, self.images_root))

    def missing(self, reference: str, place: Place) -> InputError:
        name = PurePosixPath(reference.replace("\\", "/")).name
        hint = did_you_mean(name, self.images) or "images elsewhere: --images DIR"
        return place.fault(f"no image {reference!r} below {self.images_root}", hint=hint)
