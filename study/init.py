"""`python -m study.init DIR`: look at a folder of images and labels, and write what a study needs.

It writes DIR/task.yaml, and DIR/classes.yaml unless that file exists. It prints what it has found
and the next two commands. Comments explain both files and mark every guess. Nothing else changes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.core.console import Parser, run_command, show
from study.core.errors import InputError

if TYPE_CHECKING:
    from study.data.first_look.drafts import Machine
    from study.data.first_look.look import FirstLook

TASK = "task.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("init", __doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of images and labels")
    for what in ("images", "labels"):
        parser.add_argument(
            f"--{what}",
            metavar="FOLDER",
            help=f"the folder in DIR that holds the {what}, if several could",
        )
    parser.add_argument(
        "--own",
        action="store_true",
        help="DIR has the layout of a published data set, but the classes are your own",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the files instead of writing them"
    )
    return run_command(parser, _init, argv)


def _init(arguments: argparse.Namespace) -> None:
    from study.core.files import write_text
    from study.data.first_look.drafts import task_text
    from study.data.first_look.layout import published_format
    from study.data.first_look.look import first_look
    from study.data.formats.folder import CLASSES_FILE

    root: Path = arguments.folder
    if not root.is_dir():
        reason = "must be a folder" if root.exists() else "no such folder"
        raise InputError(reason, file=root)
    is_described = (root / CLASSES_FILE).is_file()
    if not (arguments.own or is_described) and (name := published_format(root)):
        raise InputError(
            f"this is the tree of a published data set, {name}",
            hint=f"a task with `data: {{format: {name}}}` reads it; --own if the classes are yours",
            file=root,
        )
    if os.path.lexists(root / TASK) and not arguments.dry_run:
        raise InputError("there is a task already", hint="move it away", file=root / TASK)
    found = first_look(root, images=arguments.images, labels=arguments.labels)
    task = task_text(root, found.sizes, found.counts["train"], machine())
    files = {root / TASK: task}
    if found.classes:
        files = {root / CLASSES_FILE: found.classes, **files}
    show(*_told(root, found))
    if arguments.dry_run:
        for path, text in files.items():
            show("", f"# {path}", *text.splitlines())
        return
    try:
        for path, text in files.items():
            write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write here: {error.strerror}", file=root) from error
    place = shlex.quote(str(root / TASK))
    show(
        f"written: {', '.join(map(str, files))}",
        "next, look at both files, then:",
        f"  python -m study.data {place} --out sheet.png",
        f"  python -m study.run --task {place}",
    )


def _told(root: Path, found: FirstLook) -> Iterator[str]:
    counts = ", ".join(f"{count} {split}" for split, count in found.counts.items())
    yield f"found in {root}: {counts}"
    height, width = max(found.sizes, key=lambda size: (found.sizes[size], size))
    others = f" and {len(found.sizes) - 1} other sizes" if len(found.sizes) > 1 else ""
    yield f"images: {height}x{width}{others}"
    if found.labels:
        yield f"labels: {found.labels}"
    yield f"splits: {found.scan.rule}"
    yield f"classes: {', '.join(found.scan.table.names)}"
    yield from (f"left out: {one}" for one in found.left_out)
    yield from (f"guess: {key}: {why}" for key, why in found.guesses.items())
    for fault in {one.kind: one for one in found.scan.findings.faults}.values():
        yield f"fault: {fault}"


def machine() -> Machine:
    """What is here: a GPU, and the weights that an encoder can start from."""
    from importlib.util import find_spec

    import torch

    from study.data.first_look.drafts import Machine
    from study.training.pretrained import EXTRA, PACKAGES

    if torch.cuda.is_available():
        if _hub_answers():
            return Machine(True, "imagenet", "ImageNet weights come from the hub, which answers.")
        why = "No hub answers here: from scratch. `imagenet` starts ahead where it does."
        return Machine(True, None, why)
    (name, package), *_ = PACKAGES.items()
    if find_spec(package.module) is not None:
        return Machine(False, name, "ImageNet weights come as a package, which is installed.")
    why = f"From scratch. {EXTRA} brings ImageNet weights for another encoder."
    return Machine(False, None, why)


def _hub_answers() -> bool:
    import urllib.request

    if os.environ.get("HF_HUB_OFFLINE"):
        return False
    try:
        with urllib.request.urlopen("https://huggingface.co", timeout=5):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
