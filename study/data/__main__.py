"""python -m study.data TASK: check a data set, build its cache, show what is in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from study.config.task import FileData
from study.core import telemetry
from study.core.console import EXIT_BAD_INPUT, Parser, exit_code
from study.core.errors import InputError, printable
from study.data import SegmentationData, open_data, scan_files
from study.data.splits import FileProblem, class_warnings

DISTORTED = 0.05  # change of an aspect ratio that is worth a word
MOST_LINES = 20  # files listed of each kind of fault


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 when the data cannot be used: one line, or all faults of the files."""
    parser = Parser(prog="python -m study.data", description=__doc__)
    parser.add_argument("task", metavar="TASK", help="a task file or the name of a shipped task")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder that holds the task's data"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE.png", help="write a contact sheet of images and labels"
    )
    return exit_code(lambda: _check(**vars(parser.parse_args(argv))))


def _check(task: str, data_root: Path | None, out: Path | None) -> int:
    telemetry.turn_off()
    from study.config.task import load_task

    named = load_task(task)
    config = named.config.data
    lines: list[str] = []
    try:
        if isinstance(config, FileData):
            scan = scan_files(config, data_root)
            checked = scan.check()
            if checked.problems:
                print(list_problems(checked.problems, scan.root), file=sys.stderr)
                return EXIT_BAD_INPUT
            data = open_data(config, data_root=data_root)
            lines = [*describe_files(config, checked.sizes)]
        else:
            data = open_data(config, data_root=data_root)
    except InputError as error:
        raise error.of_file(named.file, named.lines) from error
    print("\n".join([describe(data), *lines]))
    if out is not None:
        from study.data.sheet import write_sheet

        write_sheet(data, out)
        print(f"contact sheet: {out}")
    return 0


def list_problems(problems: Iterable[FileProblem], root: Path) -> str:
    """All faults by kind: how many, and the first MOST_LINES files of each."""
    ordered = sorted(problems, key=lambda one: (one.kind, str(one.file)))
    plural = "s" if len(ordered) > 1 else ""
    lines = [printable(f"error: {root}: ") + f"the data have {len(ordered)} fault{plural}"]
    for kind, group in groupby(ordered, key=lambda one: one.kind):
        alike = [*group]
        lines.append(f"{kind} ({len(alike)}):")
        lines += [
            printable(f"  {os.path.relpath(one.file or root, root)}: {one.message}")
            for one in alike[:MOST_LINES]
        ]
        if len(alike) > MOST_LINES:
            lines.append(f"  and {len(alike) - MOST_LINES} more")
    return "\n".join(lines)


def describe_files(config: FileData, sizes: Mapping[tuple[int, int], int]) -> Iterator[str]:
    """The sizes of the images in their files, and what decoding them to one size does to them."""
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


def describe(data: SegmentationData) -> str:
    """Splits, shares of the labelled pixels and images by class, and what to be wary of."""
    height, width = data.train.labels.shape[1:]
    lines = [f"{data.name}: {data.num_classes} classes, images of {height}x{width}"]
    for name, split in data.splits.items():
        ignored = 1 - split.class_counts.sum() / split.labels.size
        blocks = len(np.unique(split.groups))
        lines.append(f"  {name:5} {len(split):6} images in {blocks} blocks, {ignored:.2%} ignored")
    if data.rule:
        lines.append(f"  {data.rule}")
    lines += ["", _table(data), ""]
    lines += [f"warning: {one}" for one in class_warnings(data)]
    if data.cache is not None:
        lines.append(f"cache: {data.cache}")
    lines.append(f"fingerprint: {data.fingerprint}")
    return "\n".join(lines)


def _table(data: SegmentationData) -> str:
    shares = {name: _shares(split.class_counts) for name, split in data.splits.items()}
    present = {name: (split.class_counts > 0).sum(0) for name, split in data.splits.items()}
    length = max(5, *(len(name) for name in data.class_names))
    head = "".join(f"{name + ' %':>10}{'images':>8}" for name in data.splits)
    rows = [f"  {'class':{length}}{head}"]
    for index, class_name in enumerate(data.class_names):
        cells = "".join(
            f"{100 * shares[name][index]:10.3f}{present[name][index]:8}" for name in data.splits
        )
        rows.append(f"  {class_name:{length}}{cells}")
    return "\n".join(rows)


def _shares(class_counts: np.ndarray) -> np.ndarray:
    """(C,) shares of the labelled pixels."""
    return np.asarray(class_counts.sum(0) / max(1, class_counts.sum()))


if __name__ == "__main__":
    sys.exit(main())
