"""The files of a folder data set: found by the names that classes.yaml gives, and paired."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from study.data.formats.folder_classes import FOLDER, NAME, SPLIT, SYNONYMS, Classes
from study.data.formats.folder_pairs import Tables
from study.data.scan import Findings, Pair, Suffixes
from study.data.splits import SPLITS

IMAGE_SUFFIXES: tuple[Suffixes, ...] = (
    (".jpg", ".jpeg", ".png"),
    (".tif", ".tiff", ".bmp", ".webp"),
    (".ppm", ".pgm", ".jp2"),
)  # those of the first group that is there at all
LABEL_SUFFIXES: tuple[Suffixes, ...] = (
    (".png",),
    (".tif", ".tiff", ".bmp", ".gif", ".webp"),
    (".jpg", ".jpeg"),
    (".ppm", ".pgm"),
)


class FolderFiles:
    """Lists and pairs the files below a root; what is wrong with them goes to `found`."""

    def __init__(self, root: Path, classes: Classes, found: Findings) -> None:
        self._root, self._classes, self._found = root, classes, found
        stated = classes.stated
        flat = bool(stated.splits) and not any(
            os.path.isdir(self.directory("images/{split}", split)) for split in SPLITS
        )
        default = "" if flat else f"/{SPLIT}"
        self.image_dir = (
            _above(stated.image_path)
            if stated.image_path
            else stated.image_dir or f"images{default}"
        )
        self.label_dir = (
            _above(stated.label_path)
            if stated.label_path
            else stated.label_dir or f"labels{default}"
        )
        self._paired: dict[str, tuple[Path, Path | None]] | None = None
        if stated.pairs:
            self.image_dir = self.label_dir = ""
            self._paired = self._by_tables(stated.pairs)
        self._labels_in: dict[tuple[Path, str], dict[str, Path]] = {}
        self._strays: dict[Path, None] = {}  # masks of no image that was looked at with them
        self._masked: set[int] = set()  # the masks of which there is a file

    @property
    def is_flat(self) -> bool:
        """Whether the images of all splits lie in one folder."""
        return SPLIT not in (self._classes.stated.image_path or self.image_dir)

    def directory(self, template: str, folder: str) -> Path:
        """The folder of a split, also where it is called by a synonym."""
        paths = [self._root / template.replace(SPLIT, form) for form in _forms(folder)]
        return next((path for path in paths if os.path.isdir(path)), paths[0])

    def images(self, folder: str) -> dict[str, Path]:
        """The images of a folder by name; those of nested folders have them in their names."""
        if self._paired is not None:
            return {name: image for name, (image, _) in self._paired.items()}
        stated = self._classes.stated
        directory = self.directory(self.image_dir, folder)
        groups = ((stated.image_suffix,),) if stated.image_suffix else IMAGE_SUFFIXES
        beside = {*self._labels(folder).values()} if os.path.isdir(directory) else set()
        for _, template in self._classes.masks:
            if NAME in template:
                pattern = self._pattern(template, folder).replace(NAME, "**/*")
                beside |= {Path(one) for one in glob.glob(pattern, recursive=True)}
        faults = len(self._found.faults)
        if stated.image_path:
            listed = self._matching(stated.image_path, folder, beside)
        else:
            listed = self._listed(directory, groups, beside)
        if not listed and len(self._found.faults) == faults:
            what = "images" if self.is_flat else f"{folder} images"
            kinds = stated.image_path or ", ".join(groups[0])
            self._found.fault("missing", f"the folder has no {what} ({kinds})", directory)
        return listed

    def pairs(self, images: Mapping[str, Path], folder: str, *, is_part: bool) -> list[Pair]:
        """Pair images with their labels or masks, in name order.

        is_part: whether there may be labels of other images in the folder.
        """
        image_dir = self.directory(self.image_dir, folder)
        label_dir = self.directory(self.label_dir, folder)
        if self._classes.masks:
            return self._masked_pairs(images, folder, is_part=is_part)
        if not os.path.isdir(label_dir):
            self._found.entries(label_dir)  # a fault
            return []
        labels = _renamed(self._labels(folder), images)
        where = self._classes.stated.label_path or self.label_dir
        if is_part or (SPLIT not in where and not self.is_flat):
            labels = {name: file for name, file in labels.items() if name in images}
        if self._classes.missing is None:
            return self._found.pair(images, labels, image_dir, label_dir)
        bare = [
            Pair(name, file, None) for name, file in sorted(images.items()) if name not in labels
        ]
        with_label = {name: file for name, file in images.items() if name in labels}
        self._found.pairs += bare
        pairs = self._found.pair(with_label, labels, image_dir, label_dir)
        return sorted([*bare, *pairs], key=lambda pair: pair.name)

    def _by_tables(self, files: Sequence[str]) -> dict[str, tuple[Path, Path | None]]:
        """The images that tables name, by name, each with its label."""
        tables = Tables(self._root)
        paired: dict[str, tuple[Path, Path | None]] = {}
        for file in files:
            if not (self._root / file).is_file():
                raise self._classes.error("pairs", f"there is no table {file!r} below the root")
            rows, strays = tables.pairs(self._root / file)
            if strays:
                message = f"{strays} rows name no image that is there"
                self._found.fault("missing image", message, self._root / file)
            for image, label in rows:
                name = image.relative_to(self._root).with_suffix("").as_posix()
                known = paired.setdefault(normalize("NFC", name), (image, label))
                if known != (image, label):
                    message = f"two rows differ in what belongs to {image.name}"
                    self._found.fault("twice", message, self._root / file)
        return paired

    def check_masks(self) -> None:
        """Find the masks that belong to no image of any split, and those of which no file is."""
        used = {file for pair in self._found.pairs for file in pair.files}
        for file in self._strays:
            if file not in used:
                message = f"no matching image in {self._root / self.image_dir}"
                self._found.fault("missing image", message, file)
        for index, template in self._classes.masks:
            if index not in self._masked:
                name = self._classes.names[index]
                message = f"no file of the masks of {name!r} ({template})"
                self._found.fault("missing", message, self._root)

    def _labels(self, folder: str) -> dict[str, Path]:
        """The labels of a folder by name; none where masks take their place, or without one."""
        if self._paired is not None:
            return {name: label for name, (_, label) in self._paired.items() if label is not None}
        directory = self.directory(self.label_dir, folder)
        if self._classes.masks or not os.path.isdir(directory):
            return {}
        place = directory, folder if self._classes.stated.label_path else ""
        if place not in self._labels_in:
            self._labels_in[place] = self._listed_labels(directory, folder)
        return self._labels_in[place]

    def _listed_labels(self, directory: Path, folder: str) -> dict[str, Path]:
        stated = self._classes.stated
        if stated.label_path:
            return self._matching(stated.label_path, folder, ())
        is_shared = directory == self.directory(self.image_dir, folder)
        groups = LABEL_SUFFIXES[: 1 if is_shared else None]
        if stated.label_suffix:
            groups = ((stated.label_suffix,),)
        return self._listed(directory, groups, ())

    def _matching(self, template: str, folder: str, without: Collection[Path]) -> dict[str, Path]:
        """The files that a path stands for, by name."""
        above = _above(template)
        directory = self.directory(above, folder)
        parts = re.split(r"(\{name\}|\{folder\}|\{split\}|\*)", template[len(above) :].lstrip("/"))
        known = {
            NAME: "(?P<name>.+)",
            FOLDER: "(?P<folder>.+)",
            SPLIT: f"(?:{'|'.join(map(re.escape, _forms(folder)))})",
        }
        pattern = ""
        for part in parts:
            pattern += known.get(part, "[^/]*" if part == "*" else re.escape(part))
            if part in (NAME, FOLDER):
                known[part] = f"(?P={part[1:-1]})"
        compiled = re.compile(normalize("NFC", pattern), re.DOTALL)
        named: dict[str, Path] = {}
        for path in self._found.tree(directory):
            below = normalize("NFC", path.relative_to(directory).as_posix())
            match = compiled.fullmatch(below)
            if match is None or path in without:
                continue
            name = "/".join(filter(None, (match.groupdict().get("folder"), match["name"])))
            if name in named:
                message = f"another file has the same name: {named[name].name}"
                self._found.fault("twice", message, path)
            named.setdefault(name, path)
        return named

    def _listed(
        self, directory: Path, groups: tuple[Suffixes, ...], without: Collection[Path]
    ) -> dict[str, Path]:
        """Files of the first group that is there: in the folder itself, else in those below it."""
        top = self._found.entries(directory)
        for below in (None, directory):
            some = top
            if below is not None and any(os.path.isdir(path) for path in top):
                some = self._found.tree(directory)
            some = [path for path in some if path not in without]
            for suffixes in groups:
                listed = self._found.named(some, suffixes, below=below)
                if listed:
                    return listed
        return {}

    def _masked_pairs(
        self, images: Mapping[str, Path], folder: str, *, is_part: bool
    ) -> list[Pair]:
        files: dict[str, list[tuple[int, Path]]] = {name: [] for name in images}
        for index, template in self._classes.masks:
            for name, file in self._of_mask(template, images, folder):
                if name in files:
                    files[name].append((index, file))
                    self._masked.add(index)
                elif not is_part:
                    self._strays.setdefault(file)
        pairs = [Pair(name, images[name], None, tuple(files[name])) for name in sorted(images)]
        self._found.pairs += pairs
        return pairs

    def _of_mask(
        self, template: str, images: Mapping[str, Path], folder: str
    ) -> Iterator[tuple[str, Path]]:
        """The files of one mask, each with the name of its image, or of none."""
        if NAME not in template:
            yield from self._listed_labels(self.directory(template, folder), folder).items()
            return
        pattern = self._pattern(template, folder)
        for name in images:
            spelt = {normalize(form, name) for form in ("NFC", "NFD")}
            files = {f for one in spelt for f in glob.glob(pattern.replace(NAME, glob.escape(one)))}
            for file in sorted(files):
                yield name, Path(file)
        for file in sorted(glob.glob(pattern.replace(NAME, "*"))):
            yield "", Path(file)

    def _pattern(self, template: str, folder: str) -> str:
        """A mask's path for glob, with {name} left in it."""
        if "/" not in template:
            has_labels = os.path.isdir(self.directory(self.label_dir, folder))
            template = f"{self.label_dir if has_labels else self.image_dir}/{template}"
        above = _above(template)
        inside = template[len(above) :].lstrip("/").replace(SPLIT, folder)
        return f"{glob.escape(str(self.directory(above, folder)))}/{inside}"


def unpadded(name: str) -> str:
    """A name whose numbers have no zeros in front."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _renamed(labels: Mapping[str, Path], images: Mapping[str, Path]) -> dict[str, Path]:
    """The labels by the names of their images, which may differ in the zeros before numbers, and in
    the folder, where images or labels have none."""
    is_flat = any(not any("/" in name for name in some) for some in (labels, images))
    for key in (
        (unpadded, lambda name: unpadded(name.rpartition("/")[2])) if is_flat else (unpadded,)
    ):
        spare: dict[str, list[str]] = {}
        for name in images:
            if name not in labels:
                spare.setdefault(key(name), []).append(name)
        lost = Counter(key(name) for name in labels if name not in images)
        known = {
            name: spare[key(name)][0]
            for name in labels
            if name not in images and len(spare.get(key(name), ())) == lost[key(name)] == 1
        }
        labels = {known.get(name, name): file for name, file in labels.items()}
    return dict(labels)


def _above(template: str | None) -> str:
    """The folder above the first part of a path that is not the same for all files."""
    return re.split(r"\{name\}|\{folder\}|\*", template)[0].rpartition("/")[0] if template else ""


def _forms(folder: str) -> list[str]:
    """What the folder of a split may be called, its own name first."""
    words = (folder, *SYNONYMS.get(folder, ()))
    return [*dict.fromkeys(f for word in words for f in (word, word.capitalize(), word.upper()))]
