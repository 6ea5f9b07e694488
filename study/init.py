"""`python -m study.init DIR`: look at a folder of images and labels, and write what a study needs.

Writes DIR/classes.yaml, unless there is one, and DIR/task.yaml, says what it has found, and prints
the next two commands. Both files are commented; what is a guess is marked as one. Nothing else is
changed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from study.core.console import Parser, run_command, show
from study.core.errors import InputError

if TYPE_CHECKING:
    from study.data.first_look.drafts import Machine
    from study.data.scan import Scan

SIZED = 500  # images whose size is looked at
TASK = "task.yaml"
T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser("init", __doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of images and labels")
    for what in ("images", "labels"):
        parser.add_argument(
            f"--{what}", metavar="FOLDER", help=f"folder of the {what} in DIR, where it is unclear"
        )
    parser.add_argument(
        "--own", action="store_true", help="the classes are your own, though the tree is published"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the files instead of writing them"
    )
    return run_command(parser, _init, argv)


def _init(arguments: argparse.Namespace) -> None:
    from study.core.files import write_text
    from study.data.first_look.drafts import classes_text, task_text
    from study.data.first_look.layout import published_format
    from study.data.formats.folder import CLASSES_FILE

    root: Path = arguments.folder
    if not root.is_dir():
        reason = "must be a folder" if root.exists() else "no such folder"
        raise InputError(reason, file=root)
    is_own = arguments.own or (root / CLASSES_FILE).exists()
    if not is_own and (name := published_format(root)):
        raise InputError(
            f"this is the tree of a published data set, {name}",
            hint=f"a task with `data: {{format: {name}}}` reads it; --own if the classes are yours",
            file=root,
        )
    if os.path.lexists(root / TASK) and not arguments.dry_run:
        raise InputError("there is a task already", hint="move it away", file=root / TASK)
    is_described = (root / CLASSES_FILE).is_file()
    keys, guesses, what, left_out = ({}, {}, "", []) if is_described else _look(root, arguments)
    classes = classes_text(keys, guesses)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / CLASSES_FILE
        draft.write_text(
            (root / CLASSES_FILE).read_text(encoding="utf-8") if is_described else classes,
            encoding="utf-8",
        )
        scan = _scanned(root, draft)
        members = _of_root(root, draft, scan.members)
    counts = {split: len(some) for split, some in members.items()}
    sizes = _sizes([pair.image for some in members.values() for pair, _ in some])
    task = task_text(root, sizes, counts["train"], machine())
    show(f"found in {root}: " + ", ".join(f"{count} {split}" for split, count in counts.items()))
    show(f"images: {_told(sizes)}")
    if what:
        show(f"labels: {what}")
    show(f"splits: {scan.rule}")
    show(f"classes: {', '.join(scan.table.names)}")
    for one in left_out:
        show(f"left out: {one}")
    for key, why in guesses.items():
        show(f"guess: {key}: {why}")
    for fault in {one.kind: one for one in scan.findings.faults}.values():
        show(f"fault: {fault}")
    if arguments.dry_run:
        if not is_described:
            show("", f"# {root / CLASSES_FILE}", *classes.splitlines())
        show("", f"# {root / TASK}", *task.splitlines())
        return
    try:
        if not is_described:
            write_text(root / CLASSES_FILE, classes)
        write_text(root / TASK, task)
    except OSError as error:
        raise InputError(f"cannot write here: {error.strerror}", file=root) from error
    written = [root / TASK] if is_described else [root / CLASSES_FILE, root / TASK]
    place = shlex.quote(str(root / TASK))
    show(
        f"written: {', '.join(map(str, written))}",
        "next, look at both files, then:",
        f"  python -m study.data {place} --out sheet.png",
        f"  python -m study.run --task {place}",
    )


def _look(
    root: Path, arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, str], str, list[str]]:
    """The keys of classes.yaml, which of them are guesses and why, what the labels hold, and what
    is neither an image nor a label."""
    from study.data.first_look.drafts import classes_text
    from study.data.first_look.layout import layout
    from study.data.first_look.values import meaning

    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "classes.yaml"
        draft.write_text("classes: [background, other]\n", encoding="utf-8")
        found = layout(root, draft, images=arguments.images, labels=arguments.labels)
        some = {} if "masks" in found.keys else {"classes": ["background", "other"]}
        draft.write_text(classes_text({**some, **found.keys}, {}), encoding="utf-8")
        scan = _scanned(root, draft)
    pairs = scan.findings.pairs
    if not pairs:
        raise _no_pair(root, scan)
    if "masks" in found.keys:
        return found.keys, found.guesses, "binary masks", found.left_out
    bare = {fault.file for fault in scan.findings.faults if fault.kind == "missing label"}
    told = meaning(root, [pair.label for pair in pairs if pair.label is not None])
    keys, guesses = {**told.keys, **found.keys}, {**found.guesses, **told.guesses}
    if bare:
        first = _first_class(told.keys)
        keys["missing_label"] = first
        guesses["missing_label"] = f"{len(bare)} images have no label: all of them {first}"
    return keys, guesses, told.what, found.left_out


def _no_pair(root: Path, scan: Scan) -> InputError:
    for fault in scan.findings.faults:
        if fault.kind not in ("missing label", "missing image"):
            return fault
    files = {fault.kind: Path(fault.file).name for fault in scan.findings.faults if fault.file}
    shown = " and ".join(
        files[kind] for kind in ("missing label", "missing image") if kind in files
    )
    hint = (
        "rename the labels like their images, or `label_path` in classes.yaml says how they differ"
    )
    return InputError(f"no image has a label of its name, as in {shown}", hint=hint, file=root)


def _first_class(keys: Mapping[str, Any]) -> str:
    classes = keys.get("classes")
    if isinstance(classes, list):
        return str(classes[0])
    return str(next(iter((classes or keys["labels"]).values())))


def _scanned(root: Path, described: Path) -> Scan:
    from study.config.task import FolderData
    from study.data.formats.folder import folder_scan

    config = FolderData(format="folder", size=(32, 32), root=str(root))
    return _of_root(root, described, lambda: folder_scan(config, root, described))


def _of_root(root: Path, described: Path, read: Callable[[], T]) -> T:
    """Call `read`; what it says of the draft is said of the root's file."""
    try:
        return read()
    except InputError as error:
        if error.file is None or Path(error.file) != described:
            raise
        raise InputError(error.message, file=root / "classes.yaml", key=error.key) from error


def _sizes(images: Sequence[Path]) -> Counter[tuple[int, int]]:
    """How many images have each (height, width); of many, of some."""
    import numpy as np
    from PIL import Image

    from study.data.labels import read_image

    chosen = np.unique(np.linspace(0, len(images) - 1, min(SIZED, len(images))).astype(int))
    found: Counter[tuple[int, int]] = Counter()
    for index in chosen:
        try:
            with Image.open(images[index]) as picture:
                found[picture.height, picture.width] += 1
        except (OSError, ValueError, SyntaxError):
            read_image(images[index])  # raises the line about it
    return found


def _told(sizes: Mapping[tuple[int, int], int]) -> str:
    height, width = max(sizes, key=lambda size: (sizes[size], size))
    more = f" and {len(sizes) - 1} other sizes" if len(sizes) > 1 else ""
    return f"{height}x{width}{more}"


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
