"""Splits of a folder data set: folders, lists of names, or ratios of train by the hash of a name.

A ratio takes whole groups, in the order of their hashes, until it has its share: the images of a
group stay together, and none of them moves where others come or go far from the share's end.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from study.config.task import FolderData
from study.core.errors import InputError
from study.core.names import TEST, TRAIN, VAL
from study.data.formats.folder_classes import SPLIT_OF, TABLE, Classes, is_list
from study.data.formats.folder_files import FolderFiles
from study.data.formats.folder_pairs import cells, json_rows
from study.data.resplit import carved_pairs, in_blocks, in_words
from study.data.scan import Findings, Members, Pair
from study.data.splits import SPLITS

DEFAULT_RATIO = 0.15  # of train, where val is carved from it and no ratio is stated
Spec = tuple[str, ...] | float
UNDIVIDED = "undivided"
_FIRST = re.compile(r"[\s,;|]")  # what ends the first entry of a line
_NOT_THERE = "the listed image does not exist"


class FolderSplits:
    """The pairs of each split, and how they came there."""

    def __init__(
        self, config: FolderData, root: Path, classes: Classes, files: FolderFiles, found: Findings
    ) -> None:
        self._config, self._root, self._classes = config, root, classes
        self._files, self._found = files, found
        self._spec = self._completed()
        self._unlisted = 0
        self._key = self._group_of()
        self._pairs = self._flat() if files.is_flat else self._in_folders()
        if classes.masks:
            files.check_masks()

    def _completed(self) -> dict[str, Spec]:
        """The source of each split; the rest of all images is train where none is stated."""
        stated = dict(self._classes.stated.splits)
        resplit = self._config.resplit
        if resplit is not None and (ratios := [one for one in stated.values() if not _parts(one)]):
            message = f"`resplit` of the task makes val anew, and so does the ratio {ratios[0]}"
            raise self._classes.error("splits", message, hint="leave one of the two out")
        if self._files.is_flat:
            if stated and TEST not in stated and TABLE not in stated:
                hint = "a list, or a ratio as in `splits: {val: 0.15, test: 0.15}`"
                raise self._classes.error("splits", "test is missing", hint=hint)
            if not stated:
                directory = self._files.directory(self._files.image_dir, "")
                self._found.fault(
                    UNDIVIDED, "the images of all splits lie in one folder", directory
                )
            return {VAL: DEFAULT_RATIO, **stated}
        pooled = resplit.pool if resplit else (TRAIN, VAL)
        for split in (*pooled, TEST):
            takes_val = split == VAL and VAL in _parts(stated.get(TEST, ()))
            stated.setdefault(split, DEFAULT_RATIO if takes_val else (split,))
        taken = {str(split): "resplit" for split in resplit.pool} if resplit else {}
        for split, spec in stated.items():
            for part in _parts(spec):
                other = taken.setdefault(part, split)
                if other != split and (other != "resplit" or split == TEST):
                    message = f"{split} is the folder {part}, which is in {other} too"
                    raise self._classes.error("splits", message)
                if is_list(part):
                    message = f"a list needs all images in one folder, got {self._files.image_dir}"
                    hint = "leave {split} out of image_dir and label_dir"
                    raise self._classes.error(f"splits/{split}", message, hint=hint)
        return stated

    def _in_folders(self) -> dict[str, list[Pair]]:
        pairs: dict[str, list[Pair]] = {}
        for split, spec in self._spec.items():
            for folder in _parts(spec):
                some = self._files.pairs(self._files.images(folder), folder, is_part=False)
                if len(_parts(spec)) > 1:  # which may have files of equal names
                    some = [replace(pair, name=f"{folder}/{pair.name}") for pair in some]
                pairs.setdefault(split, []).extend(some)
        return pairs

    def _flat(self) -> dict[str, list[Pair]]:
        images = self._files.images("")
        known = _Known(images)
        listed: dict[str, list[str]] = {}
        for split, spec in self._spec.items():
            for part in _parts(spec):
                if "*" in part:
                    some = fnmatch.filter(images, part)
                    if not some:
                        first = f", but {min(images)}" if images else ""
                        message = f"no image is called {part}{first}"
                        self._found.fault("missing", message, self._root)
                    listed.setdefault(split, []).extend(some)
                    continue
                if not is_list(part):
                    message = (
                        f"{part!r} is no list of names (.txt, .csv, .json), and image_dir has no"
                    )
                    raise self._classes.error(f"splits/{split}", f"{message} {{split}}")
                for of, names in self._listed(self._root / part, known, split).items():
                    listed.setdefault(of, []).extend(names)
        part_of: dict[str, str] = {}
        for split, names in listed.items():
            for name in names:
                if part_of.setdefault(name, split) != split:
                    message = f"{name} is in two lists, {part_of[name]} and {split}"
                    raise self._classes.error("splits", message)
        if TRAIN in listed:
            self._unlisted = len(images) - len(part_of)
            images = {name: file for name, file in images.items() if name in part_of}
        if TABLE in self._spec:
            for split in {*SPLITS} & {*listed}:
                self._spec[split] = self._spec[TABLE]
            if TEST not in listed and VAL in listed:  # of two the second is test's
                listed[TEST] = listed.pop(VAL)
                part_of |= dict.fromkeys(listed[TEST], TEST)
                tables = tuple(f"{VAL} of {one}" for one in _parts(self._spec[TABLE]))
                self._spec |= {TEST: tables, VAL: DEFAULT_RATIO}
            if TEST not in listed and not self._found.faults:
                raise self._classes.error("splits", "the table has no image of test")
        pairs = self._files.pairs(images, "", is_part=TRAIN in listed)
        found: dict[str, list[Pair]] = {split: [] for split in (TRAIN, *listed)}
        for pair in pairs:
            found[part_of.get(pair.name, TRAIN)].append(pair)
        return found

    def _listed(self, file: Path, known: _Known, split: str) -> dict[str, list[str]]:
        """The images that a list names, by split: in any of the ways in which lists name them."""
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            message = f"cannot read the list ({type(error).__name__})"
            self._found.fault("missing", message, file)
            return {}
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        suffix = file.suffix.lower()
        if suffix in (".csv", ".json"):
            rows = _table(text, lines, file)
            named = self._column(rows, file, known)
        else:  # VOC's lists have marks behind the names
            rows = [[line] for line in lines]
            named = [known.name(line) or known.name(_FIRST.split(line)[0]) for line in lines]
        of = [split] * len(rows)
        if split == TABLE:
            of = self._splits_of(rows, file)
        found: dict[str, list[str]] = {}
        for at, (row, name, one) in enumerate(zip(rows, named, of, strict=True)):
            if name is not None:
                found.setdefault(one, []).append(name)
            elif at or suffix != ".csv":  # the first row of a table may be its head
                self._found.fault("missing image", f"{_NOT_THERE}: {', '.join(row)}", file)
        return found

    def _column(
        self, rows: Sequence[Sequence[str]], file: Path, known: _Known
    ) -> Sequence[str | None]:
        """The images that the column names in which most of a table's rows name one."""
        columns = [
            [known.name(row[at]) if at < len(row) else None for row in rows]
            for at in range(max(map(len, rows), default=0))
        ]
        hits = [len(column) - column.count(None) for column in columns]
        best = [column for column, count in zip(columns, hits, strict=True) if count == max(hits)]
        if any(column != best[0] for column in best):
            self._found.fault("missing image", "two columns name different images", file)
        return best[0] if best else []

    def _splits_of(self, rows: Sequence[Sequence[str]], file: Path) -> list[str]:
        """The split of each row, by the column that has nothing else below its head."""
        for at in range(max(map(len, rows), default=0)):
            found = [SPLIT_OF.get(row[at].lower()) if at < len(row) else None for row in rows]
            if None not in found[1:]:
                return [one or TRAIN for one in found]
        self._found.fault(
            "missing", "no column has the split of each image (train, val, test)", file
        )
        return [TRAIN] * len(rows)

    def _group_of(self) -> Callable[[str], str]:
        pattern = self._classes.stated.group
        if pattern is None:
            return lambda name: name
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            message = f"group must be a regular expression, got {pattern!r}: {error}"
            raise self._classes.error("group", message) from error
        if compiled.groups != 1:
            message = f"group must have one (group), got {compiled.groups} in {pattern!r}"
            raise self._classes.error("group", message)
        if self._config.block != 1 or self._config.resplit is not None:
            other = "resplit" if self._config.resplit is not None else "block"
            message = f"`{other}` of the task groups images, and so does group"
            raise self._classes.error("group", message, hint="leave one of the two out")

        def group(name: str) -> str:
            match = compiled.search(name)
            if match is None or match[1] is None:
                raise self._classes.error("group", f"{pattern!r} does not match {name!r}")
            return match[1]

        return group

    def members(self) -> Members:
        """The pairs of each split, each with its block id."""
        config, pairs = self._config, dict(self._pairs)
        if config.resplit is not None:
            test = in_blocks(pairs[TEST], config.block)
            return {**carved_pairs(config.resplit, pairs), TEST: test}
        ratios = {split: spec for split, spec in self._spec.items() if isinstance(spec, float)}
        if ratios:
            pairs |= self._carved(pairs[TRAIN], ratios)
        if self._classes.stated.group is None:
            return {split: in_blocks(pairs[split], config.block) for split in SPLITS}
        ids = {
            key: index
            for index, key in enumerate(
                sorted({self._key(pair.name) for split in SPLITS for pair in pairs[split]})
            )
        }
        return {
            split: [(pair, ids[self._key(pair.name)]) for pair in pairs[split]] for split in SPLITS
        }

    def _carved(self, pairs: Sequence[Pair], ratios: Mapping[str, float]) -> dict[str, list[Pair]]:
        """Train without the splits that are ratios of it, and these."""
        groups: dict[str, list[Pair]] = {}
        for pair in pairs:
            groups.setdefault(self._key(pair.name), []).append(pair)
        if len(groups) <= len(ratios):
            what = "groups" if self._classes.stated.group else "images"
            message = f"train must have at least {len(ratios) + 1} {what} to carve from"
            hint = "docs/data_recipes.md has a script that cuts large images into tiles"
            raise self._classes.error("splits", f"{message}, got {len(groups)}", hint=hint)
        ahead = sorted(groups, key=lambda key: hashlib.sha256(os.fsencode(key)).digest())
        place: dict[str, str] = {}
        for left, split in enumerate(sorted(ratios), start=1):
            size, wanted = 0, ratios[split] * len(pairs)
            while len(ahead) > len(ratios) - left + 1:
                length = len(groups[ahead[0]])
                if size and size + length / 2 > wanted:
                    break
                place[ahead.pop(0)] = split
                size += length
        return {
            split: [pair for pair in pairs if place.get(self._key(pair.name), TRAIN) == split]
            for split in (TRAIN, *ratios)
        }

    def rule(self) -> str:
        """How the splits came about, in words."""
        if not self._classes.stated.splits:
            return f"test is as published; {in_words(self._config.resplit)}"
        by = "name" if self._classes.stated.group is None else "group"
        words = []
        for split in SPLITS:
            spec = self._spec.get(split, ())
            if isinstance(spec, float):
                words.append(f"{split} is {spec:.0%} of train by the hash of the {by}")
            elif spec == (split,):
                words.append(f"{split} is as published")
            elif spec:
                folder = "" if self._files.is_flat else "the folder "
                words.append(f"{split} is {folder}{' and '.join(spec)}")
        if self._config.resplit is not None:
            words = [words[-1], in_words(self._config.resplit)]
        used = {part for spec in self._spec.values() for part in _parts(spec)}
        for split in [] if self._files.is_flat else SPLITS:
            if split not in used and self._files.directory(self._files.image_dir, split).is_dir():
                words.append(f"the {split} folder is not used")
        if self._unlisted:
            words.append(f"{self._unlisted} images are in no list")
        return "; ".join(words)

    def warnings(self, members: Members) -> tuple[str, ...]:
        """Warn of a test split that was published for choosing, of groups in two splits, and of
        labels whose edges are guessed."""
        found = []
        if self._spec.get(TEST) == (VAL,):
            found.append("test is the published val; val is carved from train")
        if self._classes.stated.group is not None:
            blocks = [{block for _, block in members[split]} for split in SPLITS]
            torn = sum(len(one & other) for one, other in combinations(blocks, 2))
            if torn:
                found.append(f"groups in two splits: {torn}; ratios keep each in one")
        files = [file for split in SPLITS for pair, _ in members[split] for file in pair.files[1:]]
        lossy = sum(file.suffix.lower() in (".jpg", ".jpeg") for file in files)
        if lossy:
            found.append(f"labels of lossy compression: {lossy}; their edges are guessed")
        return tuple(found)


def _table(text: str, lines: Sequence[str], file: Path) -> Sequence[Sequence[str]]:
    if file.suffix.lower() == ".csv":
        return cells(lines)
    try:
        return json_rows(text)
    except ValueError as error:
        raise InputError("the list is not JSON", file=file) from error


class _Known:
    """Finds the image that an entry of a list names: with or without suffix, folder or host."""

    def __init__(self, images: Mapping[str, Path]) -> None:
        self._names = {name: name for name in images}
        for name, file in images.items():
            full = str(PurePosixPath(name).with_name(file.name))
            self._names.setdefault(normalize("NFC", full), name)
        short: dict[str, set[str]] = {}
        for name, file in images.items():
            for one in {PurePosixPath(name).name, file.name, file.stem}:
                short.setdefault(normalize("NFC", one), set()).add(name)
        self._short = {one: next(iter(names)) for one, names in short.items() if len(names) == 1}

    def name(self, entry: str) -> str | None:
        """The name of the image; None for other text, and for what several images are called."""
        text = normalize("NFC", entry).strip().replace("\\", "/").removeprefix("./")
        parts = text.split("/")
        for at in range(len(parts)):  # the longest end of a path that is known
            end = "/".join(parts[at:])
            bare = str(PurePosixPath(end).with_suffix("")) if end else end
            for one in (end, bare):
                if one in self._names:
                    return self._names[one]
        return self._short.get(parts[-1]) or self._short.get(PurePosixPath(parts[-1]).stem)


def _parts(spec: Spec) -> tuple[str, ...]:
    """The folders or lists of a split; none where it is a ratio."""
    return () if isinstance(spec, float) else spec
