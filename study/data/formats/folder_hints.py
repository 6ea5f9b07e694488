"""The lines for classes.yaml that help where a folder data set has another form than expected."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from study.data.formats.folder_classes import SYNONYMS, Classes
from study.data.formats.folder_files import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    SPLIT,
    FolderFiles,
)
from study.data.formats.folder_splits import UNDIVIDED
from study.data.scan import Findings
from study.data.splits import SPLITS

_IN = "in classes.yaml"
_PICTURES = tuple(one for group in (*IMAGE_SUFFIXES, *LABEL_SUFFIXES) for one in group)
_LABEL_WORDS = ("label", "mask", "annot", "ann", "gt", "ground", "seg", "truth", "target")
_MOST, _HEAD, _DEEPEST = 40, 2**16, 4  # names compared; bytes of a file looked at; folders
_SPLIT_WORD = {
    word: split for split, words in SYNONYMS.items() for word in (split, *words)
}  # in lower case
_EXPORTS = (  # the mark of each kind of annotation file, in the order of the search
    (".json", r'"shapes"\s*:', "labelme"),
    (".json", r'"(annotations|images)"\s*:.*"(file_name|images|info|licenses)"', "coco"),
    (".json", r'"(annotations|completions|data)"\s*:', "labelstudio"),
    (".xml", r"<annotations>|<polygon|<object>", "cvat"),
    (".txt", r"\A\s*\d+( [\d.]+){4,}\s*$", "yolo"),
)


def without_classes(root: Path) -> str:
    """What to write, or to run, where there is no classes.yaml."""
    return _convert(root) or "a minimal one is one line: `classes: [background, defect]`"


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
    return f"`image_suffix: .jpg` {_IN} takes one of them"


def _divide(root: Path, classes: Classes, files: FolderFiles) -> str:
    return f"{_split_line(root)} {_IN} divides them"


def _folders(root: Path, classes: Classes, files: FolderFiles) -> str:
    """Which folders there are in place of those that are missing."""
    templates = _templates(root)
    labels = [one for one in templates if any(word in one.lower() for word in _LABEL_WORDS)]
    images = [one for one in templates if one not in labels]
    if len(templates) == 1 and not classes.masks:  # labels beside the images, or none
        folder = next(
            filter(_pictures, (files.directory(templates[0], one) for one in SPLITS)), root
        )
        line = _affixes(_pictures(folder), _pictures(folder), shared=True)
        if line and templates[0] == files.image_dir == files.label_dir:
            return f"{line} {_IN} pairs them"
        if line:
            dirs = _line(image_dir=templates[0], label_dir=templates[0])
            return f"{dirs}, {line} {_IN}, if these are they"
        return _convert(root) or f"`label_dir` {_IN} names the labels' folder; no such is below"
    train, val, test = (
        all(
            any(name.lower().endswith(_PICTURES) for _, names in _walk(directory) for name in names)
            for directory in (
                files.directory(one, split) for one in (files.image_dir, files.label_dir)
            )
        )
        for split in SPLITS
    )
    if train and not files.is_flat:
        lines = {
            (True, False): "`splits: {test: val}` {} tests on val and carves val from train",
            (False, True): "`splits: {val: 0.15}` {} carves val from train",
            (False, False): "`splits: {val: 0.15, test: 0.15}` {} carves both from train",
        }
        return lines.get((val, test), "").replace("{}", _IN)
    if len(images) == 1 and len(labels) == 1:
        flat = SPLIT not in images[0] and not classes.stated.splits
        named = _line(image_dir=images[0], label_dir=labels[0])
        if flat and (images, labels) == (["images"], ["labels"]):
            return f"{_split_line(root)} {_IN} divides them"
        return f"{named}{f' and {_split_line(root)}' if flat else ''} {_IN}, if these are they"
    there = ", ".join(map(repr, templates[:6]))
    found = f"; found {there}" if there else ""
    return _convert(root) or f"`image_dir` and `label_dir` {_IN} name others{found}"


def _bare(root: Path, classes: Classes, files: FolderFiles) -> str:
    """How the names of labels differ from those of images; else what images without labels are."""
    if hint := _names(root, classes, files):
        return hint
    if not any(_pictures(files.directory(files.label_dir, split)) for split in SPLITS):
        return _convert(root)
    name = classes.names[0]
    return f"`missing_label: {name}` {_IN}, if images without a label are all {name}"


def _names(root: Path, classes: Classes, files: FolderFiles) -> str:
    """The lines that pair images and labels of different names."""
    stated = classes.stated
    if classes.masks or stated.label_suffix or stated.label_prefix:
        return ""
    for split in SPLITS:
        image_dir = files.directory(files.image_dir, split)
        label_dir = files.directory(files.label_dir, split)
        images, labels = _pictures(image_dir), _pictures(label_dir)
        line = _affixes(images, labels, shared=image_dir == label_dir) if images else ""
        if line:
            return f"{line} {_IN} pairs them"
    return ""


def _affixes(images: Sequence[str], labels: Sequence[str], *, shared: bool) -> str:
    """The line for names that differ before or after what they share."""
    stems = [one.rpartition(".")[0] for one in images]
    known = {*labels}
    seen: Counter[tuple[str, str]] = Counter()
    for stem in stems[:_MOST]:
        for label in labels:
            before, middle, after = label.partition(stem)
            if middle and (before or after.count(".") == 1):
                seen[before, after] += 1
    for (before, after), count in seen.most_common():
        paired = sum(f"{before}{stem}{after}" in known for stem in stems)
        plain = before == "" and after in _PICTURES
        if not plain and count > 1 and 2 * paired >= len(stems) // (1 + shared):
            given = {"label_prefix": before} if before else {}
            return _line(**given, label_suffix=after)
    mine, theirs = _common(images), _common(labels)
    if mine is None or theirs is None or mine == theirs or shared:
        return ""
    cores = [{one[len(a) : len(one) - len(z)] for one in names} for names, (a, z) in (
        (images, mine), (labels, theirs))]  # fmt: skip
    if 2 * len(cores[0] & cores[1]) < len(cores[0]):
        return ""
    given = {}
    for what, (before, after) in (("image", mine), ("label", theirs)):
        if mine[0] != theirs[0] and before:
            given[f"{what}_prefix"] = before
        if after not in _PICTURES:
            given[f"{what}_suffix"] = after
    return _line(**given)


def _common(names: Sequence[str]) -> tuple[str, str] | None:
    """What all names begin and end with, but for digits; None where that is nothing."""
    before, after = (
        os.path.commonprefix(some)  # noqa: RUF071  (of characters, as is meant)
        for some in ([*names], [one[::-1] for one in names])
    )
    before, after = before.rstrip("0123456789"), after[::-1].lstrip("0123456789")
    return (before, after) if "." in after else None


def _line(**keys: str) -> str:
    return ", ".join(f"`{key}: {_quoted(value)}`" for key, value in keys.items())


def _quoted(text: str) -> str:
    return f"'{text}'" if re.search(r"[{}:#]|^[.]?$", text) else text


def _split_line(root: Path) -> str:
    """The line with the lists that lie about, or with ratios."""
    lists: dict[str, str] = {}
    for pattern in ("*.txt", "*.csv", "*/*.txt", "*/*.csv", "*/*/*.txt", "*/*/*.csv"):
        for path in sorted(root.glob(pattern)):
            split = _SPLIT_WORD.get(path.stem.lower())
            if split is not None:
                lists.setdefault(split, path.relative_to(root).as_posix())
    if "train" in lists and len(lists) > 1:
        if "test" not in lists:
            lists["test"] = lists.pop("val")
        listed = ", ".join(f"{split}: {lists[split]}" for split in SPLITS if split in lists)
        return f"`splits: {{{listed}}}`"
    return "`splits: {val: 0.15, test: 0.15}`"


def _pictures(directory: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.lower().endswith(_PICTURES))
    except OSError:
        return []


def _templates(root: Path) -> list[str]:
    """The folders with pictures, as image_dir writes them; deeper ones are parts of them."""
    found: dict[str, None] = {}
    for folder, names in _walk(root):
        if any(name.lower().endswith(_PICTURES) for name in names):
            parts = folder.relative_to(root).parts
            named = [SPLIT if part.lower() in _SPLIT_WORD else part for part in parts]
            found["/".join(named) or "."] = None
    return [*found]


def _walk(root: Path) -> Iterator[tuple[Path, Collection[str]]]:
    for above, folders, names in os.walk(root):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        if len(Path(above).relative_to(root).parts) >= _DEEPEST:
            folders.clear()
        yield Path(above), names


def _convert(root: Path) -> str:
    """The command that reads the annotations of another tool, where some lie below."""
    for folder, names in _walk(root):
        for suffix, mark, tool in _EXPORTS:
            for name in [one for one in sorted(names) if one.lower().endswith(suffix)][:3]:
                try:
                    with (folder / name).open(encoding="utf-8", errors="replace") as file:
                        head = file.read(_HEAD)
                except OSError:
                    continue
                if re.search(mark, head, re.DOTALL | (re.MULTILINE if tool == "yolo" else 0)):
                    return (
                        f"`python -m study.data convert {tool} {root} DST` makes labels of {name}"
                    )
    return ""
