"""Checks every file of a data set, and describes its splits, classes and objects."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import numpy as np

from study.config.task import FactoryModel, FileData, SmpModel
from study.core.console import EXIT_BAD_INPUT, show
from study.core.errors import InputError, printable
from study.data import SegmentationData, data_faults, data_warnings, open_data, scan_files
from study.data.repeats import HINT, REFUSE, in_words, serious
from study.data.resizing import surveyed
from study.data.scan import Scan
from study.data.splits import FileProblem, Repeat
from study.data.tables import class_table, object_table

DISTORTED = 0.05  # relative change of an aspect ratio that gets a warning
MOST_LINES = 20  # files listed of each kind of fault


def check(arguments: argparse.Namespace) -> int:
    """Check and describe the data of a task; returns the exit code of `python -m study.data`."""
    from study.config.task import load_task

    data_root, out = arguments.data_root, arguments.out
    named = load_task(arguments.task)
    lines: list[str] = []
    try:
        task = named.trained_here
        config = task.data
        if isinstance(config, FileData):
            scan = scan_files(config, data_root)
            if out is not None:
                _refuse_among_pictures(out, scan)
            checked = scan.check()
            if checked.problems:
                print(list_problems(checked.problems, scan.root), file=sys.stderr)
                return EXIT_BAD_INPUT
            data = open_data(config, data_root=data_root, begun=True)
            if config.duplicates == REFUSE and (shared := serious(data)):
                print(list_problems(map(_problem, shared), scan.root), file=sys.stderr)
                return EXIT_BAD_INPUT
            if faults := data_faults(data, config):
                raise faults[0]
            lines = [*describe_files(config, checked.sizes)]
        else:
            data = open_data(config, data_root=data_root)
    except InputError as error:
        raise error.of_file(named.file, named.lines) from error
    show(*describe(data, task.model).split("\n"), *lines)
    if out is not None:
        from study.data.sheet import write_sheet

        write_sheet(data, out)
        show(f"contact sheet: {out}")
    return 0


def _refuse_among_pictures(out: Path, scan: Scan) -> None:
    """The contact sheet would be taken for an image of the data at the next look."""
    if out.parent.resolve() in {pair.image.parent.resolve() for pair in scan.findings.pairs}:
        message = f"the folder of {out} holds images of the data, and the sheet would be one more"
        raise InputError(message, hint="write it elsewhere", key="--out")


def _problem(repeat: Repeat) -> FileProblem:
    return FileProblem("shared", in_words(repeat), Path(repeat.names[1]), hint=HINT)


def list_problems(problems: Iterable[FileProblem], root: Path, *, most: int = MOST_LINES) -> str:
    """List the faults by kind: their number, and the first `most` files of each kind."""
    ordered = sorted(problems, key=lambda one: (one.kind, str(one.file)))
    plural = "s" if len(ordered) > 1 else ""
    lines = [printable(f"error: {root}: ") + f"the data have {len(ordered)} fault{plural}"]
    for kind, group in groupby(ordered, key=lambda one: one.kind):
        alike = [*group]
        hint = next((f": {one.hint}" for one in alike if one.hint), ":")
        lines.append(printable(f"{kind} ({len(alike)}){hint}"))
        lines += [
            printable(f"  {os.path.relpath(one.file or root, root)}: {one.message}")
            for one in alike[:most]
        ]
        if len(alike) > most:
            lines.append(f"  and {len(alike) - most} more")
    return "\n".join(lines)


def describe_files(config: FileData, sizes: Mapping[tuple[int, int], int]) -> Iterator[str]:
    """Describe the sizes of the image files, and how many images decoding distorts."""
    low, high = ("x".join(map(str, one)) for one in (min(sizes), max(sizes)))
    shown = low if low == high else f"{len(sizes)} sizes, {low} to {high}"
    yield f"files: {sum(sizes.values())} images of {shown}"
    height, width = config.size
    distorted = sum(
        count for (h, w), count in sizes.items() if abs(w * height / (h * width) - 1) > DISTORTED
    )
    if config.fit == "stretch" and distorted:
        yield (
            f"warning: images that change their proportions by more than {DISTORTED:.0%} at "
            f"{height}x{width}: {distorted}; `fit: pad` keeps proportions"
        )


def describe(data: SegmentationData, model: SmpModel | FactoryModel | None = None) -> str:
    """Describe the splits, the pixels, images and objects of each class, and warnings."""
    data = surveyed(data)
    height, width = data.train.labels.shape[1:]
    lines = [f"{data.name}: {data.num_classes} classes, images of {height}x{width}"]
    for name, split in data.splits.items():
        ignored = 1 - split.class_counts.sum() / split.labels.size
        blocks = len(np.unique(split.groups))
        lines.append(f"  {name:5} {len(split):6} images in {blocks} blocks, {ignored:.2%} ignored")
    if data.rule:
        lines.append(f"  {data.rule}")
    lines += ["", class_table(data), "", object_table(data), ""]
    lines += [f"warning: {one}" for one in data_warnings(data, model)]
    if data.cache is not None:
        lines.append(f"cache: {data.cache}")
    lines.append(f"fingerprint: {data.fingerprint}")
    return "\n".join(lines)
