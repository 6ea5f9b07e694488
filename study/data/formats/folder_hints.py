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
        "missing label": _names,
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
    has = {
        split: os.path.isdir(files.directory(files.image_dir, split))
        and os.path.isdir(files.directory(files.label_dir, split))
        for split in SPLITS
    }
    train, val, test = has.values()
    if train and val:
        return f"`splits: {{test: val}}` {_IN} tests on val and carves val from train"
    if train and test:
        return f"`splits: {{val: 0.15}}` {_IN} carves val from train"
    if train:
        return f"`splits: {{val: 0.15, test: 0.15}}` {_IN} carves both from train"
    templates = _templates(root)
    labels = [one for one in templates if any(word in one.lower() for word in _LABEL_WORDS)]
    images = [one for one in templates if one not in labels]
    if len(images) == 1 and len(labels) <= 1:
        line = _line(image_dir=images[0], label_dir=(labels or images)[0])
        flat = "" if SPLIT in images[0] or classes.stated.splits else f" and {_split_line(root)}"
        return f"{line}{flat} {_IN}, if these are they"
    if convert := _convert(root):
        return convert
    there = ", ".join(repr(one) for one in templates[:6])
    return f"`image_dir` and `label_dir` {_IN} name others" + (f"; found {there}" if there else "")


def _names(root: Path, classes: Classes, files: FolderFiles) -> str:
    """How the names of labels differ from those of images; else what images without labels are."""
    stated = classes.stated
    for split in SPLITS:
        image_dir = files.directory(files.image_dir, split)
        label_dir = files.directory(files.label_dir, split)
        images, labels = _pictures(image_dir), _pictures(label_dir)
        if classes.masks or not images:
            continue
        if not labels:
            return _convert(label_dir) or _convert(root)
        line = _affixes(images, labels, shared=image_dir == label_dir)
        if line and not (stated.label_suffix or stated.label_prefix):
            return f"{line} {_IN} pairs them"
    if classes.missing is None and not classes.masks:
        name = classes.names[0]
        return f"`missing_label: {name}` {_IN}, if images without a label are all {name}"
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
