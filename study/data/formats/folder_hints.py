"""The lines for classes.yaml that help where a folder data set has another form than expected."""

from __future__ import annotations

import csv
import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from study.core.errors import InputError
from study.data.formats.folder_classes import NAME, SPLIT, SPLIT_OF, Classes
from study.data.formats.folder_files import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    FolderFiles,
    unpadded,
)
from study.data.formats.folder_pairs import Tables, cells, json_rows
from study.data.formats.folder_splits import UNDIVIDED
from study.data.scan import Findings
from study.data.splits import SPLITS

_IN = "in classes.yaml"
_PICTURES = tuple(one for group in (*IMAGE_SUFFIXES, *LABEL_SUFFIXES) for one in group)
OTHER = "`data: {factory: ...}` in the task reads labels that are no pictures"
_LABEL_WORDS = (
    "label",
    "lbl",
    "mask",
    "msk",
    "annot",
    "ann",
    "gt",
    "ground",
    "seg",
    "truth",
    "target",
    "manual",
    "semantic",
    "instance",
    "panoptic",
    "parsing",
)
_MOST, _HEAD, _DEEPEST = 40, 2**16, 8  # names compared; bytes of a file looked at; folders
ARRAYS = (".npy", ".npz", ".mat", ".nii", ".nii.gz", ".h5", ".hdf5", ".parquet")
_DICOM = "{} is DICOM, which is not read: dcm2niix makes .nii.gz of it, dcmj2pnm of DCMTK .png"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
_LONGEST = 2**23  # bytes of a table that is looked at
_LIST_WORDS = {"list", "lists", "id", "ids", "files", "filenames", "names", "images"}
_PADDING = re.compile(r"(?<!\d)0+$")  # zeros before a number
_OTHER_KIND = re.compile(r"colou?r|instance", re.IGNORECASE)  # beside labels of the same image
_SPLIT_WORD = re.compile("|".join(sorted(SPLIT_OF, key=len, reverse=True)), re.IGNORECASE)
_EXPORTS = (  # the mark of each kind of annotation file, in the order of the search
    (".json", r'"shapes"\s*:', "labelme"),
    (".json", r'"shape_attributes"\s*:', "via"),
    (".json", r'"objects"\s*:.*"(classTitle|geometryType)"\s*:', "supervisely"),
    (
        ".json",
        r'"(item|image)"\s*:\s*\{.*"annotations"\s*:.*"(polygon|bounding_box|mask|raster_layer)"\s*:',
        "darwin",
    ),
    (".json", r'"data_units"\s*:', "encord"),
    (".json", r'"class(Id|Name)"\s*:', "superannotate"),
    (".json", r'"categories"\s*:.*"items"\s*:', "datumaro"),
    (".json", r'"(data_row|External ID)"\s*:', "labelbox"),
    (".ndjson", r'"data_row"\s*:', "labelbox"),
    (".jsonl", r'"data_row"\s*:', "labelbox"),
    (".json", r'"type"\s*:\s*"(Multi)?Polygon"', "regions"),
    (".geojson", r'"type"\s*:\s*"(Multi)?Polygon"', "regions"),
    (".json", r'"(annotations|images)"\s*:.*"(file_name|images|info|licenses)"', "coco"),
    (".json", r'"(annotations|completions|data)"\s*:', "labelstudio"),
    (".xml", r"<Annotations?\b", "regions"),
    (".xml", r"<annotations>|<polygon|<object>", "cvat"),
    (".txt", r"\A\s*\d+( [\d.]+){4,}\s*$", "yolo"),
    (".csv", r'^[^\n]+,"?\d+ \d+( \d+ \d+)+"?(,|\s*$)', "rle"),
)


def without_classes(root: Path) -> str:
    """What to write, or to run, where there is no classes.yaml."""
    return convert_command(root) or "a minimal one is one line: `classes: [background, defect]`"


def add_hints(found: Findings, root: Path, classes: Classes, files: FolderFiles) -> None:
    """Give the faults of the files the line that helps against their kind."""
    kinds = {fault.kind for fault in found.faults if not fault.hint}
    hints = {
        "missing": _folders,
        "missing label": _bare,
        "missing image": _names,
        "twice": _suffix,
        UNDIVIDED: _divide,
    }
    for kind in kinds & {*hints}:
        hint = hints[kind](root, classes, files)
        if hint:
            for fault in found.faults:
                if fault.kind == kind and not fault.hint:
                    fault.hint = hint


def _suffix(root: Path, classes: Classes, files: FolderFiles) -> str:
    return f"`image_suffix`, `label_suffix` {_IN} choose one, as in `image_suffix: .jpg`"


def _divide(root: Path, classes: Classes, files: FolderFiles) -> str:
    return f"{_split_line(root)} {_IN} divides them"


def _folders(root: Path, classes: Classes, files: FolderFiles) -> str:
    """Which folders there are in place of those that are missing."""
    found = templates(root)
    masks = {name: one for name in classes.names for one in found if name in one.split("/")}
    if masks and not classes.masks:
        listed = ", ".join(f"{name}: {quoted(one)}" for name, one in masks.items())
        return f"`masks: {{{listed}}}` {_IN}, if each class has its own"
    train, val, test = (
        all(pictures_in(files.directory(one, split)) for one in (files.image_dir, files.label_dir))
        for split in SPLITS
    )
    if train and not (val and test) and not files.is_flat:
        lines = {
            (True, False): "`splits: {test: val}` {} tests on val and carves val from train",
            (False, True): "`splits: {val: 0.15}` {} carves val from train",
            (False, False): "`splits: {val: 0.15, test: 0.15}` {} carves both from train",
        }
        return lines[val, test].replace("{}", _IN)
    labels = called_labels(found)
    images = [one for one in found if one not in labels]
    if len(found) == 1 or (len(images) == 1 and len(labels) == 1):
        at, beside = (images or labels)[0], (labels or images)[0]
        line = _line(**pairing(at, beside, files))
        directory = next(filter(pictures_in, (files.directory(at, one) for one in SPLITS)), root)
        stems = [name.rpartition(".")[0] for name in pictures_in(directory)]
        has_labels = at != beside or len({*stems}) < len(stems)
        if has_labels or "label_suffix" in line or "label_path" in line:
            has_splits = SPLIT in at or classes.stated.splits
            both = [line, "" if has_splits else _split_line(root)]
            return f"{', '.join(filter(None, both))} {_IN}, if these are they"
    there = ", ".join(map(repr, found[:6]))
    return convert_command(root) or (
        f"`image_dir` and `label_dir` {_IN} name others; found {there or 'no pictures'}; {OTHER}"
    )


def _bare(root: Path, classes: Classes, files: FolderFiles) -> str:
    """How the names of labels differ from those of images; else what images without labels are."""
    if hint := _names(root, classes, files):
        return hint
    if not any(pictures_in(files.directory(files.label_dir, split)) for split in SPLITS):
        return convert_command(root) or OTHER
    name = classes.names[0]
    return f"`missing_label: {name}` {_IN}, if images without a label are all {name}"


def _names(root: Path, classes: Classes, files: FolderFiles) -> str:
    """The lines that pair images and labels of different names."""
    stated = classes.stated
    if classes.masks or stated.label_suffix or stated.label_path:
        return ""
    line = _line(**pairing(files.image_dir, files.label_dir, files))
    return f"{line} {_IN} pairs them" if line else ""


def pairing(image_dir: str, label_dir: str, files: FolderFiles) -> dict[str, str]:
    """The keys for images and labels in these folders, but for what is so by default."""
    for split in SPLITS:
        images, labels = (
            pictures_in(files.directory(one, split)) for one in (image_dir, label_dir)
        )
        if images and labels:
            break
    shared = image_dir == label_dir
    mine, theirs = _affixes(images, labels, shared=shared)
    given = {}
    for what, at, there, (before, after) in (
        ("image", image_dir, files.image_dir, mine),
        ("label", label_dir, files.label_dir, theirs),
    ):
        if before or (after and at != there):
            given[f"{what}_path"] = f"{at}/{before}{NAME}{after or '.*'}"
        elif after:
            given[f"{what}_suffix"] = after
        elif at != there and not (at == f"{what}s" and SPLIT not in at):
            given[f"{what}_dir"] = at
    return given


Affix = tuple[str, str]  # what all names begin and end with


def _affixes(images: Sequence[str], labels: Sequence[str], *, shared: bool) -> tuple[Affix, Affix]:
    """What the names of images and of labels have before and after what they share, if more than
    the suffixes of pictures."""
    stems = [one.rpartition(".")[0] for one in images]
    known = {*labels}
    seen: Counter[Affix] = Counter()
    for stem in stems[:_MOST]:
        for label in labels:
            before, middle, after = label.partition(stem)
            if middle and after.count(".") == 1 + before.count("."):
                before = _PADDING.sub("", before) if stem[0].isdecimal() else before
                seen[before, after] += 1
    nothing = "", ""
    for (before, after), count in seen.most_common():
        paired = sum(f"{before}{stem}{after}" in known for stem in stems)
        plain = before == "" and after in _PICTURES
        if plain and not shared:
            break
        if not plain and count > 1 and 2 * paired >= len(stems) // (1 + shared):
            return nothing, (before, after)
    if not shared and (end := _behind_labels(images, labels)):
        return ("", end), nothing
    mine, theirs = _common(images), _common(labels)
    if mine and not shared and (end := _one_kind(images, mine[1], labels)):
        return ("", mine[1]), ("", end)
    if shared or mine is None or theirs is None or mine == theirs:
        return nothing, nothing
    cores = [{unpadded(one[len(a) : len(one) - len(z)]) for one in names} for names, (a, z) in (
        (images, mine), (labels, theirs))]  # fmt: skip
    if 2 * len(cores[0] & cores[1]) < len(cores[0]):
        return nothing, nothing
    if mine[0] == theirs[0]:
        mine, theirs = ("", mine[1]), ("", theirs[1])
    return tuple(  # type: ignore[return-value]
        (before, "" if after in _PICTURES and not before else after)
        for before, after in (mine, theirs)
    )


def _behind_labels(images: Sequence[str], labels: Sequence[str]) -> str:
    """What the names of images have behind those of their labels, the first of several such as
    nnU-Net's `_0000.png` and `_0001.png`; "" if they have nothing there."""
    stems, known = [one.rpartition(".")[0] for one in labels], {*images}
    ends = {
        image[len(stem) :] for stem in stems[:_MOST] for image in images if image.startswith(stem)
    }
    fit = [one for one in ends if 2 * sum(f"{s}{one}" in known for s in stems) > len(stems)]
    return min(fit, default="") if {*fit}.isdisjoint(_PICTURES) else ""


def _one_kind(images: Sequence[str], behind: str, labels: Sequence[str]) -> str:
    """What the names of one kind of label end with, where images have `behind` and several kinds of
    labels other words in its place; the kind that is called so. "" if there is but one kind."""
    cores = [one.removesuffix(behind) for one in images[:_MOST]]
    ends = Counter(
        one[len(core) :] for core in cores for one in labels if one.startswith(core) and core
    )
    kinds = [end for end, count in ends.items() if count > 1 and 2 * count >= len(cores)]
    first = min(
        kinds,
        key=lambda end: (
            *(bool(_OTHER_KIND.search(end)), "label" not in end.lower()),
            *(not is_label(end), end),
        ),
        default="",
    )
    return first if len(kinds) > 1 else ""


def _common(names: Sequence[str]) -> Affix | None:
    """What all names begin and end with, but for digits; None where that is nothing."""
    before, after = (
        os.path.commonprefix(some)  # noqa: RUF071  (of characters, as is meant)
        for some in ([*names], [one[::-1] for one in names])
    )
    before, after = before.rstrip("0123456789"), after[::-1].lstrip("0123456789")
    return (before, after) if "." in after else None


def _line(**keys: str) -> str:
    return ", ".join(f"`{key}: {quoted(value)}`" for key, value in keys.items())


def quoted(text: str) -> str:
    return f"'{text}'" if re.search(r"[{}:#*]|^[.]?$", text) else text


def _split_line(root: Path) -> str:
    """The line with the lists that lie about, or with ratios."""
    lists = split_lists(root)
    if not lists:
        return "`splits: {val: 0.15, test: 0.15}`"
    listed = ", ".join(f"{split}: {lists[split]}" for split in SPLITS if split in lists)
    return f"`splits: {{{listed}}}`"


def split_lists(root: Path) -> dict[str, str]:
    """The lists of names of train and others that lie about; of two the second is test's, and so is
    a single one of val."""
    lists: dict[str, str] = {}
    for above in ("", "*/", "*/*/"):
        for path in sorted(
            p for end in ("txt", "lst", "list", "csv") for p in root.glob(f"{above}*.{end}")
        ):
            split = split_of_list(path)
            if split is not None:
                lists.setdefault(split, path.relative_to(root).as_posix())
    if {*lists} == {"val"}:
        return {"test": lists["val"]}
    if "train" not in lists or len(lists) < 2:
        return {}
    if "test" not in lists:
        lists["test"] = lists.pop("val")
    return lists


def split_of_list(path: Path) -> str | None:
    """The split of whose images a file has the names, by its own: `train.txt`, `val_list.txt`."""
    words = [one for one in re.split(r"[^a-z]+", path.stem.lower()) if one]
    named = [SPLIT_OF[one] for one in words if one in SPLIT_OF]
    is_list_of = len(named) == 1 and {*words} - {*SPLIT_OF} <= _LIST_WORDS
    return SPLIT_OF.get(path.stem.lower()) or (named[0] if is_list_of else None)


def pair_tables(root: Path) -> list[str]:
    """The tables that name an image and its label in nearly each row."""
    found: list[str] = []
    tables: Tables | None = None
    for path in (*sorted(root.glob("*")), *sorted(root.glob("*/*"))):
        is_table = path.suffix.lower() in (".csv", ".txt", ".tsv", ".jsonl", ".lst")
        if not is_table or not path.is_file() or path.stat().st_size > _LONGEST:
            continue
        tables = tables or Tables(root)
        try:
            rows, strays = tables.pairs(path)
        except InputError:
            continue
        if len(rows) > 1 and strays * 10 <= len(rows) and sum(one is None for _, one in rows) == 0:
            found.append(path.relative_to(root).as_posix())
    return found


def without_pictures(root: Path) -> str:
    """What to do where there are no pictures, by what there is."""
    return (
        _named(root, ARRAYS, _arrays(root))
        or _named(root, (".dcm",), _DICOM)
        or _named(root, _ARCHIVES, "unpack {} first")
        or OTHER
    )


def arrays_command(root: Path) -> str:
    """The command that reads the arrays that lie below; "" if there are none."""
    return _named(root, ARRAYS, _arrays(root)) or _named(root, (".dcm",), _DICOM)


def _arrays(root: Path) -> str:
    return f"`python -m study.data convert arrays {shlex.quote(str(root))} DST` reads {{}}"


def _named(root: Path, suffixes: tuple[str, ...], line: str) -> str:
    """The line about the first file with one of the suffixes."""
    names = sorted(name for _, some in walk(root) for name in some)
    found = next((name for name in names if name.lower().endswith(suffixes)), "")
    return line.format(found) if found else ""


def split_table(root: Path) -> tuple[str, set[str]]:
    """The table that has the split of each image in one of its columns, and the splits in it."""
    for path in [
        p for end in ("csv", "json") for a in ("", "*/") for p in sorted(root.glob(f"{a}*.{end}"))
    ]:
        try:
            if path.stat().st_size > _LONGEST:
                continue
            text = path.read_text(encoding="utf-8-sig")
            rows = json_rows(text) if path.suffix == ".json" else cells(text.splitlines())[1:]
        except (OSError, ValueError, csv.Error):
            continue
        if path.suffix == ".json" and not _name_pictures(root, rows):
            continue
        for column in zip(*rows, strict=False):
            splits = {SPLIT_OF.get(cell.lower(), "") for cell in column}
            if "train" in splits and len(splits) > 1 and "" not in splits:
                return path.relative_to(root).as_posix(), splits
    return "", set()


def _name_pictures(root: Path, rows: Sequence[Sequence[str]]) -> bool:
    """Whether nearly each row has the name of a picture, with its suffix or without."""
    stems = {
        name.rpartition(".")[0]
        for _, names in walk(root)
        for name in names
        if name.lower().endswith(_PICTURES)
    }
    named = [any({Path(cell).name, Path(cell).stem} & stems for cell in row) for row in rows]
    return sum(named) > 0.9 * len(rows)


def pictures_in(directory: Path, *, below: bool = True) -> list[str]:
    """The names of the pictures in a folder; where it has none, of those in the folders below."""
    for above, names in walk(directory):
        if above != directory and not below:
            break
        if found := sorted(one for one in names if one.lower().endswith(_PICTURES)):
            return found
    return []


def templates(
    root: Path, *, nested: bool = True, without: re.Pattern[str] | None = None
) -> list[str]:
    """The folders with pictures, as image_dir writes them, but for those in whose path `without` is
    found; if `nested`, those of one kind that lie side by side are the one above them."""
    folders = [
        above.relative_to(root).as_posix()
        for above, names in walk(root)
        if any(name.lower().endswith(_PICTURES) for name in names)
    ]
    folders = [one for one in folders if without is None or not without.search(one)]
    forms = [[form_of(part) for part in folder.split("/")] for folder in folders]
    divided: dict[str, list[list[str]]] = {}  # a template -> the parts of the folders of its form
    for folder, form in zip(folders, forms, strict=True):
        divided.setdefault("/".join(form), []).append(folder.split("/"))
    found = [
        "/".join(
            part if len({*column}) > 1 else column[0]
            for part, column in zip(form, zip(*divided["/".join(form)], strict=True), strict=True)
        )
        for form in forms
    ]
    if not nested:
        return [*dict.fromkeys(found)]
    side_by_side: dict[str, set[str]] = {}
    for one in found:
        side_by_side.setdefault(one.rpartition("/")[0], set()).add(one)
    alike = {
        above
        for above, some in side_by_side.items()
        if above and len(some) > 1 and len({is_label(one[len(above) :]) for one in some}) == 1
    }
    return [
        *dict.fromkeys(
            above if (above := one.rpartition("/")[0]) in alike else one for one in found
        )
    ]


def form_of(part: str) -> str:
    """A part of a path with {split} in place of a word for a split."""
    return _SPLIT_WORD.sub(SPLIT, part, count=1)


def is_label(folder: str) -> bool:
    """Whether a folder is called as those of labels are."""
    return any(word in folder.lower() for word in _LABEL_WORDS)


def called_labels(folders: Sequence[str]) -> list[str]:
    """Those that are called so by a part of their path that not all have."""
    parts = [one.split("/") for one in folders]
    shared = len(os.path.commonprefix(parts)) if len(parts) > 1 else 0  # noqa: RUF071  (of parts)
    return [
        one for one, own in zip(folders, parts, strict=True) if is_label("/".join(own[shared:]))
    ]


def walk(root: Path) -> Iterator[tuple[Path, Collection[str]]]:
    seen: set[str] = set()
    for above, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(above)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        if len(Path(above).relative_to(root).parts) >= _DEEPEST:
            folders.clear()
        yield Path(above), [one for one in names if not one.startswith(".")]


def convert_command(root: Path) -> str:
    """The command that reads the annotations of another tool, where some lie below."""
    for folder, names in walk(root):
        for suffix, mark, tool in _EXPORTS:
            for name in [one for one in sorted(names) if one.lower().endswith(suffix)][:3]:
                try:
                    with (folder / name).open(encoding="utf-8", errors="replace") as file:
                        head = file.read(_HEAD)
                except OSError:
                    continue
                if re.search(mark, head, re.DOTALL | (re.MULTILINE if suffix != ".json" else 0)):
                    source = shlex.quote(str(root))
                    return f"`python -m study.data convert {tool} {source} DST` reads {name}"
    return ""
